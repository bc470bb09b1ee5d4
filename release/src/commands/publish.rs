//! `publish`: a fully signed bundle becomes files of the repository. The repository says who must have signed, not the bundle.
//!
//! Order: targets, files of which each was verified as an appliance would, then metadata, root first. The collector (or `--online-keys`)
//! then signs snapshot and timestamp, which makes it known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use mainstay_patchkit::authoring::{Envelope, Named, Signers, SigningKey, snapshot_text, timestamp_text};
use mainstay_patchkit::manifest::{Body, Manifest, Patch};
use serde_json::{Value, json};

use super::Room;
use super::verify::look_at;
use crate::authority::{Authority, file_role};
use crate::bundle::{Bundle, Document};
use crate::changes::named_files;
use crate::exit::{Exit, Failure};
use crate::repository::{Repository, Standing};
use crate::{files, keys, readback};

const DAY_MS: i64 = 86_400_000;

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The signed bundle
    bundle: PathBuf,
    /// The repository's folder
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// The folder that holds the payload; default: the bundle's
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
    /// Sign snapshot and timestamp with this key file too (a repository without a collector)
    #[arg(long, value_name = "FILE")]
    online_keys: Option<PathBuf>,
    /// Take the passphrase of the online keys from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Publishes.
pub(crate) fn run(room: &Room, publish: &Publish) -> anyhow::Result<()> {
    let bundle = Bundle::read(&publish.bundle)?;
    readback::explain(&bundle)?;
    let online = publish.online_keys.as_ref().map(|path| {
        let what = format!("passphrase of {}", path.display());
        keys::open(path, keys::passphrase(publish.passphrase_file.as_deref(), &what, false)?)
    });
    let online = online.transpose()?;
    let repository = Repository::at(&publish.repository);
    let before = repository.standing()?;
    let after = checked(&bundle, &before)?;
    demand_new_names(&before, &after)?;
    let payloads = publish.payloads.clone().unwrap_or_else(|| publish.bundle.parent().unwrap_or(Path::new(".")).to_owned());
    for bytes in bundle.manifest_bytes()? {
        add_targets(&repository, &bytes, &payloads)?;
    }
    let written = wrap_all(room, &repository, &bundle, &after)?;
    for document in &bundle.documents {
        repository.add_metadata(&document.role, document.version(), &document.envelope().to_bytes()?)?;
    }
    if let Some((_, key)) = &online {
        sign_online(room, &repository, &after, key)?;
    }
    let mut lines: Vec<String> =
        bundle.documents.iter().map(|document| format!("{} version {}", document.role, document.version())).collect();
    lines.extend(written.iter().map(|file| format!("files/{file}")));
    let versions: BTreeMap<&str, u64> =
        bundle.documents.iter().map(|document| (document.role.as_str(), document.version())).collect();
    room.say(&lines, &json!({"metadata": versions, "files": written, "online_signed": online.is_some()}));
    Ok(())
}

/// What will stand, if the bundle is the next step from what stands, signed by those whom the repository names.
fn checked(bundle: &Bundle, before: &Standing) -> anyhow::Result<Standing> {
    let mut after = before.clone();
    for document in &bundle.documents {
        let stands = before.text(&document.role)?.and_then(|text| text["version"].as_u64()).unwrap_or_default();
        if document.version() != stands + 1 {
            let told = format!("{}: version {}: expected {}: build it anew", document.role, document.version(), stands + 1);
            return Err(Failure::because(Exit::Refused, told));
        }
        if document.before != before.text(&document.role)? {
            let told = format!("{}: built on another text than stands here: build it anew", document.role);
            return Err(Failure::because(Exit::Refused, told));
        }
        let bytes = document.envelope().to_bytes()?;
        if document.role == "root" {
            after.roots.push(bytes);
        } else {
            after.roles.insert(document.role.clone(), bytes);
        }
    }
    let authority = after.authority()?;
    authority.check()?;
    let old = if before.roots.is_empty() { None } else { Some(before.authority()?) };
    for document in &bundle.documents {
        let missing = document.missing(&demanded(document, &authority, old.as_ref())?);
        if missing > 0 {
            return Err(Failure::because(Exit::Refused, format!("{}: {missing} more must sign", document.role)));
        }
    }
    // What isn't signed anew must still be signed by those who may.
    for product in authority.products.keys() {
        let role = file_role(product);
        let bytes =
            after.roles.get(&role).ok_or_else(|| Failure::because(Exit::Data, format!("there is no metadata of {role}")))?;
        let signers = authority.of(product)?;
        if Envelope::read(bytes)?.signers(&signers.keys).len() < signers.threshold {
            return Err(Failure::because(Exit::Refused, format!("{role}: is not signed by those who may now")));
        }
    }
    Ok(after)
}

/// A name belongs to one content for ever: what was offered of it is known by it. Checked before anything is written.
fn demand_new_names(before: &Standing, after: &Standing) -> anyhow::Result<()> {
    for role in after.roles.keys() {
        let stood = named_files(&before.text(role)?.unwrap_or_default());
        let stands = named_files(&after.text(role)?.unwrap_or_default());
        if let Some((name, _)) = stood.iter().find(|(name, file)| stands.get(*name).is_some_and(|new| new != *file)) {
            let told = format!(
                "{name}: is published already with other content; files are never replaced: choose another name or version"
            );
            return Err(Failure::because(Exit::Exists, told));
        }
    }
    Ok(())
}

