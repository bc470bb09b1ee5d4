//! Writes what [`crate::verify`] reads: keys, signed texts, roots, targets, product roles, snapshots and timestamps (TUF 1.0).
//!
//! Used by the signing tool with keys that are offline, and by the collector with those of the two online roles. Time and randomness are
//! arguments. It must never decide who may sign: it signs what it is given.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::time_source::UnixMs;
use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sigstore_tuf::canonical_json::to_canonical_bytes;
use sigstore_tuf::{Metadata, Root, Targets};
use thiserror::Error;

use crate::crypto::sha256;
use crate::metadata::moment;
use crate::verify::ISSUED_FIELD;

/// Why something can't be written.
#[derive(Debug, Error)]
pub enum AuthoringError {
    /// A seed that makes no key, or no randomness.
    #[error("the signing key can't be made: {0}")]
    Key(String),
    /// A text that is no metadata.
    #[error("not signed metadata: {0}")]
    Text(String),
}

/// An Ed25519 key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// From its 32 secret bytes.
    ///
    /// # Errors
    /// [`AuthoringError::Key`].
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, AuthoringError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| AuthoringError::Key(error.to_string()))?;
        let public = PublicKey(hex::encode(pair.public_key().as_ref()));
        Ok(Self { pair, public })
    }

    /// 32 new secret bytes.
    ///
    /// # Errors
    /// [`AuthoringError::Key`] without randomness.
    pub fn new_seed(rng: &dyn SecureRandom) -> Result<[u8; 32], AuthoringError> {
        let mut seed = [0; 32];
        rng.fill(&mut seed).map_err(|_| AuthoringError::Key("the machine gives no randomness".into()))?;
        Ok(seed)
    }

    /// The half that everybody may know.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// An Ed25519 public key, 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub String);

impl PublicKey {
    /// As it stands in metadata.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.0}})
    }

    /// Its name in metadata: SHA-256 of its canonical text.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(sha256(&to_canonical_bytes(&self.to_value()).unwrap_or_default()))
    }

    /// Whether it is 32 bytes in lower-case hex.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        crate::bounds::is_sha256(&self.0)
    }
}

/// A text with its signatures, one per key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What is signed.
    pub signed: Value,
    /// Key id and signature, hex.
    pub signatures: BTreeMap<String, String>,
}

impl Envelope {
    /// Without signatures.
    #[must_use]
    pub fn new(signed: Value) -> Self {
        Self { signed, signatures: BTreeMap::new() }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`AuthoringError::Text`], also for two signatures under one key id.
    pub fn read(bytes: &[u8]) -> Result<Self, AuthoringError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            signed: Value,
            signatures: Vec<Signature>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Signature {
            keyid: String,
            sig: String,
        }
        let text: Text = serde_json::from_slice(bytes).map_err(|error| AuthoringError::Text(error.to_string()))?;
        let mut envelope = Self::new(text.signed);
        for Signature { keyid, sig } in text.signatures {
            if envelope.signatures.insert(keyid.clone(), sig).is_some() {
                return Err(AuthoringError::Text(format!("two signatures by {keyid}")));
            }
        }
        Ok(envelope)
    }

    /// The bytes that signatures cover.
    ///
    /// # Errors
    /// [`AuthoringError::Text`] for numbers that aren't whole.
    pub fn canonical(&self) -> Result<Vec<u8>, AuthoringError> {
        to_canonical_bytes(&self.signed).map_err(|error| AuthoringError::Text(error.to_string()))
    }

    /// Adds the key's signature, or replaces it.
    ///
    /// # Errors
    /// As [`Self::canonical`].
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), AuthoringError> {
        let signature = key.pair.sign(&self.canonical()?);
        self.signatures.insert(key.public.key_id(), hex::encode(signature.as_ref()));
        Ok(())
    }

    /// The keys among `keys` whose good signature it bears.
    #[must_use]
    pub fn signers<'k>(&self, keys: impl IntoIterator<Item = &'k PublicKey>) -> BTreeSet<&'k PublicKey> {
        let Ok(text) = self.canonical() else { return BTreeSet::new() };
        let signed_by = |key: &&PublicKey| {
            let signature = self.signatures.get(&key.key_id()).and_then(|signature| hex::decode(signature).ok());
            let public = hex::decode(&key.0).unwrap_or_default();
            signature.is_some_and(|signature| UnparsedPublicKey::new(&ED25519, public).verify(&text, &signature).is_ok())
        };
        keys.into_iter().filter(signed_by).collect()
    }

    /// Whether the appliances' reader understands the text, as a root or as targets.
    ///
    /// # Errors
    /// [`AuthoringError::Text`] with the place.
    pub fn read_back(&self) -> Result<(), AuthoringError> {
        let bytes = self.to_bytes()?;
        let told = |error: sigstore_tuf::Error| AuthoringError::Text(error.to_string());
        match self.signed["_type"].as_str() {
            Some("root") => Metadata::<Root>::from_slice(&bytes).map(|_| ()).map_err(told),
            Some("targets") => Metadata::<Targets>::from_slice(&bytes).map(|_| ()).map_err(told),
            _ => Err(AuthoringError::Text("_type: expected root or targets".into())),
        }
    }

    /// As a metadata file.
    ///
    /// # Errors
    /// As [`Self::canonical`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, AuthoringError> {
        let signatures: Vec<Value> = self.signatures.iter().map(|(keyid, sig)| json!({"keyid": keyid, "sig": sig})).collect();
        let file = json!({"signatures": signatures, "signed": self.signed});
        serde_json::to_vec_pretty(&file).map_err(|error| AuthoringError::Text(error.to_string()))
    }
}

