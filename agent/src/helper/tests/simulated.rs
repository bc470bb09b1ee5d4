//! A file system in memory with folders, files and links that keeps what is durable and what is only written apart, per file and per name.
//!
//! When its power goes, of what was not synced every name changed is kept or lost on its own, or all in order up to a moment; a file is any
//! beginning of what was written, or zeros of that length. Everything is drawn from one seed.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, Entry, Kind, NewFile};

const ROOT: u64 = 0;

/// A small generator (splitmix64).
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

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[derive(Debug, Clone)]
enum Naming {
    Put(String, u64),
    Gone(String),
    Moved(String, String, u64),
}

type Names = BTreeMap<String, u64>;

fn apply(naming: &Naming, names: &mut Names) {
    match naming {
        Naming::Put(name, ino) => drop(names.insert(name.clone(), *ino)),
        Naming::Gone(name) => drop(names.remove(name)),
        Naming::Moved(from, to, ino) => {
            names.remove(from);
            names.insert(to.clone(), *ino);
        }
    }
}

#[derive(Debug, Clone)]
enum Node {
    Dir { mode: u32, durable: Names, now: Names, pending: Vec<(u64, Naming)> },
    File { mode: u32, durable: Vec<u8>, now: Vec<u8> },
    Link(String),
}

#[derive(Debug)]
struct Inner {
    draw: Draw,
    nodes: BTreeMap<u64, Node>,
    next: u64,
    operations: u64,
    power_goes_at: Option<u64>,
    off: bool,
    /// From this operation on what lies here can't be looked at.
    refuses: Option<(u64, &'static str)>,
}

fn refused(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, path.display().to_string())
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Inner {
    /// Counts an operation; true: the power goes during it.
    fn begin(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(power_is_off());
        }
        self.operations += 1;
        self.off = self.power_goes_at.is_some_and(|at| self.operations >= at);
        Ok(self.off)
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            // Links on the way are followed (`current/...` is read by nobody but people).
            let Some(Node::Dir { now, .. }) = self.nodes.get(&at) else {
                return Err(refused(io::ErrorKind::NotADirectory, path));
            };
            at = *now.get(name.to_str().unwrap()).ok_or_else(|| refused(io::ErrorKind::NotFound, path))?;
        }
        Ok(at)
    }

    fn name(&mut self, dir: &Path, naming: Naming) -> io::Result<()> {
        let at = self.find(dir)?;
        let moment = self.operations;
        let Some(Node::Dir { now, pending, .. }) = self.nodes.get_mut(&at) else {
            return Err(refused(io::ErrorKind::NotADirectory, dir));
        };
        apply(&naming, now);
        pending.push((moment, naming));
        Ok(())
    }

    fn put(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.find(path).is_ok() {
            return Err(refused(io::ErrorKind::AlreadyExists, path));
        }
        self.next += 1;
        let ino = self.next;
        self.nodes.insert(ino, node);
        self.name(path.parent().unwrap(), Naming::Put(name_of(path), ino))?;
        Ok(ino)
    }

    fn entry(&self, name: &str, ino: u64) -> Entry {
        let (kind, mode, bytes) = match &self.nodes[&ino] {
            Node::Dir { mode, .. } => (Kind::Dir, *mode, 0),
            Node::File { mode, now, .. } => (Kind::File, *mode, now.len() as u64),
            Node::Link(target) => (Kind::Link, 0o777, target.len() as u64),
        };
        Entry { name: name.to_owned(), kind, mode, bytes }
    }

    fn lose_what_was_not_synced(&mut self) {
        let in_order = self.draw.below(2) == 0;
        let until = self.draw.below(self.operations + 1);
        let mut draw = self.draw.clone();
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir { durable, now, pending, .. } => {
                    for (moment, naming) in std::mem::take(pending) {
                        if if in_order { moment <= until } else { draw.below(2) == 0 } {
                            apply(&naming, durable);
                        }
                    }
                    now.clone_from(durable);
                }
                Node::File { durable, now, .. } => {
                    if durable != now {
                        let kept = draw.below(now.len() as u64 + 1) as usize;
                        let zeros = draw.below(3) == 0;
                        *durable = if zeros { vec![0; now.len()] } else { now[..kept].to_vec() };
                        now.clone_from(durable);
                    }
                }
                Node::Link(_) => {}
            }
        }
        self.draw = draw;
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The disk; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<Inner>>);

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        let root = Node::Dir { mode: 0o755, durable: Names::new(), now: Names::new(), pending: Vec::new() };
        let nodes = BTreeMap::from([(ROOT, root)]);
        let inner = Inner { draw: Draw(seed), nodes, next: 0, operations: 0, power_goes_at: None, off: false, refuses: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A copy with its own life.
    pub(super) fn fork(&self, seed: u64) -> Self {
        let inner = self.inner();
        Self(Arc::new(Mutex::new(Inner { draw: Draw(seed), nodes: inner.nodes.clone(), ..*inner })))
    }

    /// The power goes during the `n`th operation from now on (1: the next).
    pub(super) fn cut_power_after(&self, n: u64) {
        let mut inner = self.inner();
        inner.power_goes_at = Some(inner.operations + n);
    }

    pub(super) fn is_off(&self) -> bool {
        self.inner().off
    }

    /// What lies below `place` can't be looked at, nor anything begun there, from the `n`th operation from now on; none: no more.
    pub(super) fn refuse_after(&self, refuses: Option<(u64, &'static str)>) {
        let mut inner = self.inner();
        inner.refuses = refuses.map(|(n, place)| (inner.operations + n, place));
    }

    /// Operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Something else than a file operation, during which the power may go.
    pub(super) fn step(&self) -> io::Result<()> {
        if self.inner().begin()? { Err(power_is_off()) } else { Ok(()) }
    }

    /// Power off and on again.
    pub(super) fn cycle_power(&self) {
        let mut inner = self.inner();
        inner.power_goes_at = None;
        if inner.off {
            inner.lose_what_was_not_synced();
        }
        inner.off = false;
    }

    /// Damages a file behind everybody's back, durably.
    pub(super) fn spoil(&self, path: &Path) {
        let mut inner = self.inner();
        let ino = inner.find(path).unwrap();
        let Some(Node::File { durable, now, .. }) = inner.nodes.get_mut(&ino) else { panic!("a file") };
        durable.truncate(durable.len() / 2);
        now.clone_from(durable);
    }

    /// Without counting: what a test looks at.
    pub(super) fn target_of(&self, link: &Path) -> Option<String> {
        let inner = self.inner();
        match &inner.nodes[&inner.find(link).ok()?] {
            Node::Link(target) => Some(target.clone()),
            _ => None,
        }
    }
}

fn heard<T>(went_off: bool, done: T) -> io::Result<T> {
    if went_off { Err(power_is_off()) } else { Ok(done) }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    ino: u64,
}

impl Write for SimulatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        if let Some(Node::File { now, .. }) = inner.nodes.get_mut(&self.ino) {
            now.extend_from_slice(bytes);
        }
        heard(off, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for SimulatedFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let off = inner.begin()?;
        if let Some(Node::File { durable, now, .. }) = inner.nodes.get_mut(&self.ino) {
            durable.clone_from(now);
        }
        heard(off, ())
    }
}

