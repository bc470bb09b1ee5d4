//! What the online keys sign: snapshot (which versions stand together) and timestamp (that this is the newest). Pure, but for the keys' files.
//!
//! These keys can freeze or withhold, never inject (DESIGN, Patches): the root gives them these two roles only. Versions never go back;
//! the caller hands them out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_patchkit::authoring::{Envelope, Named, SigningKey, snapshot_text, timestamp_text};
use mainstay_shared::time_source::UnixMs;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::standing::Newest;

const DAY: Duration = Duration::from_secs(86_400);
/// A snapshot lasts a week, a timestamp a day: as long as a captured or silent collector can freeze what appliances know.
const SNAPSHOT_LIFE: Duration = DAY.saturating_mul(7);
const TIMESTAMP_LIFE: Duration = DAY;

/// The two roles that are signed online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Snapshot,
    Timestamp,
}

impl Role {
    /// The name in TUF.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    fn key_file(self) -> &'static str {
        match self {
            Self::Snapshot => "tuf-snapshot.key",
            Self::Timestamp => "tuf-timestamp.key",
        }
    }

    fn life(self) -> Duration {
        match self {
            Self::Snapshot => SNAPSHOT_LIFE,
            Self::Timestamp => TIMESTAMP_LIFE,
        }
    }
}

/// Metadata that was signed online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) role: &'static str,
    pub(crate) version: i64,
    pub(crate) body: String,
    /// What it names, to see whether it still says what is so.
    pub(crate) names: String,
    pub(crate) signed_at: UnixMs,
    pub(crate) expires_at: UnixMs,
}

/// What a role's metadata names: files with version, length and hash.
pub(crate) type Names = BTreeMap<String, (u64, Named)>;

/// The two private keys: files of 32 secret bytes.
pub(crate) struct OnlineKeys {
    snapshot: SigningKey,
    timestamp: SigningKey,
}

impl OnlineKeys {
    /// Reads them; `None`: none were made.
    ///
    /// # Errors
    /// If they are there and can't be read.
    pub(crate) fn load(keys_dir: &Path) -> anyhow::Result<Option<Self>> {
        let read = |role: Role| {
            let path = keys_dir.join(role.key_file());
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            };
            let seed: [u8; 32] =
                bytes.try_into().map_err(|_| anyhow::anyhow!("{}: expected a key of 32 bytes", path.display()))?;
            Ok(Some(SigningKey::from_seed(&seed).with_context(|| path.display().to_string())?))
        };
        Ok(read(Role::Snapshot)?.zip(read(Role::Timestamp)?).map(|(snapshot, timestamp)| Self { snapshot, timestamp }))
    }

    /// Makes new ones: the files' names and contents, to be written privately.
    ///
    /// # Errors
    /// If the generator fails.
    pub(crate) fn make(rng: &SystemRandom) -> anyhow::Result<[(&'static str, [u8; 32]); 2]> {
        let seed = || SigningKey::new_seed(rng).context("making a key");
        Ok([(Role::Snapshot.key_file(), seed()?), (Role::Timestamp.key_file(), seed()?)])
    }

    fn of(&self, role: Role) -> &SigningKey {
        match role {
            Role::Snapshot => &self.snapshot,
            Role::Timestamp => &self.timestamp,
        }
    }

    /// What the release engineer needs for the root: the public keys by role, as metadata writes keys.
    pub(crate) fn public(&self) -> Value {
        json!({"snapshot": self.snapshot.public().to_value(), "timestamp": self.timestamp.public().to_value()})
    }

    /// Whether a root lets both keys sign for their roles.
    pub(crate) fn are_listed(&self, root: &[u8]) -> bool {
        let root: Value = serde_json::from_slice(root).unwrap_or_default();
        [Role::Snapshot, Role::Timestamp].into_iter().all(|role| {
            let ids = root["signed"]["roles"][role.as_str()]["keyids"].as_array();
            let ours = self.of(role).public().key_id();
            ids.is_some_and(|ids| ids.iter().any(|id| id.as_str() == Some(&ours)))
        })
    }

    /// Signs `version` of a role over what it names. A timestamp names its snapshot alone.
    ///
    /// # Errors
    /// If a text can't be written.
    pub(crate) fn sign(&self, role: Role, version: i64, names: &Names, now: UnixMs) -> anyhow::Result<Signed> {
        // TUF counts whole seconds.
        let expires_at = UnixMs(now.plus(role.life()).0 / 1000 * 1000);
        let number = u64::try_from(version)?;
        let text = match role {
            Role::Snapshot => snapshot_text(number, expires_at, names),
            Role::Timestamp => {
                let snapshot = names.values().next().cloned().context("a timestamp names a snapshot")?;
                timestamp_text(number, expires_at, snapshot)
            }
        };
        let mut envelope = Envelope::new(text);
        envelope.sign(self.of(role))?;
        let body = String::from_utf8(envelope.to_bytes()?)?;
        Ok(Signed { role: role.as_str(), version, body, names: serde_json::to_string(names)?, signed_at: now, expires_at })
    }
}

/// What a snapshot says of the metadata that stands together: everything but the root.
pub(crate) fn names_of(newest: &BTreeMap<String, Newest>) -> Names {
    let named = |(role, newest): (&String, &Newest)| (format!("{role}.json"), (newest.version, Named::of(&newest.bytes)));
    newest.iter().filter(|(role, _)| *role != "root").map(named).collect()
}

