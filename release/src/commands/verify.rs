//! `verify`: judges a file as an appliance would that it is made for, from a root that one trusts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use clap::Args;
use mainstay_patchkit::file::PatchFile;
use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::{Facts, Trust, Verified, verify};
use mainstay_shared::time_source::UnixMs;
use serde_json::json;

use super::Room;
use super::publish::open;
use crate::exit::{Exit, Failure};
use crate::{files, readback};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The file
    file: PathBuf,
    /// A root that is trusted: the first, or a newer one
    #[arg(long, value_name = "ROOT.json")]
    root: PathBuf,
}

/// Verifies.
pub(crate) fn run(room: &Room, verify: &Verify) -> anyhow::Result<()> {
    let root = files::read(&verify.root)?;
    let file = open(&verify.file)?;
    let verified = look_at(&file, root, room.now).map_err(|refusal| {
        Failure::because(Exit::Refused, format!("{}: {refusal} [{}]", verify.file.display(), refusal.code()))
    })?;
    let mut lines = readback::in_words(&verified.manifest);
    lines.push(format!("good until {}", verified.expires_at));
    lines.push(format!("SHA-256 {}", verified.file_sha256));
    let object = json!({
        "file": verify.file, "sha256": verified.file_sha256, "manifest_sha256": verified.manifest_sha256,
        "expires_at": verified.expires_at, "root_version": verified.root_version, "targets_version": verified.targets_version,
        "role_version": verified.role_version, "manifest": verified.manifest,
    });
    room.say(&lines, &object);
    Ok(())
}

/// Judges a file as an appliance that it is made for. What it says of itself only chooses that appliance.
pub(crate) fn look_at(file: &File, root: Vec<u8>, now: UnixMs) -> Result<Verified, Refusal> {
    let said = Manifest::read(&PatchFile::open(file)?.header.manifest)?;
    let features = match &said.body {
        Body::Patch(patch) => patch.features.clone(),
        _ => BTreeSet::new(),
    };
    let serial = match &said.body {
        Body::Licence(licence) => licence.serials.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let facts = Facts {
        product: &said.product,
        hardware: said.hardware.first().map_or("", String::as_str),
        serial: &serial,
        installed: None,
        agent: None,
        documents: &BTreeMap::new(),
        features: &features,
        withdrawn: &BTreeSet::new(),
        failed: &BTreeSet::new(),
        now,
    };
    verify(file, &Trust { root, targets_floor: 0, role_floor: 0 }, &facts)
}
