//! The one decision whether an appliance may believe a file (R2, R3, R7): signatures, dates, floors, then content, then whether it fits here.
//!
//! It reads the file once and writes nothing. The order matters: no text is interpreted before the text above it vouched for its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use mainstay_shared::patch::PatchKind;
use mainstay_shared::time_source::UnixMs;
use ring::digest;
use semver::Version;
use sigstore_tuf::{DelegatedRole, Metadata, Root, TargetFile, Targets, TrustedMetadataSet};

use crate::bounds;
use crate::crypto::{array, install_crypto, sha256};
use crate::file::{Hashes, Header, PatchFile};
use crate::manifest::{self, Body, Content, Manifest, Patch, Payload};
use crate::metadata::{
    Accept, advance_root, delegated, delegates_nothing, demand_by_root, demand_threshold, demand_unexpired, refused, stays_within,
};
use crate::refusal::Refusal;

/// The longest that a product's role may be valid, days (DESIGN, Patches).
pub const MAX_ROLE_DAYS: i64 = 180;
/// The field of a product's role that says when it was written. The span between it and the expiry is judged, not the span from now:
/// a box whose clock is years behind must still take a good file.
pub const ISSUED_FIELD: &str = "x-mainstay-issued";

/// What the appliance trusts already.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Its newest `root.json`.
    pub root: Vec<u8>,
    /// Top targets of a lower version are refused.
    pub targets_floor: u64,
    /// A product role of a lower version is refused.
    pub role_floor: u64,
}

/// What the appliance is. Hashes of manifests, not of files: the same content in another wrapping is the same.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its product.
    pub product: &'a str,
    /// Its model.
    pub hardware: &'a str,
    /// Its serial.
    pub serial: &'a str,
    /// The product's version that runs; none for those who look at a file without an appliance (signing tool, collector): then no
    /// version is judged.
    pub installed: Option<&'a Version>,
    /// The same of the agent, for files that update the agent itself.
    pub agent: Option<&'a Version>,
    /// The versions of the documents (policy, licence, ...) that it holds; of an older or the same one there is nothing to take.
    pub documents: &'a BTreeMap<PatchKind, Version>,
    /// The features that its licence names.
    pub features: &'a BTreeSet<String>,
    /// SHA-256 (hex) of manifests that were withdrawn.
    pub withdrawn: &'a BTreeSet<String>,
    /// SHA-256 (hex) of manifests that failed here.
    pub failed: &'a BTreeSet<String>,
    /// Now, never before the floor of time.
    pub now: UnixMs,
}

/// A file that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub manifest: Manifest,
    /// SHA-256 of the manifest, hex.
    pub manifest_sha256: String,
    /// SHA-256 of the whole file, hex.
    pub file_sha256: String,
    /// When the first of its signatures' dates ends.
    pub expires_at: UnixMs,
    /// Roots newer than the trusted one, in order; the last is the one to trust from now on.
    pub roots: Vec<Vec<u8>>,
    /// Version of the root that vouches for it.
    pub root_version: u64,
    /// Version of its top targets.
    pub targets_version: u64,
    /// Version of its product role.
    pub role_version: u64,
    /// Where its payload begins, bytes from the start.
    pub payload_offset: u64,
    /// Its payload's length; 0 without one.
    pub payload_length: u64,
}

/// A file whose header may be believed. Nobody has looked at its payload yet.
#[derive(Debug, Clone)]
pub struct Unread {
    /// What holds once the payload has the hash that was signed; the hash of the whole file is still empty.
    verified: Verified,
    payload_sha256: Option<String>,
}

impl Unread {
    /// What the header says. Of the payload nothing is proved: who uses it hashes it himself, before anything of it is believed.
    #[must_use]
    pub fn header(&self) -> &Verified {
        &self.verified
    }

    /// The file, with its payload seen.
    ///
    /// # Errors
    /// [`Refusal::Content`] when the payload is not the one that was signed.
    pub fn seen(self, hashes: &Hashes) -> Result<Verified, Refusal> {
        if self.payload_sha256.is_some_and(|signed| signed != hashes.payload_sha256) {
            return Err(Refusal::Content("the payload's SHA-256 differs".into()));
        }
        Ok(Verified { file_sha256: hashes.file_sha256.clone(), ..self.verified })
    }
}

