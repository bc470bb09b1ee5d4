//! One lane's segment files: append, sync, read back, delete from the oldest on. It knows bytes and frames, not records.
//!
//! A commit is one write and one `fdatasync`; only then do its frames exist. After a failed sync the descriptor is dropped
//! and the frames are written again into a new segment (R29); the same descriptor is never synced a second time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_shared::ids::Lane;

use super::disk::{Access, Disk, DiskFile};
use super::format::{self, Harm, Kind, SECTOR_BYTES, SEGMENT_MAGIC};
use super::state::Place;

/// A segment is never read beyond this; ours are far smaller.
const MAX_SEGMENT_BYTES: u64 = 16 << 20;
/// Stands where the disk could not be read; not zero, which means "never written".
const UNREADABLE: u8 = 0xFF;
/// Read at once.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Head {
    number: u32,
    file: Box<dyn DiskFile>,
    /// Length of the good part.
    bytes: u64,
    /// Length of what it began with: the magic and the checkpoint.
    opening_bytes: u64,
}

/// The segments of one lane, oldest first; at most the newest is open for writing.
#[derive(Debug)]
pub(super) struct Chain {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    lane: Lane,
    segment_bytes: u64,
    segments: BTreeMap<u32, u64>,
    head: Option<Head>,
}

impl Chain {
    /// The chain as it lies in `dir`; nothing is opened for writing yet.
    pub(super) fn list(disk: &Arc<dyn Disk>, dir: &Path, lane: Lane, segment_bytes: u64) -> io::Result<Self> {
        let mut segments = BTreeMap::new();
        for entry in disk.list(dir)? {
            if let Some(number) = number_of(&entry.name, lane) {
                segments.insert(number, entry.bytes);
            }
        }
        Ok(Self { segments, ..Self::empty(disk, dir, lane, segment_bytes) })
    }

    /// A chain of no segments.
    pub(super) fn empty(disk: &Arc<dyn Disk>, dir: &Path, lane: Lane, segment_bytes: u64) -> Self {
        Self { disk: Arc::clone(disk), dir: dir.to_owned(), lane, segment_bytes, segments: BTreeMap::new(), head: None }
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.segments.keys().copied().collect()
    }

