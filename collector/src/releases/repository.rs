//! A file of the repository is read: verified, by the verifier of the appliances, before anything of it is listed.
//!
//! What is in it is untrusted until then. A name belongs to one content: the same content may be signed anew under it, another never.
//! Blocking: callers run it aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use mainstay_patchkit::file::PatchFile;
use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::{Facts, Trust, verify};
use mainstay_shared::time_source::UnixMs;

use super::place::Listed;
use super::{FileState, ReleaseFile};

/// Reads and verifies one file as an appliance that it is made for would. What does not verify is listed as refused, with the reason.
///
/// # Errors
/// If it can't be read: then nothing is known of it.
pub(crate) fn read(file: &File, listed: &Listed, root: &[u8], now: UnixMs) -> anyhow::Result<ReleaseFile> {
    match verified(file, listed, root, now) {
        Ok(file) => Ok(file),
        Err(Refusal::Io(error)) => anyhow::bail!("{}: {error}", listed.name),
        Err(refusal) => Ok(ReleaseFile {
            file: listed.name.clone(),
            sha256: String::new(),
            bytes: 0,
            mark: listed.mark.clone(),
            manifest: None,
            manifest_sha256: String::new(),
            state: FileState::Refused,
            refusal: refusal.to_string(),
            expires_at: UnixMs(0),
        }),
    }
}

/// What is to be kept of a file that was read, beside what was known under its name. Other or damaged content leaves what is known as it
/// was, so that offers made of it keep their meaning, and is refused: no byte of it is handed out.
pub(crate) fn beside(known: Option<&ReleaseFile>, read: ReleaseFile) -> ReleaseFile {
    let Some(known) = known.filter(|known| !known.manifest_sha256.is_empty() && known.manifest_sha256 != read.manifest_sha256)
    else {
        return read;
    };
    let refusal =
        if read.manifest_sha256.is_empty() { read.refusal } else { format!("{REPUBLISHED} ({})", read.manifest_sha256) };
    ReleaseFile { mark: read.mark, state: FileState::Refused, refusal, ..known.clone() }
}

/// How the refusal of other content under a known name begins.
pub(crate) const REPUBLISHED: &str = "it was published again under this name with other content; files are never replaced";

fn verified(file: &File, listed: &Listed, root: &[u8], now: UnixMs) -> Result<ReleaseFile, Refusal> {
    // What it says of itself only chooses the facts; nothing of it is believed before it verifies.
    let said = Manifest::read(&PatchFile::open(file)?.header.manifest)?;
    let features = match &said.body {
        Body::Patch(patch) => patch.features.clone(),
        _ => BTreeSet::new(),
    };
    let serial = match &said.body {
        Body::Licence(licence) => licence.serials.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let (none, no_documents) = (BTreeSet::new(), BTreeMap::new());
    let facts = Facts {
        product: &said.product,
        hardware: said.hardware.first().map_or("", String::as_str),
        serial: &serial,
        installed: None,
        agent: None,
        documents: &no_documents,
        features: &features,
        withdrawn: &none,
        failed: &none,
        now,
    };
    let verified = verify(file, &Trust { root: root.to_vec(), targets_floor: 0, role_floor: 0 }, &facts)?;
    if verified.manifest.file_name() != listed.name {
        return Err(Refusal::Format(format!("its name is {}", verified.manifest.file_name())));
    }
    Ok(ReleaseFile {
        file: listed.name.clone(),
        sha256: verified.file_sha256,
        bytes: file.metadata().map_err(|error| Refusal::Io(error.to_string()))?.len(),
        mark: listed.mark.clone(),
        manifest_sha256: verified.manifest_sha256,
        manifest: Some(verified.manifest),
        state: FileState::Good,
        refusal: String::new(),
        expires_at: verified.expires_at,
    })
}