impl Disk for SimulatedDisk {
    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        inner.put(dir, Node::Dir { mode, durable: Names::new(), now: Names::new(), pending: Vec::new() })?;
        heard(off, ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let at = inner.find(dir)?;
        let Node::Dir { now, .. } = &inner.nodes[&at] else { return Err(refused(io::ErrorKind::NotADirectory, dir)) };
        heard(off, now.iter().map(|(name, ino)| inner.entry(name, *ino)).collect())
    }

    fn look(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        if inner.refuses.is_some_and(|(from, place)| inner.operations >= from && path.starts_with(place)) {
            return Err(io::Error::other("input/output error"));
        }
        heard(off, inner.find(path).ok().map(|ino| inner.entry(&name_of(path), ino)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let at = inner.find(path)?;
        let Node::File { now, .. } = &inner.nodes[&at] else { return Err(refused(io::ErrorKind::IsADirectory, path)) };
        heard(off, Box::new(Cursor::new(now.clone())))
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn NewFile>> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let ino = inner.put(path, Node::File { mode, durable: Vec::new(), now: Vec::new() })?;
        heard(off, Box::new(SimulatedFile { disk: self.clone(), ino }))
    }

    fn link(&self, target: &str, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        inner.put(path, Node::Link(target.to_owned()))?;
        heard(off, ())
    }

    fn read_link(&self, path: &Path) -> io::Result<String> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let at = inner.find(path)?;
        let Node::Link(target) = &inner.nodes[&at] else { return Err(refused(io::ErrorKind::InvalidInput, path)) };
        heard(off, target.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let ino = inner.find(from)?;
        if from.parent() == to.parent() {
            inner.name(from.parent().unwrap(), Naming::Moved(name_of(from), name_of(to), ino))?;
        } else {
            inner.name(to.parent().unwrap(), Naming::Put(name_of(to), ino))?;
            inner.name(from.parent().unwrap(), Naming::Gone(name_of(from)))?;
        }
        heard(off, ())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        inner.find(path)?;
        inner.name(path.parent().unwrap(), Naming::Gone(name_of(path)))?;
        heard(off, ())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let at = inner.find(dir)?;
        match &inner.nodes[&at] {
            Node::Dir { now, .. } if now.is_empty() => {}
            _ => return Err(refused(io::ErrorKind::DirectoryNotEmpty, dir)),
        }
        inner.name(dir.parent().unwrap(), Naming::Gone(name_of(dir)))?;
        heard(off, ())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        let at = inner.find(dir)?;
        if let Some(Node::Dir { durable, now, pending, .. }) = inner.nodes.get_mut(&at) {
            pending.clear();
            durable.clone_from(now);
        }
        heard(off, ())
    }

    fn sync_all(&self, _dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let off = inner.begin()?;
        if off {
            // Any part of it may have arrived.
            return Err(power_is_off());
        }
        for node in inner.nodes.values_mut() {
            match node {
                Node::Dir { durable, now, pending, .. } => {
                    pending.clear();
                    durable.clone_from(now);
                }
                Node::File { durable, now, .. } => durable.clone_from(now),
                Node::Link(_) => {}
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}
