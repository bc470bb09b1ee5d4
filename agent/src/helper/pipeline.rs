//! Bytes on their way through more than one thread: hashed while they are copied, read ahead and hashed while they are unpacked, written
//! while the next ones are unpacked.
//!
//! Below `quarantine` and `tree`. A few blocks are under way at a time: memory does not grow with a file. It must never lose what one
//! thread found wrong, nor tell the hash of less than all.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use mainstay_patchkit::file::{Hashes, START_BYTES, payload_offset};
use mainstay_patchkit::refusal::Refusal;
use ring::digest;

use super::disk::{Disk, NewFile, begin_to_write_out, io_refusal};

const BLOCK_BYTES: usize = 128 << 10;
/// Under way at a time, at each place.
const BLOCKS: usize = 8;
/// Names and blocks that wait to be written.
const ORDERS: usize = 64;
/// So much of a copy goes on its way to the disk at a time.
const WRITE_OUT_BYTES: u64 = 8 << 20;

pub(super) fn spawn<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 's,
) -> io::Result<ScopedJoinHandle<'s, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, work)
}

pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a thread of the helper's ended"))
}

fn sha256(context: digest::Context) -> String {
    hex::encode(context.finish())
}

/// Copies `length` bytes, or all that there are, and hashes what was written.
///
/// # Errors
/// What the disks said.
pub(super) fn copy(from: &File, to: &File, length: u64) -> io::Result<Hashes> {
    scope(|scope| {
        let (returned, spent) = channel();
        let (whole, whole_blocks) = sync_channel(BLOCKS);
        let (payload, payload_blocks) = sync_channel(BLOCKS);
        let also_returned = returned.clone();
        let hash_whole = spawn(scope, "hash", move || hash(&whole_blocks, &returned, false))?;
        let hash_payload = spawn(scope, "hash", move || hash(&payload_blocks, &also_returned, true))?;
        let gone = |_| io::Error::other("a thread of the helper's ended");
        let mut blocks: Vec<_> = (0..BLOCKS).map(|_| Arc::new(vec![0; BLOCK_BYTES])).collect();
        let (mut at, mut written_out) = (0, 0);
        for turn in (0..BLOCKS).cycle() {
            // Free when both have hashed it.
            while Arc::get_mut(&mut blocks[turn]).is_none() {
                spent.recv().map_err(|_| gone(()))?;
            }
            let Some(block) = Arc::get_mut(&mut blocks[turn]) else { continue };
            let count = fill(from, at, &mut block[..usize::try_from(length - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)])?;
            if count == 0 {
                break;
            }
            for hashing in [&whole, &payload] {
                hashing.send((at, Arc::clone(&blocks[turn]), count)).map_err(|_| gone(()))?;
            }
            to.write_all_at(&blocks[turn][..count], at)?;
            at += count as u64;
            if at - written_out >= WRITE_OUT_BYTES {
                begin_to_write_out(to, written_out, at - written_out);
                written_out = at;
            }
        }
        drop((whole, payload));
        Ok(Hashes { file_sha256: joined(hash_whole)?, payload_sha256: joined(hash_payload)? })
    })
}

type Piece = (u64, Arc<Vec<u8>>, usize);

/// Hashes pieces as they come, all of them or those of the payload.
fn hash(pieces: &Receiver<Piece>, returned: &Sender<()>, payload_only: bool) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut begins = 0;
    for (at, block, count) in pieces {
        if at == 0 && payload_only {
            // Of a file that is none of ours nothing is hashed: its header is refused.
            begins = block.first_chunk::<START_BYTES>().and_then(payload_offset).unwrap_or(u64::MAX);
        }
        let skipped = usize::try_from(begins.saturating_sub(at)).unwrap_or(count).min(count);
        hash.update(&block[skipped..count]);
        drop(block);
        returned.send(()).ok();
    }
    sha256(hash)
}

