//! What the online keys sign: snapshot (which versions stand together) and timestamp (that this is the newest). Pure, but for the keys' files.
//!
//! These keys can freeze or withhold, never inject (DESIGN, Patches): the root gives them these two roles only. Versions never go back;
//! the caller hands them out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::time_source::UnixMs;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::repository::Newest;

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

/// The two private keys.
pub(crate) struct OnlineKeys {
    snapshot: Ed25519KeyPair,
    timestamp: Ed25519KeyPair,
}

impl OnlineKeys {
    /// Reads them; `None`: none were made.
    ///
    /// # Errors
    /// If they are there and can't be read.
    pub(crate) fn load(keys_dir: &Path) -> anyhow::Result<Option<Self>> {
        let read = |role: Role| {
            let path = keys_dir.join(role.key_file());
            match std::fs::read(&path) {
                Ok(bytes) => {
                    let key = Ed25519KeyPair::from_pkcs8(&bytes);
                    key.map(Some).map_err(|_| anyhow::anyhow!("{}: no Ed25519 key (PKCS#8)", path.display()))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| path.display().to_string()),
            }
        };
        Ok(read(Role::Snapshot)?.zip(read(Role::Timestamp)?).map(|(snapshot, timestamp)| Self { snapshot, timestamp }))
    }

    /// Makes new ones: the files' names and contents, to be written privately.
    ///
    /// # Errors
    /// If the generator fails.
    pub(crate) fn make(rng: &SystemRandom) -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
        let key = || Ed25519KeyPair::generate_pkcs8(rng).map_err(|_| anyhow::anyhow!("making a key"));
        Ok([(Role::Snapshot.key_file(), key()?.as_ref().to_vec()), (Role::Timestamp.key_file(), key()?.as_ref().to_vec())])
    }

    fn of(&self, role: Role) -> &Ed25519KeyPair {
        match role {
            Role::Snapshot => &self.snapshot,
            Role::Timestamp => &self.timestamp,
        }
    }

    fn public_hex(&self, role: Role) -> String {
        hex::encode(self.of(role).public_key().as_ref())
    }

    /// What the release engineer needs for the root: the public keys by role, as TUF writes keys.
    pub(crate) fn public(&self) -> Value {
        let key = |role| json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.public_hex(role)}});
        json!({"snapshot": key(Role::Snapshot), "timestamp": key(Role::Timestamp)})
    }

    /// The id under which a root lets the role's key sign; `None`: it doesn't.
    pub(crate) fn listed_as(&self, role: Role, root: &[u8]) -> Option<String> {
        let root: Value = serde_json::from_slice(root).ok()?;
        let signed = root.get("signed")?;
        let (keys, ours) = (signed.get("keys")?, self.public_hex(role));
        let ids = signed.get("roles")?.get(role.as_str())?.get("keyids")?.as_array()?;
        let is_ours = |id: &&str| {
            let public = keys.get(*id).and_then(|key| key.get("keyval")?.get("public")?.as_str());
            public.is_some_and(|public| public.eq_ignore_ascii_case(&ours))
        };
        ids.iter().filter_map(Value::as_str).find(is_ours).map(str::to_owned)
    }

    /// Signs `meta` (file name to what is said of it) as `version` of the role.
    pub(crate) fn sign(&self, role: Role, key_id: &str, version: i64, meta: Value, now: UnixMs) -> Signed {
        // TUF counts whole seconds.
        let expires_at = UnixMs(now.plus(role.life()).0 / 1000 * 1000);
        let names = meta.to_string();
        let signed = json!({
            "_type": role.as_str(), "spec_version": "1.0.31", "version": version,
            "expires": expires_at.to_utc().format("%Y-%m-%dT%H:%M:%SZ").to_string(), "meta": meta,
        });
        let signature = self.of(role).sign(canonical(&signed).as_bytes());
        let body = json!({"signatures": [{"keyid": key_id, "sig": hex::encode(signature.as_ref())}], "signed": signed});
        Signed { role: role.as_str(), version, body: body.to_string(), names, signed_at: now, expires_at }
    }
}

