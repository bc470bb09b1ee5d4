//! A small vendor with keys made from numbers: signed files for the tests of everything that reads them.
//!
//! Two of three sign everything, as the ceremony has it by default. Its fields are open, so that a test can bend one thing and leave the
//! rest right. It must never be used outside tests: everybody knows its keys.

use std::collections::BTreeMap;

use mainstay_shared::time_source::UnixMs;
use semver::{Version, VersionReq};
use serde_json::Value;

use crate::archive::Packed;
use crate::authoring::{AuthoringError, Envelope, Named, RootText, Signers, SigningKey, TargetsText};
use crate::file::Header;
use crate::manifest::{Action, Body, Content, DataChange, FORMAT, Health, Manifest, Patch, Run, Texts};

/// The moment at which the sample vendor signs: 2026-11-22 00:00 UTC.
pub const ISSUED_AT: UnixMs = UnixMs(1_795_305_600_000);
/// Its product.
pub const PRODUCT: &str = "acme-gateway";
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// The vendor.
#[derive(Debug, Clone)]
pub struct Vendor {
    /// Numbers of the keys for root.
    pub root: Vec<u8>,
    /// For the top targets.
    pub targets: Vec<u8>,
    /// For the product's role.
    pub role: Vec<u8>,
    /// How many must sign; so many do, the first ones.
    pub threshold: usize,
    /// The product that it signs for.
    pub product: String,
    /// Version of the root.
    pub root_version: u64,
    /// Version of the top targets.
    pub targets_version: u64,
    /// Version of the product's role.
    pub role_version: u64,
    /// When all is written.
    pub issued_at: UnixMs,
    /// When it ends.
    pub expires_at: UnixMs,
}

impl Default for Vendor {
    fn default() -> Self {
        Self {
            root: vec![1, 2, 3],
            targets: vec![11, 12, 13],
            role: vec![21, 22, 23],
            threshold: 2,
            product: PRODUCT.to_owned(),
            root_version: 1,
            targets_version: 1,
            role_version: 1,
            issued_at: ISSUED_AT,
            expires_at: ISSUED_AT.plus_ms(170 * DAY_MS),
        }
    }
}

/// The key of a number.
///
/// # Errors
/// None in practice.
pub fn key(number: u8) -> Result<SigningKey, AuthoringError> {
    SigningKey::from_seed(&[number; 32])
}

/// Who signs, by numbers.
///
/// # Errors
/// As [`key`].
pub fn signers(numbers: &[u8], threshold: usize) -> Result<Signers, AuthoringError> {
    let keys = numbers.iter().map(|number| key(*number).map(|key| key.public().clone())).collect::<Result<_, _>>()?;
    Ok(Signers { keys, threshold })
}

/// A text signed by these keys.
///
/// # Errors
/// As [`Envelope::sign`].
pub fn sign(text: Value, numbers: &[u8]) -> Result<Vec<u8>, AuthoringError> {
    let mut envelope = Envelope::new(text);
    for number in numbers {
        envelope.sign(&key(*number)?)?;
    }
    envelope.to_bytes()
}

