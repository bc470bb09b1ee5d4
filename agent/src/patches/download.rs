//! Fetches one offer's file into `patches/<offer>.mpatch`: from where it stopped, within the bandwidth allowed, no byte more than offered.
//!
//! A thread of its own writes while the download lasts. What is on the disk for certain is told at every sixteenth of the file; after a
//! restart only that is built upon. The whole is compared with the offer's hash; a file that differs is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_shared::api::PATH_REPOSITORY;
use mainstay_shared::time_source::TimeSource;
use ring::digest;
use tokio::sync::{mpsc, watch};

use super::state::Held;
use crate::probes::aside::Aside;
use crate::uplink::{Body, Outcome, Uplink};

/// At least so much is written between two syncs.
const SYNC_EVERY_BYTES: u64 = 1 << 20;
/// Pieces (of at most 16 KiB) that wait to be written.
const PIECES: usize = 8;
/// Longer than any download: a thread that hangs is found by the pieces that it does not take.
const WRITING: Duration = Duration::from_secs(7 * 86_400);
const DISK: Duration = Duration::from_secs(120);
const BUFFER_BYTES: usize = 64 << 10;

/// How a fetch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is here and it is what was offered.
    Complete,
    /// The line or the collector: what came stays.
    Cut {
        /// How long the collector asked to wait.
        after: Option<Duration>,
        /// For the log.
        why: String,
    },
    /// What came is not what was offered; it was dropped.
    Wrong(String),
    /// The disk refuses.
    Disk(String),
}

/// One fetch.
pub(crate) struct Download<'a> {
    /// The way to the collector.
    pub(crate) uplink: &'a Uplink,
    /// For what may hang.
    pub(crate) aside: &'a Aside,
    /// Monotonic time.
    pub(crate) time: &'a TimeSource,
    /// Where it is written.
    pub(crate) path: PathBuf,
    /// 0: no limit.
    pub(crate) max_kib_per_s: u32,
    /// Told what is on the disk for certain.
    pub(crate) points: watch::Sender<Point>,
}

/// What a partial file may be built upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// So much is on the disk for certain.
    pub(crate) durable_bytes: u64,
    /// Of the content with this tag.
    pub(crate) tag: Option<String>,
}

