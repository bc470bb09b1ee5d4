//! The folder that release engineers publish: `metadata/N.root.json, N.targets.json, N.<role>.json`, `files/<name>.mpatch`. Read only.
//!
//! Everything found there is untrusted until `patchkit` has verified it against the root that this service trusts. Names are checked
//! before they are joined to a path; nothing here ever writes. Blocking: callers run it aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::DateTime;
use mainstay_patchkit::file::PatchFile;
use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::{Facts, Trust, verify};
use mainstay_shared::time_source::UnixMs;
use serde_json::Value;

use super::{FileState, ReleaseFile};
use crate::config::ReleasesConfig;

/// Metadata larger than this is not read.
const MAX_METADATA_BYTES: u64 = 4 << 20;
/// Files beyond this many are not listed.
const MAX_FILES: usize = 10_000;

/// A file's name and the mark of its content: length and time of change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) file: String,
    pub(crate) mark: String,
}

/// The newest version of one role's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) version: u64,
    pub(crate) expires_at: UnixMs,
    pub(crate) bytes: Vec<u8>,
}

/// Whether `name` can be a file's name in the repository: no separators, no leading dot, at most 160 characters.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=160).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

/// Where a file lies.
pub(crate) fn file_path(dir: &Path, file: &str) -> Option<PathBuf> {
    (is_plain_name(file) && file.ends_with(".mpatch")).then(|| dir.join("files").join(file))
}

/// The files that lie there, by name.
///
/// # Errors
/// If the folder can't be read; one that holds no `files` yet is empty.
pub(crate) fn listed(dir: &Path) -> anyhow::Result<Vec<Listed>> {
    let folder = dir.join("files");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries.take(MAX_FILES) {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        if file_path(dir, &file).is_none() {
            continue;
        }
        let about = entry.metadata()?;
        if about.is_file() {
            let changed = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            found.push(Listed { file, mark: format!("{}:{}", about.len(), changed.as_nanos()) });
        }
    }
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(found)
}

/// The root that this service trusts first.
///
/// # Errors
/// If it can't be read.
pub(crate) fn trusted_root(config: &ReleasesConfig) -> anyhow::Result<Vec<u8>> {
    let path = config.root.clone().unwrap_or_else(|| config.dir.join("metadata/1.root.json"));
    read_small(&path).with_context(|| format!("{}: the first root that is trusted", path.display()))
}

/// Reads and verifies one file, with the verifier of the appliances, as an appliance that it is made for. What does not verify is
/// listed as refused, with the reason.
pub(crate) fn read(dir: &Path, listed: &Listed, root: &[u8], now: UnixMs) -> ReleaseFile {
    match verified(dir, listed, root, now) {
        Ok(file) => file,
        Err(refusal) => ReleaseFile {
            file: listed.file.clone(),
            sha256: String::new(),
            bytes: 0,
            mark: listed.mark.clone(),
            manifest: None,
            manifest_sha256: String::new(),
            state: FileState::Refused,
            refusal: refusal.to_string(),
            expires_at: UnixMs(0),
        },
    }
}

fn verified(dir: &Path, listed: &Listed, root: &[u8], now: UnixMs) -> Result<ReleaseFile, Refusal> {
    let path = file_path(dir, &listed.file).ok_or_else(|| Refusal::Format("its name".to_owned()))?;
    let io = |error: std::io::Error| Refusal::Io(error.to_string());
    let file = File::open(path).map_err(io)?;
    // What it says of itself only chooses the facts; nothing of it is believed before it verifies.
    let said = Manifest::read(&PatchFile::open(&file)?.header.manifest)?;
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
    let verified = verify(&file, &Trust { root: root.to_vec(), targets_floor: 0, role_floor: 0 }, &facts)?;
    if verified.manifest.file_name() != listed.file {
        return Err(Refusal::Format(format!("its name is {}", verified.manifest.file_name())));
    }
    Ok(ReleaseFile {
        file: listed.file.clone(),
        sha256: verified.file_sha256,
        bytes: file.metadata().map_err(io)?.len(),
        mark: listed.mark.clone(),
        manifest_sha256: verified.manifest_sha256,
        manifest: Some(verified.manifest),
        state: FileState::Good,
        refusal: String::new(),
        expires_at: verified.expires_at,
    })
}

