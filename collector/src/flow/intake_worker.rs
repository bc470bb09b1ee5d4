//! Group commit: the messages of a node queue up, one worker takes what waits and commits it in one transaction, then each is
//! answered. A message that makes its batch fail is found by trying each alone: it harms none but itself.
//!
//! Reports of one appliance keep their order. Nothing is answered before the commit (R28).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::ids::CollectorEpoch;
use mainstay_shared::time_source::UnixMs;
use tokio::sync::{mpsc, oneshot};

use super::World;
use super::batch::{Answer, Message, Said, take_batch};
use super::report_arrives::Outcome;
use crate::appliances::clone::StaleReason;
use crate::appliances::links::LinkKey;
use crate::appliances::{Identity, links};
use crate::db::{Turn, transact};
use crate::intake::counts::Counts;

/// Messages that may wait for the worker; more are told to come later.
const QUEUE: usize = 4096;
/// Messages committed together.
const BATCH: usize = 256;

/// Ended epochs that speak are counted this long after the last.
const LATELY: Duration = Duration::from_secs(3600);

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// Too many wait already, or the collector stops.
    #[error("intake is full or stopping")]
    Busy,
    /// The database could not commit it now.
    #[error("intake could not commit it")]
    Failed,
    /// The database refuses what it says, alone and at every try: the agent is to find the record and set it aside.
    #[error("intake can never commit it")]
    Poison,
}

/// The way to the worker; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Job>,
    pub(crate) counts: Counts,
    /// Which life of the database this is.
    pub(crate) collector_epoch: CollectorEpoch,
}

#[derive(Debug)]
struct Job {
    said: Said,
    answer: oneshot::Sender<Result<Answer, NotTaken>>,
}

/// The worker's end.
pub(crate) struct Worker {
    world: World,
    queue: mpsc::Receiver<Job>,
    counts: Counts,
    ended_epochs: EndedEpochs,
}

/// How often, and when last, an ended epoch of an appliance spoke to this node; a restart of the collector forgets it.
#[derive(Debug, Default)]
struct EndedEpochs(HashMap<LinkKey, (u32, Duration)>);

impl EndedEpochs {
    fn lately(&self) -> HashMap<LinkKey, u32> {
        self.0.iter().map(|(key, (count, _))| (key.clone(), *count)).collect()
    }

    fn note(&mut self, key: LinkKey, now: Duration) {
        let entry = self.0.entry(key).or_default();
        *entry = (entry.0.saturating_add(1), now);
    }

    fn forget_old(&mut self, now: Duration) {
        self.0.retain(|_, (_, last)| now.saturating_sub(*last) < LATELY);
    }
}

/// Makes the way to intake and its worker.
///
/// # Errors
/// If the database was never initialised.
pub(crate) async fn open(world: &World) -> anyhow::Result<(Intake, Worker)> {
    let mut conn = world.db.read().await?;
    let epoch: Option<String> = sqlx::query_scalar("SELECT epoch FROM collector").fetch_optional(&mut *conn).await?;
    let epoch = epoch.context("the database was never initialised: run `mainstay-collector init` first")?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counts = Counts::default();
    let intake = Intake { queue: sender, counts: counts.clone(), collector_epoch: epoch.parse()? };
    Ok((intake, Worker { world: world.clone(), queue: receiver, counts, ended_epochs: EndedEpochs::default() }))
}

impl Intake {
    /// Hands a message over and waits until it is committed.
    ///
    /// # Errors
    /// [`NotTaken`]: the agent keeps it and comes again.
    pub(crate) async fn take(&self, who: Identity, received_at: UnixMs, message: Message) -> Result<Answer, NotTaken> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { said: Said { who, received_at, message }, answer }).map_err(|_| NotTaken::Busy)?;
        answered.await.map_err(|_| NotTaken::Busy)?
    }
}