/// Whether the appliance may believe the file.
///
/// # Errors
/// The first reason against it, in the order above.
pub fn verify(file: &File, trust: &Trust, facts: &Facts<'_>) -> Result<Verified, Refusal> {
    let patch_file = PatchFile::open(file)?;
    let unread = judge(&patch_file, trust, facts)?;
    unread.seen(&read_through(file, &patch_file)?)
}

/// All of [`verify`] but reading the payload, for those who read it anyway: while it is copied, or unpacked.
///
/// # Errors
/// The first reason against it.
pub fn verify_header(file: &File, trust: &Trust, facts: &Facts<'_>) -> Result<Unread, Refusal> {
    judge(&PatchFile::open(file)?, trust, facts)
}

fn judge(patch_file: &PatchFile, trust: &Trust, facts: &Facts<'_>) -> Result<Unread, Refusal> {
    install_crypto();
    let signed = Signed::check(&patch_file.header, trust, facts)?;
    let (manifest, manifest_sha256) = signed.manifest(&patch_file.header.manifest, facts)?;
    let payload = signed.payload(&manifest)?;
    let expected_length = payload.map_or(0, |payload| payload.length);
    if patch_file.payload_length != expected_length {
        let told = format!("{} bytes stand behind the header, {expected_length} were signed", patch_file.payload_length);
        return Err(Refusal::Format(told));
    }
    fits(&manifest, &manifest_sha256, facts)?;
    let payload_sha256 = payload.map(|payload| payload.sha256.clone());
    let verified = Verified {
        manifest_sha256,
        file_sha256: String::new(),
        expires_at: signed.expires_at(),
        roots: signed.new_roots.iter().map(|root| root.to_vec()).collect(),
        root_version: signed.root.version,
        targets_version: signed.targets_version,
        role_version: signed.role.version,
        payload_offset: patch_file.payload_offset,
        payload_length: expected_length,
        manifest,
    };
    Ok(Unread { verified, payload_sha256 })
}

/// Metadata whose signatures, dates and versions hold.
struct Signed<'f> {
    root: Root,
    new_roots: Vec<&'f [u8]>,
    targets_version: u64,
    delegation: DelegatedRole,
    role: Targets,
    dates: [jiff::Timestamp; 3],
}

impl<'f> Signed<'f> {
    fn check(header: &'f Header, trust: &Trust, facts: &Facts<'_>) -> Result<Self, Refusal> {
        let (root, new_roots) = newest_root(header, trust)?;
        demand_unexpired(&root, "root", facts.now)?;
        let targets = Metadata::<Targets>::from_slice(&header.targets).map_err(|error| refused(&error))?;
        demand_by_root(&targets, &root, "targets", Accept::Ed25519Only).map_err(|error| refused(&error))?;
        let targets = targets.into_signed();
        demand_floor("targets", targets.version, trust.targets_floor)?;
        demand_unexpired(&targets, "targets", facts.now)?;
        let role_name = Manifest::role_name(facts.product);
        let (delegation, role) = signed_role(header, &targets, &role_name, facts)?;
        demand_floor(&role_name, role.version, trust.role_floor)?;
        demand_unexpired(&role, &role_name, facts.now)?;
        demand_short_lived(&role, &role_name)?;
        Ok(Self {
            dates: [root.expires, targets.expires, role.expires],
            targets_version: targets.version,
            root,
            new_roots,
            delegation,
            role,
        })
    }

    /// The manifest: its bytes must be a target of the role; only then it is read.
    fn manifest(&self, bytes: &[u8], facts: &Facts<'_>) -> Result<(Manifest, String), Refusal> {
        let length = bytes.len() as u64;
        if length > manifest::MAX_BYTES {
            return Err(Refusal::Format(format!("manifest: {length} bytes; at most {} are accepted", manifest::MAX_BYTES)));
        }
        let hash = hex::encode(sha256(bytes));
        let is_it = |target: &TargetFile| target.length == length && target.hashes.get("sha256") == Some(&hash);
        if !self.role.targets.values().any(is_it) {
            return Err(Refusal::Content("the manifest is not one of those that were signed".into()));
        }
        let manifest = Manifest::read(bytes)?;
        if manifest.product != facts.product {
            return Err(Refusal::Product { theirs: manifest.product, ours: facts.product.to_owned() });
        }
        let name = manifest.target_name();
        if !self.role.targets.get(&name).is_some_and(is_it) {
            return Err(Refusal::Content(format!("the manifest was not signed as {name}")));
        }
        self.covers(&name)?;
        bounds::check(&manifest)?;
        Ok((manifest, hash))
    }

