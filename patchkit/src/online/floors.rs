//! The highest versions seen, kept beside the metadata: a torn `timestamp.json` must not let an older one in (R22).
//!
//! A floor holds for the keys under which it was seen: after a theft of the online keys the versions may have been driven up, and a root
//! with new keys starts them afresh (TUF 5.3.11, recovery by fast-forward).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sigstore_tuf::{Root, TrustedMetadataSet};

use super::{OnlineError, Store};
use crate::crypto::sha256;

/// Not `*.json`: it is no metadata.
const FILE: &str = "floors";

/// Versions by role.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floors(BTreeMap<String, Floor>);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Floor {
    version: u64,
    /// SHA-256 over the keys and threshold that the root names for the role.
    keys: String,
}

impl Floors {
    /// What was kept; none where it can't be read: the metadata itself is a floor too.
    pub(super) fn load(store: &Store) -> Result<Self, OnlineError> {
        let bytes = store.load(FILE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Refuses a version below the floor.
    pub(super) fn demand(&self, role: &str, version: u64, root: &Root) -> Result<(), OnlineError> {
        match self.0.get(role).filter(|floor| floor.keys == keys_of(root, role)) {
            Some(floor) if version < floor.version => Err(OnlineError::Refused {
                what: format!("{role}.json"),
                why: format!("version {version}; {} was seen", floor.version),
            }),
            _ => Ok(()),
        }
    }

    /// Keeps what is trusted now.
    pub(super) fn keep(store: &Store, trusted: &TrustedMetadataSet) -> Result<(), OnlineError> {
        let seen = [
            ("timestamp", trusted.timestamp().map(|timestamp| timestamp.version)),
            ("snapshot", trusted.snapshot().map(|snapshot| snapshot.version)),
            ("targets", trusted.targets_role("targets").map(|targets| targets.version)),
        ];
        let floor = |(role, version): (&str, Option<u64>)| {
            version.map(|version| (role.to_owned(), Floor { version, keys: keys_of(trusted.root(), role) }))
        };
        let floors = Self(seen.into_iter().filter_map(floor).collect());
        let bytes = serde_json::to_vec(&floors).map_err(std::io::Error::other)?;
        Ok(store.save(FILE, &bytes)?)
    }
}

/// The keys that a floor holds for. Targets may be wound back only with new snapshot keys, so both count for them.
fn keys_of(root: &Root, role: &str) -> String {
    let roles: &[&str] = if role == "targets" { &["snapshot", "targets"] } else { &[role] };
    let mut text = String::new();
    for role in roles.iter().filter_map(|role| root.role(role)) {
        let mut ids = role.keyids.clone();
        ids.sort();
        text.push_str(&format!("{} {};", role.threshold, ids.join(" ")));
    }
    hex::encode(sha256(text.as_bytes()))
}
