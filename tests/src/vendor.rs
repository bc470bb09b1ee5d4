//! The vendor's release engineers: they hold the offline keys, pack and sign, and put what is signed into the collector's repository.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay_patchkit::authoring::{Named, PublicKey, RootText, Signers, TargetsText};
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_patchkit::sample::{DAY_MS, PRODUCT, program_action, sign, signers, tree_patch, whole};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use semver::Version;
use serde_json::Value;

use crate::collector::Collector;
use crate::packing::Packing;

const ROOT: &[u8] = &[1, 2, 3];
const TARGETS: &[u8] = &[11, 12, 13];
const ROLE: &[u8] = &[21, 22, 23];

/// The vendor of the sample product.
#[derive(Debug)]
pub struct Vendor {
    repository: PathBuf,
    /// The first root: what boxes are shipped with.
    pub root: Vec<u8>,
    targets: Vec<u8>,
    issued_at: UnixMs,
    role_version: u64,
    named: BTreeMap<String, Named>,
}

impl Vendor {
    /// Founds the repository of `collector`, whose online keys its root names.
    ///
    /// # Errors
    /// When a command or a write fails.
    pub async fn of(collector: &Collector) -> Result<Self> {
        collector.command(&["releases", "keygen"]).await?.good().context("releases keygen")?;
        let printed = collector.command(&["releases", "keys"]).await?.good()?.stdout;
        let keys: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
        let online = |role: &str| {
            let public = keys[role]["keyval"]["public"].as_str().context("a public key")?;
            anyhow::Ok(Signers { keys: [PublicKey(public.to_owned())].into(), threshold: 1 })
        };
        let issued_at = TimeSource::system().now();
        let expires_at = issued_at.plus_ms(170 * DAY_MS);
        let root = RootText {
            version: 1,
            expires_at,
            root: &signers(ROOT, 2)?,
            targets: &signers(TARGETS, 2)?,
            snapshot: &online("snapshot")?,
            timestamp: &online("timestamp")?,
        };
        let products = BTreeMap::from([(PRODUCT.to_owned(), signers(ROLE, 2)?)]);
        let targets = TargetsText { version: 1, issued_at, expires_at, targets: &BTreeMap::new(), products: &products };
        let mut vendor = Self {
            repository: collector.repository(),
            root: sign(root.to_value(), &ROOT[..2])?,
            targets: sign(targets.to_value(), &TARGETS[..2])?,
            issued_at,
            role_version: 0,
            named: BTreeMap::new(),
        };
        std::fs::create_dir_all(vendor.repository.join("metadata"))?;
        std::fs::create_dir_all(vendor.repository.join("files"))?;
        std::fs::write(vendor.repository.join("metadata/1.root.json"), &vendor.root)?;
        std::fs::write(vendor.repository.join("metadata/1.targets.json"), &vendor.targets)?;
        vendor.sign_role()?;
        Ok(vendor)
    }

    /// Replaces the online keys, as after their theft, by these numbers of the sample vendor's: root 2.
    ///
    /// # Errors
    /// When it can't be signed or written.
    pub fn replaces_online_keys(&mut self, snapshot: u8, timestamp: u8) -> Result<()> {
        let root = RootText {
            version: 2,
            expires_at: self.issued_at.plus_ms(170 * DAY_MS),
            root: &signers(ROOT, 2)?,
            targets: &signers(TARGETS, 2)?,
            snapshot: &signers(&[snapshot], 1)?,
            timestamp: &signers(&[timestamp], 1)?,
        };
        let signed = sign(root.to_value(), &ROOT[..2])?;
        Ok(std::fs::write(self.repository.join("metadata/2.root.json"), signed)?)
    }

    /// The next version of the product's role, over everything named so far.
    fn sign_role(&mut self) -> Result<Vec<u8>> {
        self.role_version += 1;
        let text = TargetsText {
            version: self.role_version,
            issued_at: self.issued_at,
            expires_at: self.issued_at.plus_ms(170 * DAY_MS),
            targets: &self.named,
            products: &BTreeMap::new(),
        };
        let role = sign(text.to_value(), &ROLE[..2])?;
        let name = format!("metadata/{}.{}.json", self.role_version, Manifest::role_name(PRODUCT));
        std::fs::write(self.repository.join(name), &role)?;
        Ok(role)
    }

    /// Publishes a patch of the product to `to`; its file's name.
    ///
    /// # Errors
    /// When it can't be signed or written.
    pub fn publish_patch(&mut self, to: Version, packing: &Packing) -> Result<String> {
        let mut manifest = tree_patch(to, &packing.packed);
        if let Body::Patch(patch) = &mut manifest.body {
            // A bad version goes back sooner than customers would see it.
            patch.health.deadline_s = 15;
        }
        self.publish(&manifest, &packing.bytes)
    }

    /// Signs a manifest with its payload; publishes the file, and tells its name.
    ///
    /// # Errors
    /// When it can't be signed or written.
    pub fn publish(&mut self, manifest: &Manifest, payload: &[u8]) -> Result<String> {
        let (name, bytes) = self.signed(manifest, payload)?;
        std::fs::write(self.repository.join("files").join(&name), bytes)?;
        Ok(name)
    }

    /// Signs a manifest with its payload: the file's name and its bytes.
    ///
    /// # Errors
    /// When it can't be signed.
    pub fn signed(&mut self, manifest: &Manifest, payload: &[u8]) -> Result<(String, Vec<u8>)> {
        let text = serde_json::to_vec_pretty(manifest)?;
        self.named.insert(manifest.target_name(), Named::of(&text));
        if matches!(manifest.body, Body::Patch(_)) {
            self.named.insert(manifest.payload_target_name(), Named::of(payload));
        }
        let role = self.sign_role()?;
        let header = Header { roots: vec![self.root.clone()], targets: self.targets.clone(), role, manifest: text };
        Ok((manifest.file_name(), whole(&header, payload)?))
    }

    /// An action that runs a program.
    #[must_use]
    pub fn action(name: &str, argv: &[&str]) -> Manifest {
        program_action(name, argv)
    }
}
