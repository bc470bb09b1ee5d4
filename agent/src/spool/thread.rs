//! The spool's handle and its own thread: fsync may hang for minutes on a dying disk, and the agent's loop must not.
//!
//! Commands go to the thread in order; answers come back when the disk has said yes. How long the present command has been
//! under way is kept beside, so that a hanging disk shows in `status`.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::ids::{CollectorEpoch, Epoch, Nonce, RecordId};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SecureRandom;
use tokio::sync::{Notify, oneshot};

use super::state::PastStart;
use super::store::Store;
use super::{Limits, OpenEpisode, SpoolError, Stats};

type Answer<T> = oneshot::Sender<Result<T, SpoolError>>;

enum Command {
    Push(Box<Payload>, Answer<RecordId>),
    NextBatch(usize, usize, Answer<Vec<Record>>),
    Ack(Vec<RecordId>, Option<Nonce>, Option<CollectorEpoch>, Answer<()>),
    SetAside(RecordId, String, Answer<()>),
}

/// What the spool remembered of earlier runs.
#[derive(Debug, Clone)]
pub struct OpenedState {
    /// The last starts, oldest first.
    pub starts: Vec<PastStart>,
}

/// What others may see without asking the thread.
#[derive(Debug, Clone, Default)]
struct Seen {
    open: Vec<OpenEpisode>,
    stats: Stats,
    nonce: Option<Nonce>,
    collector_epoch: Option<CollectorEpoch>,
    /// Monotonic time at which the present command began.
    busy_since: Option<Duration>,
    last_error: Option<String>,
    /// Monotonic time since which nothing that was to be written was.
    refusing_since: Option<Duration>,
}

/// A handle to the open spool.
#[derive(Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    seen: Arc<Mutex<Seen>>,
    pushed: Arc<Notify>,
    epoch: Epoch,
    time: TimeSource,
    began: Duration,
}