/// The newest metadata by role (`root`, `targets`, delegated ones), as it lies there.
///
/// # Errors
/// If the folder can't be read. What is no metadata is passed over.
pub(crate) fn newest_metadata(dir: &Path) -> anyhow::Result<BTreeMap<String, Newest>> {
    let folder = dir.join("metadata");
    let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.take(MAX_FILES) {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let parts = name.strip_suffix(".json").and_then(|name| name.split_once('.'));
        if let Some((version, role)) = parts.filter(|(_, role)| !role.is_empty() && is_plain_name(&name))
            && let Ok(version) = version.parse::<u64>()
            && !matches!(role, "snapshot" | "timestamp")
        {
            versions.entry(role.to_owned()).or_default().push(version);
        }
    }
    let mut newest = BTreeMap::new();
    for (role, mut found) in versions {
        found.sort_unstable_by(|one, other| other.cmp(one));
        // A torn newest one is passed over: the one before still stands.
        if let Some(read) = found.into_iter().find_map(|version| parse(&folder, &role, version)) {
            newest.insert(role, read);
        }
    }
    Ok(newest)
}

fn parse(folder: &Path, role: &str, version: u64) -> Option<Newest> {
    let bytes = read_small(&folder.join(format!("{version}.{role}.json"))).ok()?;
    let text: Value = serde_json::from_slice(&bytes).ok()?;
    let signed = text.get("signed")?;
    let expires = DateTime::parse_from_rfc3339(signed.get("expires")?.as_str()?).ok()?;
    let same = signed.get("version")?.as_u64() == Some(version);
    same.then(|| Newest { version, expires_at: UnixMs(expires.timestamp_millis()), bytes })
}

/// The versions of snapshot and timestamp that lie in the folder, signed by somebody else before: ours stand above them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) snapshot: i64,
    pub(crate) timestamp: i64,
}

/// Reads them; what is not there, or no metadata, counts as none.
pub(crate) fn published_online(dir: &Path) -> Floors {
    let version = |bytes: &[u8], of: fn(&Value) -> Option<&Value>| {
        let text: Value = serde_json::from_slice(bytes).ok()?;
        of(text.get("signed")?)?.as_i64()
    };
    let Some(timestamp) = metadata(dir, "timestamp.json") else { return Floors::default() };
    Floors {
        timestamp: version(&timestamp, |signed| signed.get("version")).unwrap_or_default(),
        snapshot: version(&timestamp, |signed| signed.get("meta")?.get("snapshot.json")?.get("version")).unwrap_or_default(),
    }
}

/// One file of the metadata, for those who ask for it by name.
pub(crate) fn metadata(dir: &Path, name: &str) -> Option<Vec<u8>> {
    let fits = is_plain_name(name) && name.ends_with(".json");
    fits.then(|| read_small(&dir.join("metadata").join(name)).ok()).flatten()
}

fn read_small(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_METADATA_BYTES + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_METADATA_BYTES, "it is larger than {MAX_METADATA_BYTES} bytes");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_lead_to_a_file() {
        let dir = Path::new("/srv/r");
        for bad in ["../x.mpatch", "a/b.mpatch", ".x.mpatch", "", "x.tar", "x\0.mpatch", "a b.mpatch"] {
            assert_eq!(file_path(dir, bad), None, "{bad:?}");
        }
        assert_eq!(file_path(dir, "acme-2.1.0.mpatch"), Some("/srv/r/files/acme-2.1.0.mpatch".into()));
    }

    #[test]
    fn the_newest_whole_metadata_of_each_role_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("metadata");
        std::fs::create_dir(&folder).expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
        let whole = |version: u64| format!(r#"{{"signed":{{"version":{version},"expires":"2027-01-01T00:00:00Z"}}}}"#);
        write("1.root.json", &whole(1));
        write("2.root.json", &whole(2));
        write("9.targets.json", &whole(9));
        write("10.targets.json", &whole(10)[..20]);
        write("3.acme-offline.json", &whole(4));
        write("2.acme-offline.json", &whole(2));
        write("7.snapshot.json", &whole(7));
        write("notes.txt", "hello");
        let newest = newest_metadata(dir.path()).expect("read");
        let versions: Vec<_> = newest.iter().map(|(role, newest)| (role.as_str(), newest.version)).collect();
        assert_eq!(versions, [("acme-offline", 2), ("root", 2), ("targets", 9)]);
    }
}