fn fill(from: &File, mut at: u64, mut buffer: &mut [u8]) -> io::Result<usize> {
    let wanted = buffer.len();
    while !buffer.is_empty() {
        let count = from.read_at(buffer, at)?;
        if count == 0 {
            break;
        }
        at += count as u64;
        buffer = &mut buffer[count..];
    }
    Ok(wanted - buffer.len())
}

/// Bytes that another thread reads and hashes ahead.
pub(super) struct Ahead {
    read: Receiver<io::Result<(Vec<u8>, usize)>>,
    spent: Sender<Vec<u8>>,
    block: Vec<u8>,
    left: std::ops::Range<usize>,
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.is_empty() {
            // Who reads has ended: nothing more is wanted.
            self.spent.send(std::mem::take(&mut self.block)).ok();
            let Ok(next) = self.read.recv() else { return Ok(&[]) };
            let (block, count) = next?;
            (self.block, self.left) = (block, 0..count);
        }
        Ok(&self.block[self.left.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.left.start += count.min(self.left.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let count = here.len().min(buffer.len());
        buffer[..count].copy_from_slice(&here[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Does `work` on what `from` brings; the SHA-256 of all of it, hex, whatever `work` has left unread.
///
/// # Errors
/// What `work` or reading found.
pub(super) fn read_ahead(
    from: &mut (dyn Read + Send),
    work: impl FnOnce(&mut Ahead) -> Result<(), Refusal>,
) -> Result<String, Refusal> {
    let io = |error: io::Error| io_refusal(&error);
    scope(|scope| {
        let (read_to, read) = sync_channel(BLOCKS);
        let (spent, spare) = channel();
        for _ in 0..BLOCKS {
            spent.send(Vec::new()).ok();
        }
        let reading = spawn(scope, "read", move || read_and_hash(from, &read_to, &spare)).map_err(io)?;
        let mut ahead = Ahead { read, spent, block: Vec::new(), left: 0..0 };
        work(&mut ahead)?;
        io::copy(&mut ahead, &mut io::sink()).map_err(io)?;
        drop(ahead);
        joined(reading).map_err(io)
    })
}

fn read_and_hash(
    from: &mut (dyn Read + Send),
    to: &SyncSender<io::Result<(Vec<u8>, usize)>>,
    spare: &Receiver<Vec<u8>>,
) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for mut block in spare {
        block.resize(BLOCK_BYTES, 0);
        match from.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&block[..count]);
                if to.send(Ok((block, count))).is_err() {
                    break;
                }
            }
            Err(error) => {
                to.send(Err(error)).ok();
                break;
            }
        }
    }
    sha256(hash)
}

/// What is to be written, in its order.
enum Order {
    Folder(PathBuf, u32),
    File(PathBuf, u32),
    /// Of the last file.
    Bytes(Vec<u8>, usize),
}

/// Takes what is to be written; another thread writes it.
pub(super) struct Writing {
    orders: SyncSender<Order>,
    spare: Receiver<Vec<u8>>,
}

/// The thread that writes has ended: why, it tells itself.
fn ended<T>(_: T) -> Refusal {
    Refusal::Io("writing has ended".into())
}

impl Writing {
    pub(super) fn folder(&self, path: PathBuf, mode: u32) -> Result<(), Refusal> {
        self.orders.send(Order::Folder(path, mode)).map_err(ended)
    }

    pub(super) fn file(&self, path: PathBuf, mode: u32) -> Result<(), Refusal> {
        self.orders.send(Order::File(path, mode)).map_err(ended)
    }

    /// An empty block.
    pub(super) fn block(&self) -> Result<Vec<u8>, Refusal> {
        let mut block = self.spare.recv().map_err(ended)?;
        block.resize(BLOCK_BYTES, 0);
        Ok(block)
    }

    /// So much of that block belongs to the last file.
    pub(super) fn bytes(&self, block: Vec<u8>, count: usize) -> Result<(), Refusal> {
        self.orders.send(Order::Bytes(block, count)).map_err(ended)
    }
}

/// Does `work`, which says what is to be written, while a thread writes it.
///
/// # Errors
/// What the disk said, or else `work`.
pub(super) fn write_behind(disk: &dyn Disk, work: impl FnOnce(&Writing) -> Result<(), Refusal>) -> Result<(), Refusal> {
    scope(|scope| {
        let (orders, ordered) = sync_channel(ORDERS);
        let (spent, spare) = channel();
        for _ in 0..BLOCKS {
            spent.send(Vec::new()).ok();
        }
        let writing = spawn(scope, "write", move || write(disk, &ordered, &spent)).map_err(|error| io_refusal(&error))?;
        let order = Writing { orders, spare };
        let worked = work(&order);
        drop(order);
        joined(writing).flatten().map_err(|error| io_refusal(&error))?;
        worked
    })
}

fn write(disk: &dyn Disk, orders: &Receiver<Order>, spent: &Sender<Vec<u8>>) -> io::Result<()> {
    let mut open: Option<Box<dyn NewFile>> = None;
    for order in orders {
        match order {
            Order::Folder(path, mode) => disk.make_dir(&path, mode)?,
            Order::File(path, mode) => {
                if let Some(mut written) = open.replace(disk.create(&path, mode)?) {
                    written.begin_to_write_out();
                }
            }
            Order::Bytes(block, count) => {
                let Some(file) = &mut open else { return Err(io::Error::other("bytes of no file")) };
                file.write_all(&block[..count])?;
                spent.send(block).ok();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex_of(bytes: &[u8]) -> String {
        hex::encode(digest::digest(&digest::SHA256, bytes))
    }

    #[test]
    fn a_copy_is_the_same_and_hashed_whole_and_behind_its_header_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let header = 70_000_u32;
        for behind in [0_usize, 1, 61_060, 61_061, BLOCK_BYTES, 3 * BLOCK_BYTES + 5, 20 * BLOCK_BYTES] {
            let mut bytes = [b"MPATCH01".as_slice(), &header.to_be_bytes()].concat();
            bytes.extend((0..header as usize + behind).map(|at| (at * 31 % 251) as u8));
            std::fs::write(dir.path().join("from"), &bytes).unwrap();
            let from = File::open(dir.path().join("from")).unwrap();
            let to = File::create(dir.path().join("to")).unwrap();
            let hashes = copy(&from, &to, bytes.len() as u64).unwrap();
            assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), bytes);
            assert_eq!(hashes.file_sha256, hex_of(&bytes));
            assert_eq!(hashes.payload_sha256, hex_of(&bytes[12 + header as usize..]), "{behind}");
        }
    }

    #[test]
    fn all_that_is_read_is_hashed_though_the_work_stops_early_and_an_error_is_not_lost() {
        let bytes: Vec<u8> = (0..10 * BLOCK_BYTES + 7).map(|at| (at % 253) as u8).collect();
        let hash = read_ahead(&mut bytes.as_slice(), |ahead| {
            let mut begin = [0; 10];
            ahead.read_exact(&mut begin).unwrap();
            assert_eq!(begin, bytes[..10]);
            Ok(())
        });
        assert_eq!(hash, Ok(hex_of(&bytes)));
        let mut torn = bytes.as_slice().chain(Torn);
        let end = read_ahead(&mut torn, |ahead| match io::copy(ahead, &mut io::sink()) {
            Err(error) => Err(io_refusal(&error)),
            Ok(_) => Ok(()),
        });
        assert_eq!(end, Err(Refusal::Io("torn".into())));
        let stopped = read_ahead(&mut bytes.as_slice(), |_| Err(Refusal::Withdrawn));
        assert_eq!(stopped, Err(Refusal::Withdrawn), "the thread that reads ends too");
    }

    struct Torn;

    impl Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("torn"))
        }
    }
}