impl Spool {
    /// Opens the spool in `dir`, alone, and begins a new epoch. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when another agent has it, [`SpoolError::Io`] when the disk refuses. Damage is no error.
    pub fn open(dir: &Path, limits: Limits, rng: &dyn SecureRandom, time: TimeSource) -> Result<(Self, OpenedState), SpoolError> {
        let began = time.monotonic();
        let store = Store::open(dir, limits, rng, time.clone())?;
        let opened = OpenedState { starts: store.state.starts.iter().cloned().collect() };
        let (commands, received) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let spool = Self { commands, seen, pushed: Arc::default(), epoch: store.epoch().clone(), time: time.clone(), began };
        publish(&spool.seen, &store);
        let (seen, pushed) = (Arc::clone(&spool.seen), Arc::clone(&spool.pushed));
        std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || serve(store, &received, &seen, &pushed, &time))
            .map_err(|source| SpoolError::Io { path: dir.to_owned(), source })?;
        Ok((spool, opened))
    }

    /// Accepts a record: on return it is synced to the disk and will be delivered or accounted for.
    ///
    /// # Errors
    /// The record was not accepted; the error says why.
    pub async fn push(&self, payload: Payload) -> Result<RecordId, SpoolError> {
        self.ask(|answer| Command::Push(Box::new(payload), answer)).await
    }

    /// The records to send next, faults first; at most `max_records` and about `max_bytes` of JSON.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn next_batch(&self, max_records: usize, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        self.ask(|answer| Command::NextBatch(max_records, max_bytes, answer)).await
    }

    /// Takes an acknowledgement; durable on return, so that the nonce may be echoed.
    ///
    /// # Errors
    /// When the disk refuses; then the nonce must not be echoed.
    pub async fn ack(
        &self,
        acks: Vec<RecordId>,
        nonce: Option<Nonce>,
        collector_epoch: Option<CollectorEpoch>,
    ) -> Result<(), SpoolError> {
        self.ask(|answer| Command::Ack(acks, nonce, collector_epoch, answer)).await
    }

    /// Takes a record that the collector can't read out of the queue; a copy stays in the quarantine.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn set_aside(&self, id: RecordId, why: &str) -> Result<(), SpoolError> {
        let why = why.to_owned();
        self.ask(|answer| Command::SetAside(id, why, answer)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, SpoolError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| SpoolError::Stopped)?;
        answered.await.map_err(|_| SpoolError::Stopped)?
    }

    /// The faults that are open now, by what was accepted.
    pub fn open_episodes(&self) -> Vec<OpenEpisode> {
        self.look(|seen| seen.open.clone())
    }

    /// What waits and what was lost.
    pub fn stats(&self) -> Stats {
        self.look(|seen| seen.stats)
    }

    /// The newest nonce held durably.
    pub fn nonce(&self) -> Option<Nonce> {
        self.look(|seen| seen.nonce.clone())
    }

    /// The life of the collector's database that acknowledged last.
    pub fn collector_epoch(&self) -> Option<CollectorEpoch> {
        self.look(|seen| seen.collector_epoch.clone())
    }

    /// How long the present disk operation has been under way, if one is.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        self.look(|seen| seen.busy_since).map(|since| self.time.monotonic().saturating_sub(since))
    }

    /// For how long nothing could be written, if the last try failed: the disk refuses, or the fault lane is full.
    pub fn refusing_for(&self) -> Option<Duration> {
        self.look(|seen| seen.refusing_since).map(|since| self.time.monotonic().saturating_sub(since))
    }

    /// The last refusal of the disk, until something is written.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.look(|seen| seen.last_error.clone())
    }

    /// This run's epoch.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Milliseconds since this run's epoch began.
    pub fn mono_ms(&self) -> u64 {
        u64::try_from(self.time.monotonic().saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Resolves when a record was accepted (at least once since it was last awaited).
    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    fn look<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut store: Store, commands: &mpsc::Receiver<Command>, seen: &Mutex<Seen>, pushed: &Notify, time: &TimeSource) {
    while let Ok(command) = commands.recv() {
        let now = time.monotonic();
        seen.lock().unwrap_or_else(PoisonError::into_inner).busy_since = Some(now);
        match command {
            Command::Push(payload, answer) => {
                let done = store.push(*payload);
                let accepted = done.is_ok();
                reply(seen, &store, (answer, done), now, true);
                if accepted {
                    pushed.notify_one();
                }
            }
            Command::NextBatch(records, bytes, answer) => {
                let done = store.next_batch(records, bytes);
                reply(seen, &store, (answer, done), now, false);
            }
            Command::Ack(acks, nonce, epoch, answer) => {
                let done = store.ack(acks, nonce, epoch);
                reply(seen, &store, (answer, done), now, true);
            }
            Command::SetAside(id, why, answer) => {
                let done = store.set_aside(id, &why);
                reply(seen, &store, (answer, done), now, false);
            }
        }
    }
}

/// Publishes the new state before the asker hears of it, so that it finds its own record there. `wrote`: success means that
/// the disk has taken something.
fn reply<T>(seen: &Mutex<Seen>, store: &Store, to: (Answer<T>, Result<T, SpoolError>), now: Duration, wrote: bool) {
    let (answer, done) = to;
    publish(seen, store);
    let mut known = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match &done {
        Err(error) => {
            let text = std::error::Error::source(error).map_or(error.to_string(), |source| format!("{error}: {source}"));
            known.last_error = Some(text);
            if error.stops_recording() {
                known.refusing_since = known.refusing_since.or(Some(now));
            }
        }
        Ok(_) if wrote => (known.last_error, known.refusing_since) = (None, None),
        Ok(_) => {}
    }
    drop(known);
    // The asker may have given up waiting; what was done stays done.
    drop(answer.send(done));
}

fn publish(seen: &Mutex<Seen>, store: &Store) {
    let state = &store.state;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.open.clone_from(&state.open);
    seen.stats = store.stats();
    seen.nonce.clone_from(&state.nonce);
    seen.collector_epoch.clone_from(&state.collector_epoch);
    seen.busy_since = None;
}
