//! Quarantine: a file that somebody hands over as a descriptor is copied into a folder of root's own before anybody looks at it, and the
//! copy alone is verified and used (R24). Its hashes are those of the bytes that were written, taken while they were; what is unpacked later
//! is hashed once more, from the copy.
//!
//! `quarantine/SHA256.mpatch` in the state folder. It must never use a path that was told, wait for a descriptor that is no regular file,
//! or copy more than the file had when it came.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mainstay_patchkit::file::Hashes;
use mainstay_patchkit::refusal::Refusal;

use super::disk::io_refusal;
use super::pipeline;
use crate::atomic_file;

/// Larger files are refused.
const MAX_BYTES: u64 = 8 << 30;
/// What must stay free beside a file.
const RESERVE_BYTES: u64 = 16 << 20;

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Quarantine(pub(super) PathBuf);

/// A copy that nobody has believed yet; removed when dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) file: File,
    /// Of what was written.
    pub(super) hashes: Hashes,
    path: PathBuf,
    kept: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Quarantine {
    /// The folder, made if it is missing, without what an earlier run left half copied.
    pub(super) fn open(dir: PathBuf) -> anyhow::Result<Self> {
        atomic_file::private_dir(&dir)?;
        for found in std::fs::read_dir(&dir)?.flatten() {
            if found.file_name().to_string_lossy().starts_with("incoming-") {
                std::fs::remove_file(found.path())?;
            }
        }
        Ok(Self(dir))
    }

    fn path_of(&self, sha256: &str) -> PathBuf {
        self.0.join(format!("{sha256}.mpatch"))
    }

    /// Copies what is behind the descriptor; `mark` tells this copy from others under way.
    pub(super) fn copy(&self, from: OwnedFd, mark: u64) -> Result<Incoming, Refusal> {
        let io = |error: io::Error| io_refusal(&error);
        let from = File::from(from);
        let found = from.metadata().map_err(io)?;
        // A pipe or a device could keep us waiting for ever.
        if !found.file_type().is_file() {
            return Err(Refusal::Format("expected a regular file".into()));
        }
        let needed_bytes = found.size();
        let free_bytes = free_bytes(&self.0).map_err(io)?;
        if needed_bytes > MAX_BYTES || needed_bytes.saturating_add(RESERVE_BYTES) > free_bytes {
            return Err(Refusal::Space { needed_bytes, free_bytes: free_bytes.min(MAX_BYTES) });
        }
        let path = self.0.join(format!("incoming-{mark}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        let none = Hashes { file_sha256: String::new(), payload_sha256: String::new() };
        let mut incoming = Incoming { file, hashes: none, path, kept: false };
        incoming.hashes = pipeline::copy(&from, &incoming.file, needed_bytes).map_err(io)?;
        Ok(incoming)
    }

    /// Gives a verified copy its name, durably.
    pub(super) fn keep(&self, incoming: &mut Incoming, sha256: &str) -> Result<(), Refusal> {
        let kept = (|| {
            // Its name before its bytes: nobody knows of it before this returns, and the disk commits once for both.
            std::fs::rename(&incoming.path, self.path_of(sha256))?;
            incoming.kept = true;
            incoming.file.sync_all()?;
            atomic_file::sync_dir(&self.0)
        })();
        kept.map_err(|error: io::Error| io_refusal(&error))
    }

    /// A kept file, for verifying it again and using it.
    pub(super) fn open_file(&self, sha256: &str) -> Result<File, Refusal> {
        File::open(self.path_of(sha256)).map_err(|error| io_refusal(&error))
    }

    /// Removes every file that is not among `wanted`.
    pub(super) fn clean(&self, wanted: &[&str]) {
        let Ok(found) = std::fs::read_dir(&self.0) else { return };
        for found in found.flatten() {
            let name = found.file_name().to_string_lossy().into_owned();
            if name.strip_suffix(".mpatch").is_some_and(|sha256| !wanted.contains(&sha256)) {
                drop(std::fs::remove_file(found.path()));
            }
        }
    }
}

/// Bytes free where `dir` lies, for unprivileged users.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_pipe_is_refused_and_a_half_copied_file_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(dir.path().join("quarantine")).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(matches!(quarantine.copy(reader.into(), 1), Err(Refusal::Format(_))));
        std::fs::write(dir.path().join("file"), b"hello").unwrap();
        let copy = quarantine.copy(File::open(dir.path().join("file")).unwrap().into(), 2).unwrap();
        std::fs::write(dir.path().join("file"), b"swapped afterwards").unwrap();
        let mut seen = [0; 5];
        copy.file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"hello", "the copy is what is used");
        drop(copy);
        assert_eq!(std::fs::read_dir(&quarantine.0).unwrap().count(), 0);
    }
}
