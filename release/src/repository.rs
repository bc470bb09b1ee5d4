//! The repository's folder: `metadata/N.<role>.json`, `targets/<sha256>.<name>`, `files/<name>.mpatch`.
//!
//! Written by `publish` alone, each file whole; the collector and TUF clients read it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mainstay_patchkit::authoring::Envelope;
use mainstay_patchkit::file::Header;
use serde_json::Value;

use crate::authority::Authority;
use crate::exit::{Exit, Failure};
use crate::files;

/// A repository's folder.
pub(crate) struct Repository {
    folder: PathBuf,
}

/// The metadata that stands together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Every root, ascending.
    pub(crate) roots: Vec<Vec<u8>>,
    /// The newest metadata by role (`targets`, `<product>-offline`).
    pub(crate) roles: BTreeMap<String, Vec<u8>>,
}

impl Standing {
    /// The signed text of a role.
    pub(crate) fn text(&self, role: &str) -> anyhow::Result<Option<Value>> {
        let bytes = if role == "root" { self.roots.last() } else { self.roles.get(role) };
        let read = |bytes: &Vec<u8>| {
            let envelope =
                Envelope::read(bytes).map_err(|error| Failure::because(Exit::Data, format!("metadata of {role}: {error}")));
            Ok(envelope?.signed)
        };
        bytes.map(read).transpose()
    }

    /// Who may sign what.
    pub(crate) fn authority(&self) -> anyhow::Result<Authority> {
        match (self.text("root")?, self.text("targets")?) {
            (Some(root), Some(targets)) => Authority::read(&root, &targets),
            _ => Err(Failure::because(Exit::Config, "the repository holds no root: begin with `init`, `sign` and `publish`")),
        }
    }

    /// What stands before the payload in a product's file.
    pub(crate) fn header(&self, role: &str, manifest: Vec<u8>) -> anyhow::Result<Header> {
        let of = |role: &str| {
            let missing = || Failure::because(Exit::Data, format!("the repository holds no metadata of {role}"));
            self.roles.get(role).cloned().ok_or_else(missing)
        };
        Ok(Header { roots: self.roots.clone(), targets: of("targets")?, role: of(role)?, manifest })
    }
}

impl Repository {
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn metadata(&self, name: &str) -> PathBuf {
        self.folder.join("metadata").join(name)
    }

    pub(crate) fn target(&self, sha256: &str, name: &str) -> PathBuf {
        self.folder.join("targets").join(format!("{sha256}.{name}"))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("files").join(name)
    }

    /// What stands there now; empty for a folder that isn't there.
    pub(crate) fn standing(&self) -> anyhow::Result<Standing> {
        let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let folder = self.folder.join("metadata");
        if folder.exists() {
            for entry in fs::read_dir(&folder)? {
                let name = entry?.file_name().into_string().unwrap_or_default();
                let parts = name.strip_suffix(".json").and_then(|name| name.split_once('.'));
                if let Some((version, role)) = parts
                    && let Ok(version) = version.parse()
                    && !matches!(role, "snapshot" | "timestamp")
                {
                    versions.entry(role.to_owned()).or_default().push(version);
                }
            }
        }
        let mut standing = Standing::default();
        for (role, mut versions) in versions {
            versions.sort_unstable();
            let read = |version: &u64| files::read(&self.metadata(&format!("{version}.{role}.json")));
            if role == "root" {
                standing.roots = versions.iter().map(read).collect::<Result<_, _>>()?;
            } else if let Some(newest) = versions.last() {
                standing.roles.insert(role.clone(), read(newest)?);
            }
        }
        Ok(standing)
    }

    /// Writes a version of a role's metadata.
    pub(crate) fn add_metadata(&self, role: &str, version: u64, bytes: &[u8]) -> anyhow::Result<()> {
        files::write_new(&self.metadata(&format!("{version}.{role}.json")), bytes, 0o644)
    }

    /// Puts `timestamp.json`, the one file that is replaced, in its place.
    pub(crate) fn put_timestamp(&self, bytes: &[u8]) -> anyhow::Result<()> {
        files::replace(&self.metadata("timestamp.json"), 0o644, |file| Ok(file.write_all(bytes)?))
    }

    /// The text of `timestamp.json`, or of a version of the snapshot.
    pub(crate) fn online_text(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let path = self.metadata(name);
        if !path.exists() {
            return Ok(None);
        }
        let envelope = Envelope::read(&files::read(&path)?);
        Ok(Some(envelope.map_err(|error| Failure::because(Exit::Data, format!("{}: {error}", path.display())))?.signed))
    }
}