/// Who may sign for a role, and how many must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signers {
    /// The keys.
    pub keys: BTreeSet<PublicKey>,
    /// How many of them must sign.
    pub threshold: usize,
}

impl Signers {
    fn to_value(&self) -> Value {
        json!({"keyids": self.keys.iter().map(PublicKey::key_id).collect::<BTreeSet<_>>(), "threshold": self.threshold})
    }
}

/// The text of a root.
#[derive(Debug, Clone)]
pub struct RootText<'a> {
    /// One more than the root before it.
    pub version: u64,
    /// Until when.
    pub expires_at: UnixMs,
    /// Signs roots.
    pub root: &'a Signers,
    /// Signs the top targets.
    pub targets: &'a Signers,
    /// Signs snapshots, online.
    pub snapshot: &'a Signers,
    /// Signs timestamps, online.
    pub timestamp: &'a Signers,
}

impl RootText<'_> {
    /// As the signed text.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let roles = [("root", self.root), ("targets", self.targets), ("snapshot", self.snapshot), ("timestamp", self.timestamp)];
        let named: BTreeMap<&str, Value> = roles.iter().map(|(name, signers)| (*name, signers.to_value())).collect();
        json!({
            "_type": "root", "spec_version": SPEC_VERSION, "version": self.version, "expires": date(self.expires_at),
            "consistent_snapshot": true, "keys": keys(roles.iter().map(|(_, signers)| *signers)), "roles": named,
        })
    }
}

/// A file as a target, or a role's file as a snapshot names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Bytes.
    pub length: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

impl Named {
    /// Of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, sha256: hex::encode(sha256(bytes)) }
    }
}

/// The text of targets: the top one delegates to products, a product's names files.
#[derive(Debug, Clone)]
pub struct TargetsText<'a> {
    /// Grows.
    pub version: u64,
    /// When it was written.
    pub issued_at: UnixMs,
    /// Until when.
    pub expires_at: UnixMs,
    /// Files by name.
    pub targets: &'a BTreeMap<String, Named>,
    /// Who signs for each product.
    pub products: &'a BTreeMap<String, Signers>,
}

impl TargetsText<'_> {
    /// As the signed text.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let targets: BTreeMap<&String, Value> = self
            .targets
            .iter()
            .map(|(name, file)| (name, json!({"length": file.length, "hashes": {"sha256": file.sha256}})))
            .collect();
        let mut text = json!({
            "_type": "targets", "spec_version": SPEC_VERSION, "version": self.version, "expires": date(self.expires_at),
            ISSUED_FIELD: date(self.issued_at), "targets": targets,
        });
        if !self.products.is_empty() {
            let roles: Vec<Value> = self.products.iter().map(|(product, signers)| delegation(product, signers)).collect();
            text["delegations"] = json!({"keys": keys(self.products.values()), "roles": roles});
        }
        text
    }
}

fn delegation(product: &str, signers: &Signers) -> Value {
    let mut role = signers.to_value();
    role["name"] = json!(crate::manifest::Manifest::role_name(product));
    role["paths"] = json!([format!("{product}-*")]);
    role["terminating"] = json!(true);
    role
}

/// The text of a snapshot over role files such as `targets.json`, with their versions.
#[must_use]
pub fn snapshot_text(version: u64, expires_at: UnixMs, files: &BTreeMap<String, (u64, Named)>) -> Value {
    json!({
        "_type": "snapshot", "spec_version": SPEC_VERSION, "version": version, "expires": date(expires_at), "meta": meta(files),
    })
}

/// The text of a timestamp over the snapshot.
#[must_use]
pub fn timestamp_text(version: u64, expires_at: UnixMs, snapshot: (u64, Named)) -> Value {
    let files = BTreeMap::from([("snapshot.json".to_owned(), snapshot)]);
    json!({
        "_type": "timestamp", "spec_version": SPEC_VERSION, "version": version, "expires": date(expires_at), "meta": meta(&files),
    })
}

/// The version of TUF's specification that is written.
const SPEC_VERSION: &str = "1.0.31";

fn meta(files: &BTreeMap<String, (u64, Named)>) -> BTreeMap<&String, Value> {
    let entry =
        |(version, file): &(u64, Named)| json!({"version": version, "length": file.length, "hashes": {"sha256": file.sha256}});
    files.iter().map(|(name, file)| (name, entry(file))).collect()
}

fn keys<'s>(roles: impl Iterator<Item = &'s Signers>) -> BTreeMap<String, Value> {
    roles.flat_map(|signers| &signers.keys).map(|key| (key.key_id(), key.to_value())).collect()
}

/// Whole seconds in UTC, as TUF writes dates.
fn date(at: UnixMs) -> String {
    moment(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
