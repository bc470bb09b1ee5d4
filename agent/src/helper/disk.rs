//! What the engine asks of the file systems, and the machine's own answer to it. The durable state, the tree and the staging touch
//! nothing but through this.
//!
//! Kept to what they use, so that a simulated disk (`tests/`) can lose, reorder and tear what was not synced and cut the power at any of
//! these calls. What was written is durable after `sync` of its file or `sync_all` of its file system, a name (new, changed, gone) after
//! `sync_dir` of its folder or `sync_all`, and nothing before. It must never follow a link in a path's last part, nor retry by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use mainstay_patchkit::refusal::Refusal;
use rustix::fs::OFlags;

/// Smaller files wait for the sync.
const WRITE_OUT_FROM_BYTES: u64 = 64 << 10;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    Dir,
    Link,
    /// A device, a socket, a pipe.
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) bytes: u64,
}

/// A file being written.
pub(super) trait NewFile: Write {
    /// Makes its content durable, not its name.
    fn sync(&mut self) -> io::Result<()>;
    /// All of it is written: it may go to the disk, without waiting and without a promise.
    fn begin_to_write_out(&mut self) {}
}

/// Folders, files and names.
pub(super) trait Disk: Send + Sync {
    /// Makes one folder with these permission bits; it must not exist.
    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()>;
    /// What lies in `dir`, by name; a name that is no UTF-8 is an error.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// What `path` stands for, itself; none if there is nothing.
    fn look(&self, path: &Path) -> io::Result<Option<Entry>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// A new file with these permission bits; it must not exist.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn NewFile>>;
    /// A new symbolic link to `target`.
    fn link(&self, target: &str, path: &Path) -> io::Result<()>;
    fn read_link(&self, path: &Path) -> io::Result<String>;
    /// Replaces a file or link of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file or link.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Everything written to the file system of `dir` so far is durable. syncfs(2): since Linux 5.8 it tells of failed writes too.
    fn sync_all(&self, dir: &Path) -> io::Result<()>;
    /// [`Disk::sync_all`], with `work` done beside it where that is faster: it reads what was written, be it on the disk already or not.
    fn sync_all_beside(&self, dir: &Path, work: &mut dyn FnMut()) -> io::Result<()> {
        self.sync_all(dir)?;
        work();
        Ok(())
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

pub(super) fn io_refusal(error: &io::Error) -> Refusal {
    Refusal::Io(error.to_string())
}

/// The whole of a file of at most `max` bytes; none if there is no such file.
pub(super) fn read(disk: &dyn Disk, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    if disk.look(path)?.is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("{}: over {max} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// Removes `path` with all that lies in it; nothing there is as good.
pub(super) fn remove_tree(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.look(path)?.map(|entry| entry.kind) {
        None => Ok(()),
        Some(Kind::Dir) => {
            for entry in disk.list(path)? {
                let inside = path.join(&entry.name);
                if entry.kind == Kind::Dir { remove_tree(disk, &inside)? } else { disk.remove(&inside)? }
            }
            disk.remove_dir(path)
        }
        Some(_) => disk.remove(path),
    }
}

/// Replaces `path` by `bytes` (0600), durably: wholly old or wholly new.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temp = path.with_file_name(name);
    remove_tree(disk, &temp)?;
    let mut file = disk.create(&temp, 0o600)?;
    file.write_all(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temp, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Lets what was written go to the disk already, without waiting: the sync that comes finds little left. Promises nothing.
pub(super) fn begin_to_write_out(file: &File, at: u64, length: u64) {
    // The one call for it that needs no unsafe code; what is dirty is not dropped.
    rustix::fs::fadvise(file, at, std::num::NonZero::new(length), rustix::fs::Advice::DontNeed).ok();
}

/// The machine's file systems.
#[derive(Debug)]
pub(super) struct MachineDisk;

impl NewFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn begin_to_write_out(&mut self) {
        // Of a small file the asking costs more than it brings.
        if let Some(length) = self.metadata().ok().map(|found| found.len()).filter(|length| *length >= WRITE_OUT_FROM_BYTES) {
            begin_to_write_out(self, 0, length);
        }
    }
}

fn entry(name: String, found: &std::fs::Metadata) -> Entry {
    let kind = match found.file_type() {
        t if t.is_file() => Kind::File,
        t if t.is_dir() => Kind::Dir,
        t if t.is_symlink() => Kind::Link,
        _ => Kind::Other,
    };
    Entry { name, kind, mode: found.mode() & 0o7777, bytes: found.len() }
}

impl Disk for MachineDisk {
    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(mode).create(dir)?;
        // What the umask took away.
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in std::fs::read_dir(dir)? {
            let found = found?;
            let name = found
                .file_name()
                .into_string()
                .map_err(|name| io::Error::other(format!("{}: {} is no UTF-8", dir.display(), name.to_string_lossy())))?;
            entries.push(entry(name, &found.metadata()?));
        }
        entries.sort();
        Ok(entries)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Entry>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(entry(name, &found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        Ok(Box::new(OpenOptions::new().read(true).custom_flags(flags).open(path)?))
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn NewFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        Ok(Box::new(file))
    }

    fn link(&self, target: &str, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn read_link(&self, path: &Path) -> io::Result<String> {
        let target = std::fs::read_link(path)?;
        target.into_os_string().into_string().map_err(|_| io::Error::other(format!("{}: its target is no UTF-8", path.display())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn sync_all(&self, dir: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(dir)?)?)
    }

    fn sync_all_beside(&self, dir: &Path, work: &mut dyn FnMut()) -> io::Result<()> {
        std::thread::scope(|scope| {
            let syncing = std::thread::Builder::new().name("sync".into()).spawn_scoped(scope, || self.sync_all(dir))?;
            work();
            syncing.join().map_err(|_| io::Error::other("the thread that syncs has ended"))?
        })
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
