//! What the spool asks of a disk, and the machine's own answer to it. Nothing of the spool touches a file but through this.
//!
//! Kept to the operations that the spool uses, so that a simulated disk (`tests/`) can lose, reorder and tear what was not
//! synced and refuse any of them. A write is durable after `sync_data` of its file, a name (new, changed, gone) after `sync_dir`
//! of its folder, and nothing before. It must never sync or retry by itself: what was refused is the spool's to decide.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use crate::atomic_file;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It must exist.
    Read,
    /// It must exist; nothing of it is cut.
    Write,
    /// It must not exist; readable by its owner only.
    CreateNew,
}

/// A file in a listed folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) changed_at: SystemTime,
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Folders and names.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes `dir` and its parents for their owner alone, if it is missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// What lies in `dir`; names that are no UTF-8 are not ours and left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    fn exists(&self, path: &Path) -> bool;
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub(super) trait DiskFile: Debug + Send {
    /// May read less than asked; 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May write less than asked.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
}

impl dyn DiskFile + '_ {
    /// Reads until `bytes` is full or the file ends; how much was read.
    pub(super) fn read_full_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The machine's file systems.
#[derive(Debug)]
pub(super) struct MachineDisk;

impl Disk for MachineDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        atomic_file::private_dir(dir).map_err(|error| io::Error::other(format!("{error:#}")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let found = entry.metadata()?;
            entries.push(Entry { changed_at: found.modified()?, name, bytes: found.len() });
        }
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::Write => options.write(true),
            Access::CreateNew => options.write(true).create_new(true).mode(0o600),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        atomic_file::sync_dir(dir)
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
