//! What lies on the simulated disk: every file and folder as it is durable and as it was written since, and what a loss leaves.
//!
//! A file's unsynced past is kept as whole contents, one a change, as a page cache would hold them one after the other: a sector
//! that reaches the disk is as it was at one of those moments, never a mixture that no moment held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub(super) const SECTOR: usize = 512;
pub(super) const EIO: i32 = 5;
pub(super) const ENOENT: i32 = 2;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

/// A small generator (splitmix64): a seed is all that a failing run needs to be told.
#[derive(Debug, Clone)]
pub(in super::super) struct Draw(pub(in super::super) u64);

impl Draw {
    pub(in super::super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`, which is above 0.
    pub(in super::super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(in super::super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(in super::super) fn hex_128(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) durable: Vec<u8>,
    pub(super) now: Vec<u8>,
    /// What it was after each change since it was synced, as the page cache held it.
    pub(super) since: Vec<(u64, Vec<u8>)>,
    pub(super) bad_sectors: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Naming {
    Put(String, u64),
    Gone(String),
    Moved(String, String, u64),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    pub(super) durable: BTreeMap<String, u64>,
    pub(super) now: BTreeMap<String, u64>,
    pub(super) pending: Vec<(u64, Naming)>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) draw: Draw,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) folders: BTreeMap<PathBuf, Folder>,
    pub(super) next: u64,
    /// Operations so far.
    pub(super) operations: u64,
    pub(super) power_goes_at: Option<u64>,
    pub(super) off: bool,
    pub(super) failing_syncs: u32,
    pub(super) read_only: bool,
    pub(super) capacity: Option<usize>,
    pub(super) short_writes: bool,
    /// Syncs are answered and not done.
    pub(super) lies: bool,
}

pub(super) fn refused(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

pub(super) fn split(path: &Path) -> (PathBuf, String) {
    (path.parent().unwrap().to_owned(), path.file_name().unwrap().to_str().unwrap().to_owned())
}

impl Node {
    /// Each sector as it was at any moment since the last sync, and any length of those moments; where only the length arrived,
    /// there are zeros.
    fn by_sector(&self, draw: &mut Draw) -> Vec<u8> {
        let moments: Vec<&[u8]> =
            std::iter::once(&self.durable).chain(self.since.iter().map(|(_, bytes)| bytes)).map(Vec::as_slice).collect();
        let mut file = vec![0; moments[draw.below(moments.len())].len()];
        for (at, sector) in file.chunks_mut(SECTOR).enumerate() {
            let then = moments[draw.below(moments.len())];
            let found = then.get(at * SECTOR..).unwrap_or_default();
            let len = found.len().min(sector.len());
            sector[..len].copy_from_slice(&found[..len]);
        }
        file
    }

    /// As it was at `moment`, and of the next change any first part.
    fn in_order(&self, moment: u64, draw: &mut Draw) -> Vec<u8> {
        let done = self.since.partition_point(|(at, _)| *at <= moment);
        let before = if done == 0 { &self.durable } else { &self.since[done - 1].1 };
        let Some((_, next)) = self.since.get(done) else { return before.clone() };
        let same = before.iter().zip(next).take_while(|(a, b)| a == b).count();
        let torn = (same + draw.below(2 * SECTOR)).min(next.len());
        let mut file = next[..torn].to_vec();
        file.extend_from_slice(before.get(torn..).unwrap_or_default());
        file
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
    pub(super) fn begin(&mut self) -> io::Result<bool> {
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

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path);
        self.folders.get(&dir).and_then(|folder| folder.now.get(&name)).copied().ok_or_else(|| refused(ENOENT))
    }

    pub(super) fn name(&mut self, path: &Path, naming: Naming) -> io::Result<()> {
        if self.read_only {
            return Err(refused(EROFS));
        }
        self.next += 1;
        let folder = self.folders.get_mut(&split(path).0).ok_or_else(|| refused(ENOENT))?;
        naming.apply(&mut folder.now);
        folder.pending.push((self.next, naming));
        Ok(())
    }

    pub(super) fn change(&mut self, ino: u64, change: impl FnOnce(&mut Vec<u8>)) {
        self.next += 1;
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        change(&mut node.now);
        node.since.push((self.next, node.now.clone()));
    }

    pub(super) fn used(&self) -> usize {
        let named: BTreeSet<u64> = self.folders.values().flat_map(|folder| folder.now.values().copied()).collect();
        named.iter().map(|ino| self.nodes[ino].now.len()).sum()
    }

    pub(super) fn sync(&mut self, ino: u64) -> io::Result<()> {
        if self.read_only {
            return Err(refused(EROFS));
        }
        let Self { draw, nodes, failing_syncs, lies, .. } = self;
        let Some(node) = nodes.get_mut(&ino).filter(|_| !*lies) else { return Ok(()) };
        if *failing_syncs == 0 {
            node.durable.clone_from(&node.now);
            node.since.clear();
            return Ok(());
        }
        *failing_syncs -= 1;
        node.durable = node.by_sector(draw);
        node.since.clear();
        // What was not written is clean now; it may be read from memory for a while, or be gone at once.
        if draw.one_in(2) {
            node.now.clone_from(&node.durable);
        }
        Err(refused(EIO))
    }

    pub(super) fn lose_what_was_not_synced(&mut self) {
        let Self { draw, nodes, folders, next, .. } = self;
        let way = draw.below(6);
        let in_order_up_to = draw.below(*next as usize + 1) as u64;
        for node in nodes.values_mut() {
            match way {
                0 => {}
                1 => node.durable.clone_from(&node.now),
                2 => node.durable = node.in_order(in_order_up_to, draw),
                _ => node.durable = node.by_sector(draw),
            }
            node.since.clear();
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