/// What a snapshot says of the metadata that stands together: everything but the root.
pub(crate) fn snapshot_meta(newest: &BTreeMap<String, Newest>) -> Value {
    let of = |(role, newest): (&String, &Newest)| (format!("{role}.json"), about(newest.version, &newest.bytes));
    Value::Object(newest.iter().filter(|(role, _)| *role != "root").map(of).collect())
}

/// What a timestamp says of a snapshot.
pub(crate) fn timestamp_meta(snapshot: &Signed) -> Value {
    json!({"snapshot.json": about(u64::try_from(snapshot.version).unwrap_or_default(), snapshot.body.as_bytes())})
}

fn about(version: u64, bytes: &[u8]) -> Value {
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": hash}})
}

/// Whether a role is to be signed again: it says something else now, or half of its life is over.
pub(crate) fn is_due(role: Role, last: Option<&Signed>, meta: &Value, now: UnixMs) -> bool {
    let Some(last) = last else { return true };
    let says_the_same = serde_json::from_str::<Value>(&last.names).is_ok_and(|names| names == *meta);
    !says_the_same || now >= last.signed_at.plus(role.life() / 2) || now < last.signed_at
}

/// Canonical JSON as TUF signs it (OLPC): sorted keys, no spaces, whole numbers, only `"` and `\` escaped.
fn canonical(value: &Value) -> String {
    let text = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields: Vec<String> = sorted.iter().map(|(key, value)| format!("{}:{}", text(key), canonical(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn keys() -> OnlineKeys {
        let dir = tempfile::tempdir().expect("a folder");
        for (file, bytes) in OnlineKeys::make(&SystemRandom::new()).expect("keys") {
            std::fs::write(dir.path().join(file), bytes).expect("written");
        }
        OnlineKeys::load(dir.path()).expect("readable").expect("there")
    }

    #[test]
    fn what_is_signed_verifies_over_its_canonical_form() {
        let (keys, now) = (keys(), UnixMs(1_795_334_400_123));
        let newest = Newest { version: 4, expires_at: now, bytes: b"{}".to_vec() };
        let meta = snapshot_meta(&BTreeMap::from([("targets".to_owned(), newest.clone()), ("root".to_owned(), newest)]));
        let snapshot = keys.sign(Role::Snapshot, "id", 3, meta.clone(), now);
        let body: Value = serde_json::from_str(&snapshot.body).expect("JSON");
        assert_eq!(body["signed"]["expires"], "2026-11-29T08:00:00Z");
        assert_eq!(body["signed"]["meta"]["targets.json"]["version"], 4);
        assert!(body["signed"]["meta"].get("root.json").is_none());
        let public = hex::decode(keys.public_hex(Role::Snapshot)).expect("hex");
        let signature = hex::decode(body["signatures"][0]["sig"].as_str().expect("a signature")).expect("hex");
        let signed = canonical(&body["signed"]);
        assert!(signed.starts_with(r#"{"_type":"snapshot","expires":"2026"#), "{signed}");
        UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).expect("a good signature");
        assert!(!is_due(Role::Snapshot, Some(&snapshot), &meta, now));
        assert!(is_due(Role::Snapshot, Some(&snapshot), &meta, now.plus(DAY * 4)), "half of its life is over");
        assert!(is_due(Role::Snapshot, Some(&snapshot), &json!({}), now), "it says something else");
        let timestamp = keys.sign(Role::Timestamp, "id", 1, timestamp_meta(&snapshot), now);
        assert_eq!(timestamp.expires_at, UnixMs(1_795_420_800_000));
    }

    #[test]
    fn a_key_signs_only_under_the_id_that_the_root_gives_its_role() {
        let keys = keys();
        let root = json!({"signed": {
            "keys": {"a": keys.public()["snapshot"], "b": keys.public()["timestamp"]},
            "roles": {"snapshot": {"keyids": ["b", "a"]}, "timestamp": {"keyids": ["a"]}}
        }});
        let root = root.to_string();
        assert_eq!(keys.listed_as(Role::Snapshot, root.as_bytes()), Some("a".to_owned()));
        assert_eq!(keys.listed_as(Role::Timestamp, root.as_bytes()), None);
    }
}
