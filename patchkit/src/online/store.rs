//! The trusted metadata on disk: `root.json`, `timestamp.json`, `snapshot.json`, `targets.json`, `<role>.json`, byte for byte as they came.
//!
//! Each is written beside, synced and renamed. It must never be given a file that wasn't verified.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use sigstore_tuf::TrustedMetadataSet;

use super::OnlineError;
use crate::crypto::install_crypto;

/// A folder of trusted metadata.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Over a folder, which is made if it isn't there.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        install_crypto();
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes the first root, which came by a way that is trusted.
    ///
    /// # Errors
    /// [`OnlineError::NoRoot`] for what is no root that signs itself.
    pub fn begin(&self, root: &[u8]) -> Result<(), OnlineError> {
        TrustedMetadataSet::from_root(root).map_err(|error| OnlineError::NoRoot(error.to_string()))?;
        Ok(self.save("root.json", root)?)
    }

    pub(super) fn root(&self) -> Result<TrustedMetadataSet, OnlineError> {
        let bytes = self.load("root.json")?.ok_or_else(|| OnlineError::NoRoot("root.json is missing".into()))?;
        TrustedMetadataSet::from_root(&bytes).map_err(|error| OnlineError::NoRoot(format!("root.json: {error}")))
    }

    pub(super) fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.load(name)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let beside = self.folder.join(format!(".{name}.new"));
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.folder.join(name))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// A role's name as a part of file names and URLs: everything but letters, digits, `-`, `_`, `.` and `~` is %-encoded.
pub(super) fn encoded(role: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    role.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
