//! Reads a tree back from the disk and hashes it: two threads take a file each in turn, what came of it is put together in the order of
//! the archive.
//!
//! Below `tree`. A few files are under way at a time. It must never take a link or a device for a file.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use mainstay_patchkit::archive::TreeHash;
use mainstay_patchkit::refusal::Refusal;
use ring::digest;

use super::disk::{Disk, Kind, io_refusal};
use super::pipeline::spawn;

const READ_BYTES: usize = 128 << 10;
/// Files given and not yet put together.
const UNDER_WAY: usize = 32;

type Content = (u64, [u8; digest::SHA256_OUTPUT_LEN]);

/// One of the two threads.
struct Hand {
    given: SyncSender<PathBuf>,
    done: Receiver<io::Result<Content>>,
}

/// What was found and is not yet part of the hash, in order.
struct Found {
    name: String,
    mode: u32,
    /// Of a file, whose hands it is in.
    hand: Option<usize>,
}

struct Reading<'r> {
    disk: &'r dyn Disk,
    hands: [Hand; 2],
    found: VecDeque<Found>,
    files: usize,
    hash: TreeHash,
}

/// The tree hash of what lies in `dir`.
pub(super) fn hash(disk: &dyn Disk, dir: &Path) -> Result<String, Refusal> {
    std::thread::scope(|scope| {
        let hand = || {
            let (given, files) = sync_channel(UNDER_WAY);
            let (done_to, done) = channel();
            spawn(scope, "hash", move || hash_files(disk, &files, &done_to)).map(|_| Hand { given, done })
        };
        let hands = [hand().map_err(|error| io_refusal(&error))?, hand().map_err(|error| io_refusal(&error))?];
        let mut reading = Reading { disk, hands, found: VecDeque::new(), files: 0, hash: TreeHash::default() };
        reading.folder(dir, "")?;
        reading.put_together(0)?;
        Ok(reading.hash.finish())
    })
}

impl Reading<'_> {
    fn folder(&mut self, dir: &Path, prefix: &str) -> Result<(), Refusal> {
        for entry in self.disk.list(dir).map_err(|error| io_refusal(&error))? {
            let (path, name) = (dir.join(&entry.name), format!("{prefix}{}", entry.name));
            match entry.kind {
                Kind::Dir => {
                    let inside = format!("{name}/");
                    self.found.push_back(Found { name, mode: entry.mode, hand: None });
                    self.put_together(UNDER_WAY)?;
                    self.folder(&path, &inside)?;
                }
                Kind::File => {
                    let hand = self.files % self.hands.len();
                    self.files += 1;
                    self.hands[hand].given.send(path).map_err(ended)?;
                    self.found.push_back(Found { name, mode: entry.mode, hand: Some(hand) });
                    self.put_together(UNDER_WAY)?;
                }
                Kind::Link | Kind::Other => {
                    return Err(Refusal::Content(format!("{}: neither file nor folder", path.display())));
                }
            }
        }
        Ok(())
    }

    /// All but the last `left`.
    fn put_together(&mut self, left: usize) -> Result<(), Refusal> {
        while self.found.len() > left {
            let Some(found) = self.found.pop_front() else { break };
            match found.hand {
                None => self.hash.add_dir(&found.name, found.mode),
                Some(hand) => {
                    let (bytes, sha256) = self.hands[hand].done.recv().map_err(ended)?.map_err(|error| io_refusal(&error))?;
                    self.hash.add_file(&found.name, found.mode, bytes, &sha256);
                }
            }
        }
        Ok(())
    }
}

fn ended<T>(_: T) -> Refusal {
    Refusal::Io("a thread of the helper's ended".into())
}

fn hash_files(disk: &dyn Disk, files: &Receiver<PathBuf>, done: &Sender<io::Result<Content>>) {
    let mut buffer = vec![0; READ_BYTES];
    for path in files {
        if done.send(hash_file(disk, &path, &mut buffer)).is_err() {
            break;
        }
    }
}

fn hash_file(disk: &dyn Disk, path: &Path, buffer: &mut [u8]) -> io::Result<Content> {
    let mut file = disk.open(path)?;
    let mut content = digest::Context::new(&digest::SHA256);
    let mut bytes = 0;
    loop {
        let count = file.read(buffer)?;
        if count == 0 {
            return Ok((bytes, content.finish().as_ref().try_into().unwrap_or_default()));
        }
        content.update(&buffer[..count]);
        bytes += count as u64;
    }
}