impl Download<'_> {
    /// Fetches what is missing; `held` is changed to what is now so, `show` is told the bytes that are here.
    pub(crate) async fn run(&self, held: &mut Held, show: &mut dyn FnMut(u64)) -> Ended {
        if held.durable_bytes < held.offer.bytes {
            let asked = self.uplink.fetch(&path_of(held), held.durable_bytes, held.tag.as_deref()).await;
            let body = match asked {
                Outcome::Sent(body) => body,
                Outcome::RetryAfter { after, why } => return Ended::Cut { after, why },
                Outcome::Refused { message, .. } => return Ended::Wrong(message),
                Outcome::NotEnrolled { message } | Outcome::Stale { message } => {
                    return Ended::Cut { after: Some(Duration::from_secs(300)), why: message };
                }
            };
            if let Some(ended) = self.receive(body, held, show).await {
                return ended;
            }
        }
        self.compare(held).await
    }

    /// None once all bytes are here.
    async fn receive(&self, body: Body, held: &mut Held, show: &mut dyn FnMut(u64)) -> Option<Ended> {
        let from = body.from;
        if from != 0 && from != held.durable_bytes {
            return Some(Ended::Wrong(format!("the answer begins at {from}, not at {}", held.durable_bytes)));
        }
        held.durable_bytes = from;
        held.tag.clone_from(&body.tag);
        self.points.send_replace(Point { durable_bytes: from, tag: body.tag.clone() });
        let (pieces, taken) = mpsc::channel(PIECES);
        let (path, points, sync_every) = (self.path.clone(), self.points.clone(), (held.offer.bytes / 16).max(SYNC_EVERY_BYTES));
        let writing = self.aside.run("a patch file", WRITING, move || write(&path, from, taken, sync_every, &points));
        let reading = self.read(body, pieces, (from, held.offer.bytes), &mut held.received_bytes, show);
        let (written, cut) = tokio::join!(writing, reading);
        held.durable_bytes = self.points.borrow().durable_bytes;
        match written {
            Err(error) => return Some(Ended::Disk(error.to_string())),
            Ok(Err(error)) => return Some(Ended::Disk(error.to_string())),
            Ok(Ok(())) => {}
        }
        match cut {
            Some(ended) => Some(ended),
            None if held.durable_bytes == held.offer.bytes => None,
            None => Some(Ended::Cut { after: None, why: "the answer ended too early".to_owned() }),
        }
    }

    async fn read(
        &self,
        mut body: Body,
        pieces: mpsc::Sender<Vec<u8>>,
        (from, bytes): (u64, u64),
        received: &mut u64,
        show: &mut dyn FnMut(u64),
    ) -> Option<Ended> {
        let (began, mut at) = (self.time.monotonic(), from);
        loop {
            let piece = match body.piece().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return None,
                Err(why) => return Some(Ended::Cut { after: None, why }),
            };
            let length = piece.as_ref().len() as u64;
            if at + length > bytes {
                return Some(Ended::Wrong(format!("more than the {bytes} bytes that were offered")));
            }
            if pieces.send(piece.as_ref().to_vec()).await.is_err() {
                // The writer says why.
                return None;
            }
            at += length;
            *received += length;
            show(at);
            self.keep_to_bandwidth(at - from, began).await;
        }
    }

    async fn keep_to_bandwidth(&self, sent_bytes: u64, began: Duration) {
        let took = self.time.monotonic().saturating_sub(began);
        let ahead = ahead_of_bandwidth(self.max_kib_per_s, sent_bytes, took);
        if !ahead.is_zero() {
            tokio::time::sleep(ahead).await;
        }
    }

    async fn compare(&self, held: &mut Held) -> Ended {
        let path = self.path.clone();
        let hashed = self.aside.run("a patch file", WRITING, move || sha256_of(&path)).await;
        match hashed {
            Ok(Ok(hash)) if hash == held.offer.sha256 => Ended::Complete,
            Ok(Ok(_)) => Ended::Wrong("its hash is not the offer's".to_owned()),
            Ok(Err(error)) => Ended::Disk(error.to_string()),
            Err(error) => Ended::Disk(error.to_string()),
        }
    }

    /// Drops what came: it can't be built upon.
    pub(crate) async fn drop_partial(&self, held: &mut Held) {
        (held.durable_bytes, held.tag) = (0, None);
        let path = self.path.clone();
        let removed = self.aside.run("a patch file", DISK, move || std::fs::remove_file(path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a partial file stays");
        }
    }
}

fn path_of(held: &Held) -> String {
    format!("{PATH_REPOSITORY}files/{}", held.offer.file)
}

/// Writes pieces from `from` on until there are no more; all is synced at the end.
fn write(
    path: &Path,
    from: u64,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    sync_every: u64,
    points: &watch::Sender<Point>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_len(from)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut at, mut synced) = (from, from);
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
        at += piece.len() as u64;
        if at - synced >= sync_every {
            file.sync_data()?;
            synced = at;
            points.send_modify(|point| point.durable_bytes = synced);
        }
    }
    file.sync_all()?;
    points.send_modify(|point| point.durable_bytes = at);
    Ok(())
}

/// How long to wait after `sent_bytes` in `took`, so that the line gives no more than `max_kib_per_s`; 0: no limit.
pub(crate) fn ahead_of_bandwidth(max_kib_per_s: u32, sent_bytes: u64, took: Duration) -> Duration {
    if max_kib_per_s == 0 {
        return Duration::ZERO;
    }
    let due_ms = sent_bytes.saturating_mul(1000) / (u64::from(max_kib_per_s) << 10);
    let ahead = Duration::from_millis(due_ms).saturating_sub(took);
    if ahead > Duration::from_millis(20) { ahead } else { Duration::ZERO }
}

/// The SHA-256 of a file, hex.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut context) = (File::open(path)?, digest::Context::new(&digest::SHA256));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            count => context.update(&buffer[..count]),
        }
    }
}

/// Free for this user on the disk of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
