//! A disk in memory that keeps what is durable and what is only written apart, per file and per name.
//!
//! When its power goes, of what was not synced every sector of every write, every change of length and every change of a name
//! is kept or lost on its own, or all in order up to a byte. It refuses on demand: a failed sync loses what it should have made
//! durable and the next one succeeds (as Linux does, R29), a full disk writes what fits, a read-only one nothing, a bad sector
//! can't be read until it is written. Everything is drawn from one seed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::super::disk::{Access, Disk, DiskFile, Entry};

mod kept;

pub(super) use kept::Draw;
use kept::{EEXIST, EIO, ENOENT, ENOSPC, EROFS, Folder, Inner, Naming, Node, SECTOR, power_is_off, refused, split};

/// The disk; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<Inner>>);

impl SimulatedDisk {
    /// An empty disk with the folder `dir`.
    pub(super) fn new(seed: u64, dir: &Path) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            draw: Draw(seed),
            nodes: BTreeMap::new(),
            folders: BTreeMap::from([(dir.to_owned(), Folder::default())]),
            next: 0,
            operations: 0,
            power_goes_at: None,
            off: false,
            failing_syncs: 0,
            read_only: false,
            capacity: None,
            short_writes: false,
            lies: false,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// The power goes during the `n`th operation from now on (1: the next).
    pub(super) fn cut_power_after(&self, n: u64) {
        let mut inner = self.inner();
        inner.power_goes_at = Some(inner.operations + n);
    }

    pub(super) fn keep_power(&self) {
        self.inner().power_goes_at = None;
    }

    pub(super) fn is_off(&self) -> bool {
        self.inner().off
    }

    /// The next `n` syncs fail.
    pub(super) fn fail_syncs(&self, n: u32) {
        self.inner().failing_syncs = n;
    }

    pub(super) fn set_read_only(&self, read_only: bool) {
        self.inner().read_only = read_only;
    }

    /// Leaves so much room beyond what is used now; `None`: as much as is asked for.
    pub(super) fn leave_room(&self, bytes: Option<usize>) {
        let mut inner = self.inner();
        inner.capacity = bytes.map(|bytes| inner.used() + bytes);
    }

    pub(super) fn write_short(&self, short: bool) {
        self.inner().short_writes = short;
    }

    /// From now on no file is synced, though the answer says so.
    pub(super) fn lie(&self) {
        self.inner().lies = true;
    }

    /// Power off and on again: what was not synced is kept or lost piece by piece.
    pub(super) fn cycle_power(&self) {
        let mut inner = self.inner();
        inner.power_goes_at = None;
        inner.off = false;
        inner.lose_what_was_not_synced();
    }

    /// The file's bytes, as they are read now.
    pub(super) fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let inner = self.inner();
        inner.find(path).map(|ino| inner.nodes[&ino].now.clone()).expect("the file is there")
    }

    /// Changes the file behind the spool's back, durably.
    pub(super) fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        let ino = inner.find(path).expect("the file is there");
        inner.nodes.insert(ino, Node { durable: bytes.to_vec(), now: bytes.to_vec(), ..Node::default() });
    }

    /// The sector at `offset` can't be read until it is written again.
    pub(super) fn spoil(&self, path: &Path, offset: usize) {
        let mut inner = self.inner();
        let ino = inner.find(path).expect("the file is there");
        inner.nodes.get_mut(&ino).unwrap().bad_sectors.insert(offset / SECTOR);
    }

    /// Segment files, by name.
    pub(super) fn segments(&self, dir: &Path) -> Vec<PathBuf> {
        let inner = self.inner();
        inner.folders[dir].now.keys().filter(|name| name.ends_with(".seg")).map(|name| dir.join(name)).collect()
    }

    /// A copy with its own life.
    pub(super) fn fork(&self, seed: u64) -> Self {
        let inner = self.inner();
        let (nodes, folders) = (inner.nodes.clone(), inner.folders.clone());
        Self(Arc::new(Mutex::new(Inner { draw: Draw(seed), nodes, folders, power_goes_at: None, ..*inner })))
    }
}