    /// The payload that the manifest names, if it is the one that was signed.
    fn payload<'m>(&self, manifest: &'m Manifest) -> Result<Option<&'m Payload>, Refusal> {
        let Body::Patch(Patch { payload, .. }) = &manifest.body else { return Ok(None) };
        let name = manifest.payload_target_name();
        self.covers(&name)?;
        let target = self.role.targets.get(&name);
        if !target.is_some_and(|target| target.length == payload.length && target.hashes.get("sha256") == Some(&payload.sha256)) {
            return Err(Refusal::Content(format!("{name} was not signed with the length and hash that the manifest names")));
        }
        Ok(Some(payload))
    }

    fn covers(&self, target: &str) -> Result<(), Refusal> {
        match self.delegation.matches_path(target) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Signature(format!("{} may not sign {target}", self.delegation.name))),
            Err(error) => Err(refused(&error)),
        }
    }

    fn expires_at(&self) -> UnixMs {
        UnixMs(self.dates.iter().min().map_or(0, |first| first.as_millisecond()))
    }
}

/// Follows the file's roots from the trusted one, a version at a time; those that are not newer are passed over.
fn newest_root<'f>(header: &'f Header, trust: &Trust) -> Result<(Root, Vec<&'f [u8]>), Refusal> {
    let own = |error| Refusal::Signature(format!("the root that this appliance trusts: {}", refused(&error)));
    let mut trusted = TrustedMetadataSet::from_root(&trust.root).map_err(own)?;
    let mut new_roots = Vec::new();
    for bytes in &header.roots {
        let root = Metadata::<Root>::from_slice(bytes).map_err(|error| refused(&error))?;
        if root.signed().version <= trusted.root().version {
            continue;
        }
        advance_root(&mut trusted, bytes, Accept::Ed25519Only).map_err(|error| refused(&error))?;
        new_roots.push(bytes.as_slice());
    }
    Ok((trusted.root().clone(), new_roots))
}

/// The product's role, signed by the keys that the top targets delegate to.
fn signed_role(
    header: &Header,
    targets: &Targets,
    role_name: &str,
    facts: &Facts<'_>,
) -> Result<(DelegatedRole, Targets), Refusal> {
    let role = Metadata::<Targets>::from_slice(&header.role).map_err(|error| refused(&error))?;
    let none = || Refusal::Signature(format!("the vendor's targets delegate to no role {role_name}, or to it more than once"));
    let delegations = targets.delegations.as_ref().ok_or_else(none)?;
    let signed_by = |name: &str| {
        let (delegation, role_keys) = delegated(delegations, name)?;
        let outcome = demand_threshold(&role, &delegations.keys, &role_keys, name, Accept::Ed25519Only);
        Some((delegation, outcome))
    };
    match signed_by(role_name) {
        Some((delegation, Ok(()))) => {
            if !stays_within(delegation, facts.product) {
                let told = format!("{role_name} may sign more than {}-*: such a delegation is not accepted", facts.product);
                return Err(Refusal::Signature(told));
            }
            if !delegates_nothing(role.signed()) {
                return Err(Refusal::Signature(format!("{role_name} hands on to others: that is not accepted")));
            }
            Ok((delegation.clone(), role.into_signed()))
        }
        own => {
            // A file for a sister product is told as such, though nothing in it is believed.
            let sister = delegations.roles.iter().find(|other| matches!(signed_by(&other.name), Some((_, Ok(())))));
            if let Some(theirs) = sister.and_then(|other| other.name.strip_suffix("-offline")) {
                return Err(Refusal::Product { theirs: theirs.to_owned(), ours: facts.product.to_owned() });
            }
            Err(own.and_then(|(_, outcome)| outcome.err()).map_or_else(none, |error| refused(&error)))
        }
    }
}