/// What a snapshot says after `last`: what stands now, and what was named before and stands no more, because clients take neither a
/// lower version nor a name that is gone. Beside it, what went back: its name, and how.
pub(crate) fn together(last: Option<&Signed>, stands: Names) -> (Names, Vec<(String, String)>) {
    let mut names: Names = last.and_then(|last| serde_json::from_str(&last.names).ok()).unwrap_or_default();
    let mut went_back = Vec::new();
    for (name, (version, named)) in stands {
        match names.get(&name) {
            Some((before, _)) if *before > version => {
                went_back.push((
                    name,
                    format!("version {version} is the newest that verifies; {before} was named before and still is"),
                ));
            }
            _ => {
                names.insert(name, (version, named));
            }
        }
    }
    (names, went_back)
}

/// What a timestamp says of a snapshot.
pub(crate) fn names_of_snapshot(snapshot: &Signed) -> Names {
    let version = u64::try_from(snapshot.version).unwrap_or_default();
    Names::from([("snapshot.json".to_owned(), (version, Named::of(snapshot.body.as_bytes())))])
}

/// Whether a role is to be signed again: it says something else now, or half of its life is over.
pub(crate) fn is_due(role: Role, last: Option<&Signed>, names: &Names, now: UnixMs) -> bool {
    let Some(last) = last else { return true };
    let says_the_same = serde_json::from_str::<Names>(&last.names).is_ok_and(|said| said == *names);
    !says_the_same || now >= last.signed_at.plus(role.life() / 2) || now < last.signed_at
}

#[cfg(test)]
mod tests {
    use mainstay_patchkit::authoring::PublicKey;
    use mainstay_patchkit::sample::Vendor;

    use super::*;

    fn keys(seeds: [[u8; 32]; 2]) -> OnlineKeys {
        let dir = tempfile::tempdir().expect("a folder");
        for (role, seed) in [Role::Snapshot, Role::Timestamp].into_iter().zip(seeds) {
            std::fs::write(dir.path().join(role.key_file()), seed).expect("written");
        }
        OnlineKeys::load(dir.path()).expect("readable").expect("there")
    }

    #[test]
    fn what_is_signed_verifies_and_is_due_again_in_time() {
        let (keys, now) = (keys([[31; 32], [32; 32]]), UnixMs(1_795_334_400_123));
        let newest = Newest { version: 4, expires_at: now, bytes: b"{}".to_vec() };
        let names = names_of(&BTreeMap::from([("targets".to_owned(), newest.clone()), ("root".to_owned(), newest)]));
        let snapshot = keys.sign(Role::Snapshot, 3, &names, now).expect("signed");
        let envelope = Envelope::read(snapshot.body.as_bytes()).expect("metadata");
        assert_eq!(envelope.signed["expires"], "2026-11-29T08:00:00Z");
        assert_eq!(envelope.signed["meta"]["targets.json"]["version"], 4);
        assert!(envelope.signed["meta"].get("root.json").is_none());
        let public = PublicKey(keys.public()["snapshot"]["keyval"]["public"].as_str().expect("hex").to_owned());
        assert_eq!(envelope.signers([&public]).len(), 1);
        assert!(!is_due(Role::Snapshot, Some(&snapshot), &names, now));
        assert!(is_due(Role::Snapshot, Some(&snapshot), &names, now.plus(DAY * 4)), "half of its life is over");
        assert!(is_due(Role::Snapshot, Some(&snapshot), &Names::new(), now), "it says something else");
        let timestamp = keys.sign(Role::Timestamp, 1, &names_of_snapshot(&snapshot), now).expect("signed");
        assert_eq!(timestamp.expires_at, UnixMs(1_795_420_800_000));
    }

    #[test]
    fn a_snapshot_never_names_less_than_the_one_before() {
        let named = |names: &[(&str, u64)]| -> Names {
            names.iter().map(|(name, version)| ((*name).to_owned(), (*version, Named::of(name.as_bytes())))).collect()
        };
        let last = |names: &[(&str, u64)]| Signed {
            role: "snapshot",
            version: 1,
            body: String::new(),
            names: serde_json::to_string(&named(names)).expect("json"),
            signed_at: UnixMs(0),
            expires_at: UnixMs(0),
        };
        let (t, r) = ("targets.json", "acme-offline.json");
        let rows = [
            ("news", vec![(t, 1), (r, 1)], vec![(t, 2), (r, 1)], vec![(t, 2), (r, 1)], vec![]),
            ("nothing verifies", vec![(t, 2), (r, 3)], vec![], vec![(t, 2), (r, 3)], vec![]),
            ("the newest is gone", vec![(t, 2), (r, 3)], vec![(t, 2), (r, 2)], vec![(t, 2), (r, 3)], vec![r]),
            ("a product was taken out", vec![(t, 2), (r, 3)], vec![(t, 3)], vec![(t, 3), (r, 3)], vec![]),
        ];
        for (sentence, before, stands, expected, back) in rows {
            let (names, went_back) = together(Some(&last(&before)), named(&stands));
            assert_eq!(names, named(&expected), "{sentence}");
            assert_eq!(went_back.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), back, "{sentence}");
        }
        assert_eq!(together(None, named(&[(t, 1)])).0, named(&[(t, 1)]), "the first one");
    }

    #[test]
    fn keys_sign_only_where_the_root_lists_them() {
        let root = Vendor::default().root_json().expect("a root");
        assert!(keys([[31; 32], [32; 32]]).are_listed(&root));
        assert!(!keys([[31; 32], [33; 32]]).are_listed(&root), "the other key");
        assert!(!keys([[32; 32], [31; 32]]).are_listed(&root), "the other way round");
        assert!(!keys([[31; 32], [32; 32]]).are_listed(b"torn"));
    }
}
