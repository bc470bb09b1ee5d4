//! `inspect`: tells what a patch file, a signing bundle or a public key says. Nothing is verified; see `verify`.

use std::path::PathBuf;

use clap::Args;
use mainstay_patchkit::authoring::Envelope;
use mainstay_patchkit::file::{MAGIC, PatchFile};
use mainstay_patchkit::manifest::Manifest;
use serde_json::{Value, json};

use super::Room;
use super::publish::open;
use crate::bundle::Bundle;
use crate::exit::{Exit, Failure};
use crate::keys::NamedKey;
use crate::readback;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A .mpatch file, a signing bundle, or a .pub file
    file: PathBuf,
}

/// Tells.
pub(crate) fn run(room: &Room, inspect: &Inspect) -> anyhow::Result<()> {
    let path = &inspect.file;
    let mut start = [0; 8];
    let is_patch = std::os::unix::fs::FileExt::read_exact_at(&open(path)?, &mut start, 0).is_ok() && &start == MAGIC;
    if is_patch {
        return patch_file(room, inspect);
    }
    if let Ok(key) = NamedKey::read(path) {
        room.say(&[format!("public key of {}: {}", key.name, key.ed25519.0)], &json!(key));
        return Ok(());
    }
    let bundle = Bundle::read(path)?;
    room.say(&readback::explain(&bundle)?, &json!({"bundle": path, "missing": bundle.missing(), "documents": bundle.documents}));
    Ok(())
}

fn patch_file(room: &Room, inspect: &Inspect) -> anyhow::Result<()> {
    let damaged = |refusal: mainstay_patchkit::refusal::Refusal| {
        Failure::because(Exit::Data, format!("{}: {refusal}", inspect.file.display()))
    };
    let file = PatchFile::open(&open(&inspect.file)?).map_err(damaged)?;
    let manifest = Manifest::read(&file.header.manifest).map_err(damaged)?;
    let signed = |bytes: &[u8]| -> anyhow::Result<Value> {
        let envelope = Envelope::read(bytes).map_err(|error| Failure::because(Exit::Data, error))?;
        let by: Vec<&String> = envelope.signatures.keys().collect();
        Ok(json!({"version": envelope.signed["version"], "expires": envelope.signed["expires"], "signed_by": by}))
    };
    let roots = file.header.roots.iter().map(|root| signed(root)).collect::<anyhow::Result<Vec<_>>>()?;
    let (targets, role) = (signed(&file.header.targets)?, signed(&file.header.role)?);
    let mut lines = readback::in_words(&manifest);
    lines.push(format!("roots {}", roots.iter().map(|root| root["version"].to_string()).collect::<Vec<_>>().join(", ")));
    lines.push(format!("targets {}", targets));
    lines.push(format!("{} {}", Manifest::role_name(&manifest.product), role));
    lines.push("not verified: see `verify`".to_owned());
    let object = json!({
        "bytes": file.payload_offset + file.payload_length, "payload_bytes": file.payload_length, "roots": roots, "targets": targets,
        "role": role, "manifest": manifest,
    });
    room.say(&lines, &object);
    Ok(())
}