impl Vendor {
    fn turn<'n>(&self, numbers: &'n [u8]) -> &'n [u8] {
        &numbers[..self.threshold.min(numbers.len())]
    }

    /// Its `root.json`; online roles are signed by the keys 31 (snapshot) and 32 (timestamp).
    ///
    /// # Errors
    /// As [`sign`].
    pub fn root_json(&self) -> Result<Vec<u8>, AuthoringError> {
        sign(self.root_text()?, self.turn(&self.root))
    }

    /// The text of its root.
    ///
    /// # Errors
    /// As [`key`].
    pub fn root_text(&self) -> Result<Value, AuthoringError> {
        let text = RootText {
            version: self.root_version,
            expires_at: self.expires_at,
            root: &signers(&self.root, self.threshold)?,
            targets: &signers(&self.targets, self.threshold)?,
            snapshot: &signers(&[31], 1)?,
            timestamp: &signers(&[32], 1)?,
        };
        Ok(text.to_value())
    }

    /// The text of its top targets.
    ///
    /// # Errors
    /// As [`key`].
    pub fn targets_text(&self) -> Result<Value, AuthoringError> {
        let products = BTreeMap::from([(self.product.clone(), signers(&self.role, self.threshold)?)]);
        let text = TargetsText {
            version: self.targets_version,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            targets: &BTreeMap::new(),
            products: &products,
        };
        Ok(text.to_value())
    }

    /// The text of its product's role over the manifest and its payload.
    #[must_use]
    pub fn role_text(&self, manifest: &Manifest, manifest_bytes: &[u8]) -> Value {
        let mut files = BTreeMap::from([(manifest.target_name(), Named::of(manifest_bytes))]);
        if let Body::Patch(Patch { payload, .. }) = &manifest.body {
            let named = Named { length: payload.length, sha256: payload.sha256.clone() };
            files.insert(manifest.payload_target_name(), named);
        }
        let text = TargetsText {
            version: self.role_version,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            targets: &files,
            products: &BTreeMap::new(),
        };
        text.to_value()
    }

    /// The header of a file with this manifest.
    ///
    /// # Errors
    /// As [`sign`].
    pub fn header(&self, manifest: &Manifest) -> Result<Header, AuthoringError> {
        let bytes = serde_json::to_vec_pretty(manifest).map_err(|error| AuthoringError::Text(error.to_string()))?;
        Ok(Header {
            roots: vec![self.root_json()?],
            targets: sign(self.targets_text()?, self.turn(&self.targets))?,
            role: sign(self.role_text(manifest, &bytes), self.turn(&self.role))?,
            manifest: bytes,
        })
    }

    /// A whole signed file.
    ///
    /// # Errors
    /// As [`sign`].
    pub fn file(&self, manifest: &Manifest, payload: &[u8]) -> Result<Vec<u8>, AuthoringError> {
        whole(&self.header(manifest)?, payload)
    }
}

/// A file of these parts.
///
/// # Errors
/// [`AuthoringError::Text`] for a header that is too large.
pub fn whole(header: &Header, payload: &[u8]) -> Result<Vec<u8>, AuthoringError> {
    let mut bytes = header.to_bytes().map_err(|error| AuthoringError::Text(error.to_string()))?;
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// An update of the agent itself to its version `to`, from everything older.
#[must_use]
pub fn agent_patch(to: Version, packed: &Packed) -> Manifest {
    let mut made = tree_patch(to, packed);
    made.name = format!("agent-{}", made.version);
    if let Body::Patch(patch) = &mut made.body {
        patch.content = Content::Agent { tree_sha256: packed.tree_sha256.clone() };
        patch.services.clear();
    }
    made
}

/// A patch of the sample product to `to`, from everything older, that swaps the packed tree in.
#[must_use]
pub fn tree_patch(to: Version, packed: &Packed) -> Manifest {
    let patch = Patch {
        from: VersionReq::STAR,
        features: Default::default(),
        payload: packed.payload.clone(),
        content: Content::Tree { tree_sha256: packed.tree_sha256.clone(), scripts: Vec::new() },
        services: vec!["web".to_owned()],
        data_change: DataChange::None,
        health: Health { consecutive_ok: 3, deadline_s: 60 },
        security_fix: false,
    };
    manifest(to.to_string(), to, Body::Patch(patch))
}

/// An action of the sample product that runs a program, at most once a second.
#[must_use]
pub fn program_action(name: &str, argv: &[&str]) -> Manifest {
    let run = Run::Program { argv: argv.iter().map(|part| (*part).to_owned()).collect() };
    manifest(name.to_owned(), Version::new(1, 0, 0), Body::Action(Action { run, timeout_s: 30, min_interval_s: 1 }))
}

/// Any file of the sample product.
#[must_use]
pub fn manifest(name: String, version: Version, body: Body) -> Manifest {
    Manifest {
        format: FORMAT,
        product: PRODUCT.to_owned(),
        name,
        version,
        hardware: Default::default(),
        title: Texts { zh: "样例".to_owned(), en: "Sample".to_owned() },
        notes: Texts::default(),
        body,
    }
}