fn demand_floor(role: &str, version: u64, floor: u64) -> Result<(), Refusal> {
    if version < floor {
        return Err(Refusal::Rollback(format!("{role} version {version}; {floor} was seen")));
    }
    Ok(())
}

/// The span from writing to expiry, with a day for time zones and slow ceremonies.
pub(crate) fn demand_short_lived(role: &Targets, role_name: &str) -> Result<(), Refusal> {
    let issued =
        role.extra.get(ISSUED_FIELD).and_then(|value| value.as_str()).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let Some(issued) = issued else {
        return Err(Refusal::Format(format!("{role_name}: {ISSUED_FIELD}: expected the moment when it was written")));
    };
    let days = role.expires.as_second().saturating_sub(issued.as_second()) / 86_400;
    if days > MAX_ROLE_DAYS + 1 {
        return Err(Refusal::Signature(format!("{role_name} is valid for {days} days; at most {MAX_ROLE_DAYS} are accepted")));
    }
    Ok(())
}

/// Whether it is for this appliance as it stands.
fn fits(manifest: &Manifest, manifest_sha256: &str, facts: &Facts<'_>) -> Result<(), Refusal> {
    if !manifest.hardware.is_empty() && !manifest.hardware.contains(facts.hardware) {
        return Err(Refusal::Hardware(facts.hardware.to_owned()));
    }
    if facts.withdrawn.contains(manifest_sha256) {
        return Err(Refusal::Withdrawn);
    }
    if facts.failed.contains(manifest_sha256) {
        return Err(Refusal::FailedBefore);
    }
    match &manifest.body {
        Body::Patch(patch) => {
            let installed = if matches!(patch.content, Content::Agent { .. }) { facts.agent } else { facts.installed };
            fits_version(patch, &manifest.version, installed)?;
            match patch.features.iter().find(|feature| !facts.features.contains(*feature)) {
                Some(missing) => Err(Refusal::Feature(missing.clone())),
                None => Ok(()),
            }
        }
        Body::Action(_) => Ok(()),
        Body::Licence(licence) if !licence.serials.is_empty() && !licence.serials.contains(facts.serial) => {
            Err(Refusal::Serial(facts.serial.to_owned()))
        }
        Body::Policy(_) | Body::Profile(_) | Body::Licence(_) | Body::Withdrawal(_) | Body::SupportKey(_) => {
            match facts.documents.get(&manifest.kind()) {
                Some(held) if manifest.version.cmp_precedence(held).is_le() => {
                    Err(Refusal::Version { installed: held.to_string(), why: format!("{} is not newer", manifest.version) })
                }
                _ => Ok(()),
            }
        }
    }
}

fn fits_version(patch: &Patch, to: &Version, installed: Option<&Version>) -> Result<(), Refusal> {
    let refuse = |installed: &str, why: String| Err(Refusal::Version { installed: installed.to_owned(), why });
    let Some(installed) = installed else { return Ok(()) };
    if to.cmp_precedence(installed).is_le() {
        return refuse(&installed.to_string(), format!("{to} is not newer"));
    }
    if !patch.from.matches(installed) {
        return refuse(&installed.to_string(), format!("it starts from {}", patch.from));
    }
    Ok(())
}

/// SHA-256 of the whole file and of its payload, in one pass with bounded memory.
fn read_through(file: &File, patch_file: &PatchFile) -> Result<Hashes, Refusal> {
    let io = |error: std::io::Error| Refusal::Io(error.to_string());
    let mut whole = patch_file.hashed.clone();
    let mut payload = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut at = patch_file.payload_offset;
    let mut left = patch_file.payload_length;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = &mut buffer[..want];
        file.read_exact_at(piece, at).map_err(io)?;
        whole.update(piece);
        payload.update(piece);
        at += want as u64;
        left -= want as u64;
    }
    Ok(Hashes { file_sha256: hex::encode(array(&whole.finish())), payload_sha256: hex::encode(array(&payload.finish())) })
}