impl Worker {
    /// Works until every sender is gone.
    ///
    /// # Errors
    /// Never; a batch that fails is answered so.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.counts.busy_since_ms.store(u64::MAX, Ordering::Relaxed);
            if self.queue.recv_many(&mut batch, BATCH).await == 0 {
                return Ok(());
            }
            self.counts.busy_since_ms.store(self.monotonic_ms(), Ordering::Relaxed);
            self.work(std::mem::take(&mut batch)).await;
        }
    }

    async fn work(&mut self, batch: Vec<Job>) {
        let begun = self.world.time.monotonic();
        self.ended_epochs.forget_old(begun);
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.counts.batch_size.observe(batch.len() as f64);
        match commit(&self.world, &self.ended_epochs, &batch).await {
            Ok(answers) => batch.into_iter().zip(answers).for_each(|(job, answer)| self.answer(job, Ok(answer))),
            Err(error) if batch.len() == 1 || is_the_moment(&error) => self.refuse(batch, &error),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), count = batch.len(), "a batch failed: trying each message alone");
                for job in batch {
                    let alone = vec![job];
                    match commit(&self.world, &self.ended_epochs, &alone).await {
                        Ok(answers) => alone.into_iter().zip(answers).for_each(|(job, answer)| self.answer(job, Ok(answer))),
                        Err(error) => self.refuse(alone, &error),
                    }
                }
            }
        }
        self.counts.batch_seconds.observe((self.world.time.monotonic().saturating_sub(begun)).as_secs_f64());
    }

    fn refuse(&mut self, batch: Vec<Job>, error: &anyhow::Error) {
        for job in batch {
            tracing::error!(appliance = %job.said.who.appliance_id, error = %format!("{error:#}"), "a message could not be taken");
            self.counts.refused.get_or_create(&[("why", "failed")]).inc();
            self.answer(job, Err(if is_poison(error) { NotTaken::Poison } else { NotTaken::Failed }));
        }
    }

    fn answer(&mut self, job: Job, answer: Result<Answer, NotTaken>) {
        if let Ok(answer) = &answer {
            self.count(answer);
            let ended = match answer {
                Answer::Report(Outcome::Stale(StaleReason::Epoch), _) => true,
                Answer::Report(Outcome::Taken(taken), _) => taken.ended_epoch,
                _ => false,
            };
            if ended {
                self.ended_epochs.note(links::key(&job.said.who), self.world.time.monotonic());
            }
        }
        if job.answer.send(answer).is_err() {
            tracing::debug!(appliance = %job.said.who.appliance_id, "the agent did not wait for its answer; it will ask again");
        }
    }

    fn count(&self, answer: &Answer) {
        let counts = &self.counts;
        match answer {
            Answer::Report(Outcome::Taken(taken), _) => {
                counts.messages.get_or_create(&[("kind", "report")]).inc();
                for (index, lane) in ["fault", "sample"].into_iter().enumerate() {
                    counts.records.get_or_create(&[("lane", lane)]).inc_by(taken.new_records[index]);
                    counts.lost.get_or_create(&[("lane", lane)]).inc_by(taken.lost[index]);
                }
                counts.replays.inc_by(taken.replays);
                counts.refused.get_or_create(&[("why", "record")]).inc_by(taken.refused.len() as u64);
                counts.holds.inc_by(u64::from(taken.newly_held));
            }
            Answer::Report(Outcome::Stale(_), _) => drop(counts.refused.get_or_create(&[("why", "stale")]).inc()),
            Answer::Heartbeat(_) => drop(counts.messages.get_or_create(&[("kind", "poll")]).inc()),
            Answer::Report(Outcome::Gone, _) | Answer::Gone => {}
        }
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.world.time.monotonic().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// Whether the database failed, whatever it was asked: trying each message alone would only make all of them wait.
fn is_the_moment(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<sqlx::Error>()) && !is_poison(error)
}

/// Whether the values themselves were refused (a broken constraint, SQLSTATE class 22), rather than the moment.
fn is_poison(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|cause| match cause {
        sqlx::Error::Database(refused) => {
            !matches!(refused.kind(), sqlx::error::ErrorKind::Other)
                || refused.code().is_some_and(|code| code.len() == 5 && code.starts_with("22"))
        }
        _ => false,
    })
}

async fn commit(world: &World, ended_epochs: &EndedEpochs, batch: &[Job]) -> anyhow::Result<Vec<Answer>> {
    let ended_epochs = ended_epochs.lately();
    let batch: Vec<&Said> = batch.iter().map(|job| &job.said).collect();
    let (answers, changed) = transact!(world.db, Turn::Intake, |tx| { take_batch(tx, world, &ended_epochs, &batch).await });
    if changed {
        world.look_now.notify_one();
    }
    Ok(answers)
}