fn demanded(document: &Document, now: &Authority, old: Option<&Authority>) -> anyhow::Result<Vec<Signers>> {
    let role = document.role.strip_suffix("-offline").unwrap_or(&document.role);
    let mut demanded = vec![now.of(role)?.clone()];
    if let Some(old) = old.filter(|_| role == "root") {
        demanded.push(old.of("root")?.clone());
    }
    Ok(demanded)
}

/// Puts a manifest and its payload among the targets.
fn add_targets(repository: &Repository, manifest_bytes: &[u8], payloads: &Path) -> anyhow::Result<()> {
    let manifest = Manifest::read(manifest_bytes).map_err(|refusal| Failure::because(Exit::Data, refusal))?;
    let named = Named::of(manifest_bytes);
    let path = repository.target(&named.sha256, &manifest.target_name());
    files::replace(&path, 0o644, |file| Ok(file.write_all(manifest_bytes)?))?;
    if let Body::Patch(Patch { payload, .. }) = &manifest.body {
        let name = manifest.payload_target_name();
        let from = payloads.join(&name);
        files::replace(&repository.target(&payload.sha256, &name), 0o644, |file| files::copy(&from, file, &name))?;
    }
    Ok(())
}

/// Writes the files: those of new manifests, or, where a role was only signed anew, all that it names, with their new signatures.
fn wrap_all(room: &Room, repository: &Repository, bundle: &Bundle, after: &Standing) -> anyhow::Result<Vec<String>> {
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    let brought: BTreeSet<String> = bundle
        .manifest_bytes()?
        .iter()
        .filter_map(|bytes| Manifest::read(bytes).ok())
        .map(|manifest| manifest.target_name())
        .collect();
    let above = bundle.documents.iter().any(|document| matches!(document.role.as_str(), "root" | "targets"));
    for role in after.roles.keys().filter(|role| *role != "targets") {
        let signed_anew = bundle.documents.iter().any(|document| document.role == *role);
        for name in
            named_files(&after.text(role)?.unwrap_or_default()).into_keys().filter(|name| name.ends_with(".manifest.json"))
        {
            if brought.contains(&name) || (brought.is_empty() && (signed_anew || above)) {
                wanted.insert((role.clone(), name));
            }
        }
    }
    wanted.iter().map(|(role, name)| wrap(room, repository, after, role, name)).collect()
}

fn wrap(room: &Room, repository: &Repository, after: &Standing, role: &str, target: &str) -> anyhow::Result<String> {
    let files_of_role = named_files(&after.text(role)?.unwrap_or_default());
    let sha256 = files_of_role.get(target).map(|named| named.sha256.clone()).unwrap_or_default();
    let manifest_bytes = files::read(&repository.target(&sha256, target))?;
    let manifest = Manifest::read(&manifest_bytes).map_err(|refusal| Failure::because(Exit::Data, refusal))?;
    let name = manifest.file_name();
    let start = after.header(role, manifest_bytes)?.to_bytes().map_err(|refusal| Failure::because(Exit::Data, refusal))?;
    let first_root = after.roots.first().cloned().unwrap_or_default();
    files::replace(&repository.file(&name), 0o644, |file| {
        file.write_all(&start)?;
        if let Body::Patch(Patch { payload, .. }) = &manifest.body {
            files::copy(&repository.target(&payload.sha256, &manifest.payload_target_name()), file, &name)?;
        }
        let refused = |refusal| Failure::because(Exit::Refused, format!("{name}: an appliance would refuse it: {refusal}"));
        look_at(file, first_root, room.now).map(|_| ()).map_err(refused)
    })?;
    Ok(name)
}

/// Signs snapshot (a week) and timestamp (a day), one version on from what stands there.
fn sign_online(room: &Room, repository: &Repository, after: &Standing, key: &SigningKey) -> anyhow::Result<()> {
    let authority = after.authority()?;
    for role in ["snapshot", "timestamp"] {
        if !authority.of(role)?.keys.contains(key.public()) {
            return Err(Failure::because(Exit::Refused, format!("--online-keys: the root does not name this key for {role}")));
        }
    }
    let version_of = |text: &Value| text["version"].as_u64().unwrap_or_default();
    let timestamp = repository.online_text("timestamp.json")?;
    let (timestamp_version, snapshot_version) =
        timestamp.map_or((0, 0), |text| (version_of(&text), version_of(&text["meta"]["snapshot.json"])));
    let mut meta = BTreeMap::new();
    for (role, bytes) in &after.roles {
        meta.insert(format!("{role}.json"), (version_of(&Envelope::read(bytes)?.signed), Named::of(bytes)));
    }
    let sign = |text: Value| {
        let mut envelope = Envelope::new(text);
        envelope.sign(key)?;
        envelope.to_bytes()
    };
    let snapshot = sign(snapshot_text(snapshot_version + 1, room.now.plus_ms(7 * DAY_MS), &meta))?;
    repository.add_metadata("snapshot", snapshot_version + 1, &snapshot)?;
    let named = (snapshot_version + 1, Named::of(&snapshot));
    repository.put_timestamp(&sign(timestamp_text(timestamp_version + 1, room.now.plus_ms(DAY_MS), named))?)
}

/// Opens a finished file.
pub(crate) fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|error| Failure::because(Exit::Config, format!("{}: cannot be read: {error}", path.display())))
}