    /// Bytes of all segments on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}-{number:08x}.seg", self.lane.as_str()))
    }

    /// A whole segment; where it can't be read stand bytes of no frame, to be found as damage.
    pub(super) fn read(&self, number: u32) -> io::Result<Vec<u8>> {
        let file = match self.disk.open(&self.path(number), Access::Read) {
            Err(error) if is_damage(&error) => {
                return Ok(vec![UNREADABLE; self.segments.get(&number).map_or(0, |len| *len as usize)]);
            }
            opened => opened?,
        };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < MAX_SEGMENT_BYTES {
            let begin = bytes.len();
            bytes.resize(begin + READ_BYTES, 0);
            let read = match file.read_full_at(&mut bytes[begin..], begin as u64) {
                Err(error) if is_damage(&error) => read_around(file.as_ref(), &mut bytes[begin..], begin as u64),
                read => read?,
            };
            bytes.truncate(begin + read);
            if read < READ_BYTES {
                break;
            }
        }
        Ok(bytes)
    }

    /// The bodies of the frames at `places`; `None` where a frame is no longer what was written, or its segment is gone.
    pub(super) fn read_frames(&self, places: &[Place]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let mut open: Option<(u32, Box<dyn DiskFile>)> = None;
        let mut bodies = Vec::with_capacity(places.len());
        for place in places {
            if open.as_ref().is_none_or(|(number, _)| *number != place.segment) {
                open = match self.disk.open(&self.path(place.segment), Access::Read) {
                    Ok(file) => Some((place.segment, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => None,
                    Err(error) => return Err(error),
                };
            }
            let mut bytes = vec![0; place.bytes as usize];
            let read = open.as_ref().map(|(_, file)| file.read_full_at(&mut bytes, u64::from(place.offset)));
            let whole = matches!(read, Some(Ok(read)) if read == bytes.len());
            bodies.push(format::frame_at(&bytes).filter(|_| whole).map(|(_, body)| bytes[body].to_vec()));
        }
        Ok(bodies)
    }

    /// Whether `frames` of `bytes` in all would begin a new segment, so that the caller makes its checkpoint.
    pub(super) fn needs_new_segment(&self, bytes: u64) -> bool {
        self.head.as_ref().is_none_or(|h| h.bytes > h.opening_bytes && h.bytes - h.opening_bytes + bytes > self.segment_bytes)
    }

    /// Begins a new segment with `opening` frames. Durable on return, the directory entry too.
    pub(super) fn begin_segment(&mut self, opening: &[u8]) -> io::Result<()> {
        let number = self.segments.keys().next_back().map_or(1, |n| n + 1);
        let path = self.path(number);
        let mut bytes = SEGMENT_MAGIC.to_vec();
        bytes.extend_from_slice(opening);
        let begun = self.write_new(&path, &bytes);
        let file = match begun {
            Ok(file) => file,
            Err(error) => {
                // If it may be there after a power cut, nothing may be written before it any more: it begins with what is known
                // now. What can't be removed is no segment of ours, but its number is taken.
                let removed = self.disk.remove(&path);
                if removed.is_err() && self.disk.exists(&path) {
                    self.segments.insert(number, 0);
                }
                if removed.and_then(|()| self.disk.sync_dir(&self.dir)).is_err() {
                    self.head = None;
                }
                return Err(error);
            }
        };
        self.segments.insert(number, bytes.len() as u64);
        self.head = Some(Head { number, file, bytes: bytes.len() as u64, opening_bytes: bytes.len() as u64 });
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, Access::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Appends `frames` to the newest segment and syncs them; `opening` is used if a failed sync forces a new segment.
    /// Returns where each frame lies.
    pub(super) fn commit(&mut self, frames: &[(Kind, Vec<u8>)], opening: &mut dyn FnMut() -> Vec<u8>) -> io::Result<Vec<Place>> {
        if self.head.is_none() {
            self.begin_segment(&opening())?;
        }
        match self.try_commit(frames) {
            Err(Failed::Sync(error)) => {
                tracing::error!(lane = self.lane.as_str(), %error, "spool: fsync failed; the frames are written again into a new segment");
                self.begin_segment(&opening())?;
                self.try_commit(frames).map_err(Failed::into_io)
            }
            done => done.map_err(Failed::into_io),
        }
    }

    fn try_commit(&mut self, frames: &[(Kind, Vec<u8>)]) -> Result<Vec<Place>, Failed> {
        let Some(mut head) = self.head.take() else { return Err(Failed::Write(io::Error::other("no open segment"))) };
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(frames.len());
        for (kind, body) in frames {
            let begin = bytes.len();
            format::put_frame(&mut bytes, *kind, body);
            let offset = u32::try_from(head.bytes + begin as u64).map_err(|e| Failed::Write(io::Error::other(e)))?;
            places.push(Place { segment: head.number, offset, bytes: u32::try_from(bytes.len() - begin).unwrap_or(u32::MAX) });
        }
        if let Err(error) = head.file.write_all_at(&bytes, head.bytes) {
            // What was written of it is no frame of ours: cut it off, and keep the segment only if that is durable; otherwise
            // its sectors could come back between those of the next frame.
            if head.file.set_len(head.bytes).and_then(|()| head.file.sync_data()).is_ok() {
                self.head = Some(head);
            }
            return Err(Failed::Write(error));
        }
        if let Err(error) = head.file.sync_data() {
            let (number, good) = (head.number, head.bytes);
            drop(head);
            drop(self.disk.open(&self.path(number), Access::Write).and_then(|file| file.set_len(good)));
            return Err(Failed::Sync(error));
        }
        head.bytes += bytes.len() as u64;
        self.segments.insert(head.number, head.bytes);
        self.head = Some(head);
        Ok(places)
    }

    /// Deletes segments from the oldest on while they are older than `oldest_needed` (`None`: none is needed) and not open. The
    /// newest of the fault lane stays, also while none is open after a failed sync: its checkpoint is all that is left of the others.
    pub(super) fn delete_before(&mut self, oldest_needed: Option<u32>) -> io::Result<()> {
        let head = self.head.as_ref().map(|h| h.number);
        let newest = match self.lane {
            Lane::Fault => self.segments.iter().rev().find(|(_, bytes)| **bytes > 0).map(|(number, _)| *number),
            Lane::Sample => None,
        };
        let keep_from = oldest_needed.unwrap_or(u32::MAX).min(head.or(newest).unwrap_or(u32::MAX));
        let old: Vec<u32> = self.segments.range(..keep_from).map(|(n, _)| *n).collect();
        for number in &old {
            self.disk.remove(&self.path(*number))?;
            self.segments.remove(number);
        }
        if old.is_empty() { Ok(()) } else { self.disk.sync_dir(&self.dir) }
    }

    /// Overwrites a bad range in place (a torn end: cuts it off), so that it is met once. Needs no room on the disk.
    pub(super) fn mend(&mut self, number: u32, offset: usize, len: usize, harm: Harm) -> io::Result<()> {
        let file = self.disk.open(&self.path(number), Access::Write)?;
        if harm == Harm::Torn {
            file.set_len(offset as u64)?;
            self.segments.insert(number, offset as u64);
        } else {
            file.write_all_at(&format::mending(offset, len), offset as u64)?;
        }
        file.sync_data()
    }
}

/// Whether the disk said that what was asked for is broken, not that it can't be had just now.
fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const EUCLEAN: i32 = 117;
    matches!(error.raw_os_error(), Some(EIO | EUCLEAN))
}

/// Reads what can be read, sector by sector; returns up to where the file reaches.
fn read_around(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> usize {
    let mut end = 0;
    for (at, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        let begin = at * SECTOR_BYTES;
        match file.read_full_at(sector, offset + begin as u64) {
            Ok(0) => break,
            Ok(read) => end = begin + read,
            Err(_) => {
                sector.fill(UNREADABLE);
                end = begin + sector.len();
            }
        }
    }
    end
}

enum Failed {
    Write(io::Error),
    Sync(io::Error),
}

impl Failed {
    fn into_io(self) -> io::Error {
        match self {
            Self::Write(error) | Self::Sync(error) => error,
        }
    }
}

fn number_of(name: &str, lane: Lane) -> Option<u32> {
    let digits = name.strip_prefix(lane.as_str())?.strip_prefix('-')?.strip_suffix(".seg")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}
