//! A disk in memory that keeps what is durable and what is only written apart, per file and per name.
//!
//! When its power goes, of what was not synced every sector of every write, every change of length and every change of a name
//! is kept or lost on its own, or all in order up to a byte. It refuses on demand: a failed sync loses what it should have made
//! durable and the next one succeeds (as Linux does, R29), a full disk writes what fits, a read-only one nothing, a bad sector
//! can't be read until it is written. Everything is drawn from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::super::disk::{Access, Disk, DiskFile, Entry};

const SECTOR: usize = 512;
pub(super) const EIO: i32 = 5;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// A small generator (splitmix64): a seed is all that a failing run needs to be told.
#[derive(Debug, Clone)]
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`, which is above 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn hex_128(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Node {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<(u64, Change)>,
    bad_sectors: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Naming {
    Put(String, u64),
    Gone(String),
    Moved(String, String, u64),
}

#[derive(Debug, Clone, Default)]
struct Folder {
    durable: BTreeMap<String, u64>,
    now: BTreeMap<String, u64>,
    pending: Vec<(u64, Naming)>,
}

#[derive(Debug)]
struct Inner {
    draw: Draw,
    nodes: BTreeMap<u64, Node>,
    folders: BTreeMap<PathBuf, Folder>,
    next: u64,
    /// Operations so far.
    operations: u64,
    power_goes_at: Option<u64>,
    off: bool,
    failing_syncs: u32,
    read_only: bool,
    capacity: Option<usize>,
    short_writes: bool,
}

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

    pub(super) fn operations(&self) -> u64 {
        self.inner().operations
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

fn refused(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn split(path: &Path) -> (PathBuf, String) {
    (path.parent().unwrap().to_owned(), path.file_name().unwrap().to_str().unwrap().to_owned())
}

/// Writes `bytes` at `offset`, zeros before them if the file is shorter.
fn lay(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => lay(file, *offset, bytes),
            Self::Length(len) => file.resize(*len, 0),
        }
    }

    /// The first `part` bytes of it.
    fn apply_part(&self, file: &mut Vec<u8>, part: usize) {
        match self {
            Self::Write { offset, bytes } => lay(file, *offset, &bytes[..part.min(bytes.len())]),
            Self::Length(_) => {}
        }
    }

    /// Each sector on its own; where the length arrived and the data did not, there are zeros.
    fn apply_by_sector(&self, file: &mut Vec<u8>, draw: &mut Draw) {
        let Self::Write { offset, bytes } = self else {
            if draw.one_in(2) {
                self.apply(file);
            }
            return;
        };
        let end = offset + bytes.len();
        let longer = end > file.len();
        let mut at = *offset;
        while at < end {
            let next = ((at / SECTOR + 1) * SECTOR).min(end);
            if draw.one_in(2) {
                lay(file, at, &bytes[at - offset..next - offset]);
            }
            at = next;
        }
        if longer && draw.one_in(2) && file.len() < end {
            file.resize(end, 0);
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(name, ino) => drop(names.insert(name.clone(), *ino)),
            Self::Gone(name) => drop(names.remove(name)),
            Self::Moved(from, to, ino) => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
        }
    }
}

impl Inner {
    /// Every operation begins here. The one during which the power goes may still have happened.
    fn begin(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(power_is_off());
        }
        self.operations += 1;
        if self.power_goes_at == Some(self.operations) {
            self.off = true;
            return if self.draw.one_in(2) { Ok(true) } else { Err(power_is_off()) };
        }
        Ok(false)
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path);
        self.folders.get(&dir).and_then(|folder| folder.now.get(&name)).copied().ok_or_else(|| refused(ENOENT))
    }

    fn name(&mut self, path: &Path, naming: Naming) -> io::Result<()> {
        if self.read_only {
            return Err(refused(EROFS));
        }
        self.next += 1;
        let folder = self.folders.get_mut(&split(path).0).ok_or_else(|| refused(ENOENT))?;
        naming.apply(&mut folder.now);
        folder.pending.push((self.next, naming));
        Ok(())
    }

    fn change(&mut self, ino: u64, change: Change) {
        self.next += 1;
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if let Change::Write { offset, bytes } = &change {
            node.bad_sectors.retain(|sector| sector * SECTOR >= offset + bytes.len() || (sector + 1) * SECTOR <= *offset);
        }
        change.apply(&mut node.now);
        node.pending.push((self.next, change));
    }

    fn used(&self) -> usize {
        let named: BTreeSet<u64> = self.folders.values().flat_map(|folder| folder.now.values().copied()).collect();
        named.iter().map(|ino| self.nodes[ino].now.len()).sum()
    }

    fn sync(&mut self, ino: u64) -> io::Result<()> {
        if self.read_only {
            return Err(refused(EROFS));
        }
        let Self { draw, nodes, failing_syncs, .. } = self;
        let Some(node) = nodes.get_mut(&ino) else { return Ok(()) };
        let pending = std::mem::take(&mut node.pending);
        if *failing_syncs == 0 {
            node.durable.clone_from(&node.now);
            return Ok(());
        }
        *failing_syncs -= 1;
        for (_, change) in pending {
            change.apply_by_sector(&mut node.durable, draw);
        }
        // What was not written is clean now; it may be read from memory for a while, or be gone at once.
        if draw.one_in(2) {
            node.now.clone_from(&node.durable);
        }
        Err(refused(EIO))
    }

    fn lose_what_was_not_synced(&mut self) {
        let Self { draw, nodes, folders, next, .. } = self;
        let way = draw.below(6);
        let in_order_up_to = draw.below(*next as usize + 1) as u64;
        for node in nodes.values_mut() {
            for (at, change) in std::mem::take(&mut node.pending) {
                match way {
                    0 => {}
                    1 => change.apply(&mut node.durable),
                    2 if at < in_order_up_to => change.apply(&mut node.durable),
                    2 if at == in_order_up_to => change.apply_part(&mut node.durable, draw.below(2 * SECTOR)),
                    2 => {}
                    _ => change.apply_by_sector(&mut node.durable, draw),
                }
            }
            node.now.clone_from(&node.durable);
        }
        for folder in folders.values_mut() {
            for (at, naming) in std::mem::take(&mut folder.pending) {
                let kept = match way {
                    0 => false,
                    1 => true,
                    2 => at <= in_order_up_to,
                    _ => draw.one_in(2),
                };
                if kept {
                    naming.apply(&mut folder.durable);
                }
            }
            folder.now.clone_from(&folder.durable);
        }
        let named: BTreeSet<u64> = folders.values().flat_map(|folder| folder.now.values().copied()).collect();
        nodes.retain(|ino, _| named.contains(ino));
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
        inner.change(self.ino, Change::Write { offset: offset as usize, bytes: bytes[..part].to_vec() });
        heard(off, part)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        if inner.read_only {
            return Err(refused(EROFS));
        }
        inner.change(self.ino, Change::Length(bytes as usize));
        heard(off, ())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        inner.sync(self.ino)?;
        heard(off, ())
    }
}