/// What was done; if the power went just then, nobody heard of it.
fn heard<T>(went_off: bool, done: T) -> io::Result<T> {
    if went_off { Err(power_is_off()) } else { Ok(done) }
}

impl Disk for SimulatedDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        if inner.read_only && !inner.folders.contains_key(dir) {
            return Err(refused(EROFS));
        }
        inner.folders.entry(dir.to_owned()).or_default();
        heard(off, ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let folder = inner.folders.get(dir).ok_or_else(|| refused(ENOENT))?;
        let entry = |(name, ino): (&String, &u64)| Entry {
            changed_at: SystemTime::UNIX_EPOCH + Duration::from_secs(*ino),
            name: name.clone(),
            bytes: inner.nodes[ino].now.len() as u64,
        };
        heard(off, folder.now.iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner().find(path).is_ok()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        if access != Access::Read && inner.read_only {
            return Err(refused(EROFS));
        }
        let ino = match (inner.find(path), access) {
            (Ok(_), Access::CreateNew) => return Err(refused(EEXIST)),
            (Err(_), Access::CreateNew) => {
                inner.next += 1;
                let ino = inner.next;
                inner.nodes.insert(ino, Node::default());
                inner.name(path, Naming::Put(split(path).1, ino))?;
                ino
            }
            (found, _) => found?,
        };
        let disk = self.clone();
        heard(off, Box::new(SimulatedFile { disk, ino }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let ino = inner.find(from)?;
        inner.name(from, Naming::Moved(split(from).1, split(to).1, ino))?;
        heard(off, ())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        inner.find(path)?;
        inner.name(path, Naming::Gone(split(path).1))?;
        heard(off, ())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        if inner.read_only {
            return Err(refused(EROFS));
        }
        if inner.failing_syncs > 0 {
            inner.failing_syncs -= 1;
            return Err(refused(EIO));
        }
        let folder = inner.folders.get_mut(dir).ok_or_else(|| refused(ENOENT))?;
        folder.pending.clear();
        folder.durable.clone_from(&folder.now);
        heard(off, ())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    ino: u64,
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        let Some(node) = inner.nodes.get(&self.ino) else { return heard(off, 0) };
        let begin = (offset as usize).min(node.now.len());
        let end = (begin + bytes.len()).min(node.now.len());
        if node.bad_sectors.iter().any(|sector| sector * SECTOR < end && (sector + 1) * SECTOR > begin) {
            return Err(refused(EIO));
        }
        bytes[..end - begin].copy_from_slice(&node.now[begin..end]);
        heard(off, end - begin)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        if inner.read_only {
            return Err(refused(EROFS));
        }
        let mut part = bytes.len();
        if inner.short_writes && part > 1 && inner.draw.one_in(4) {
            part = 1 + inner.draw.below(part - 1);
        }
        if let Some(capacity) = inner.capacity {
            let length = inner.nodes.get(&self.ino).map_or(0, |node| node.now.len());
            let room = capacity.saturating_sub(inner.used()) + length.saturating_sub(offset as usize);
            part = part.min(room);
            if part == 0 && !bytes.is_empty() {
                return Err(refused(ENOSPC));
            }
        }
        let (begin, end) = (offset as usize, offset as usize + part);
        if let Some(node) = inner.nodes.get_mut(&self.ino) {
            node.bad_sectors.retain(|sector| sector * SECTOR >= end || (sector + 1) * SECTOR <= begin);
        }
        inner.change(self.ino, |file| {
            file.resize(file.len().max(end), 0);
            file[begin..end].copy_from_slice(&bytes[..part]);
        });
        heard(off, part)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        if inner.read_only {
            return Err(refused(EROFS));
        }
        inner.change(self.ino, |file| file.resize(bytes as usize, 0));
        heard(off, ())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        inner.sync(self.ino)?;
        heard(off, ())
    }
}
