//! The story of watching: probe and check, judge, spool; publish what is so now; fold samples.
//!
//! Measuring and asking run as tasks of their own and hand in what they found; this loop alone judges and spools, so that
//! changes are told in order. In safe mode the machine is not measured, services still are asked. A change that the spool did
//! not take is proposed again at the next observation. It must never block on the kernel: what can, runs aside.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mainstay_shared::check::ServiceState;
use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::record::Payload;
use mainstay_shared::time_source::TimeSource;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::checks::{Checker, ServiceRound, keep_asking};
use crate::config::Config;
use crate::faults::{Detector, Moment, Refusals};
use crate::pause::Pause;
use crate::probes::aside::Workers;
use crate::probes::{ClockReference, Fold, Place, Reading, Sampler, current_values};
use crate::spool::Spool;

/// Samples of so long become one record.
const FOLD_SPAN: Duration = Duration::from_secs(300);
/// First checks of all services are spread over so long.
const SPREAD: Duration = Duration::from_secs(5);
/// How long the last samples may take to be spooled when the agent stops.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// What is so now, for the heartbeat.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Current {
    /// The last round of measuring.
    pub readings: Vec<Reading>,
    /// States of the declared services, as far as they were asked.
    pub services: BTreeMap<String, ServiceState>,
}

impl Current {
    /// Values by metric name, no more than the heartbeat may hold.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, f64> {
        current_values(&self.readings)
    }
}

/// What watching needs.
pub struct Watch {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Where changes and samples go.
    pub spool: Spool,
    /// The machine's clocks.
    pub time: TimeSource,
    /// Threads for what may hang.
    pub workers: Workers,
    /// Where the current values are published.
    pub current: watch::Sender<Current>,
    /// "Report now": measures and asks at once, and spools the samples so far.
    pub nudge: Arc<Notify>,
    /// The collector's clock, told by whoever hears from it.
    pub clock: ClockReference,
    /// After a crash loop: services only.
    pub safe_mode: bool,
}

/// Watches until `stop` comes true.
///
/// # Errors
/// A task of it crashed; the process must end with a failure.
pub(crate) async fn run(watch: Watch, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (nudges, nudged) = tokio::sync::watch::channel(0u64);
    let (news_sender, mut news) = mpsc::channel(64);
    let (round_sender, mut rounds) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    let sampler = (!watch.safe_mode).then(|| {
        let place = Place::here(watch.time.clone());
        Sampler::new(watch.config.probes.clone(), watch.clock.clone(), place, watch.workers.clone())
    });
    let interval = watch.config.probes.interval;
    tasks.spawn(keep_measuring(sampler, watch.time.clone(), interval, news_sender.clone(), nudged.clone()));
    start_asking(&watch, &mut tasks, &round_sender, &nudged);
    let mut story = Story::begin(watch);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = story.watch.nudge.notified() => {
                nudges.send_modify(|count| *count += 1);
                story.spool_samples().await;
            }
            Some(readings) = news.recv() => {
                if let Some(readings) = readings {
                    story.measured(readings).await;
                }
                story.catch_up().await;
            }
            Some(round) = rounds.recv() => story.asked(round).await,
            Some(ended) = tasks.join_next() => {
                ended.context("a task that watches the machine crashed")?;
                anyhow::bail!("a task that watches the machine ended");
            }
        }
    }
    tasks.shutdown().await;
    if tokio::time::timeout(LAST_PUSH, story.spool_samples()).await.is_err() {
        tracing::warn!("the last samples could not be spooled in time");
    }
    Ok(())
}

fn start_asking(
    watch: &Watch,
    tasks: &mut JoinSet<()>,
    rounds: &mpsc::Sender<ServiceRound>,
    nudged: &tokio::sync::watch::Receiver<u64>,
) {
    let checker = Arc::new(Checker::here(watch.time.clone(), watch.clock.clone(), watch.workers.clone()));
    let services = &watch.config.services;
    let step = SPREAD / u32::try_from(services.len().max(1)).unwrap_or(u32::MAX);
    let mut delay = Duration::ZERO;
    for service in services {
        tasks.spawn(keep_asking(Arc::clone(&checker), service.clone(), delay, rounds.clone(), nudged.clone()));
        delay += step;
    }
}

/// The beat of the watching loop: measures now and at every interval; in safe mode there is no sampler, and the beat is empty.
async fn keep_measuring(
    mut sampler: Option<Sampler>,
    time: TimeSource,
    interval: Duration,
    news: mpsc::Sender<Option<Vec<Reading>>>,
    mut nudged: tokio::sync::watch::Receiver<u64>,
) {
    let pause = Pause::new();
    loop {
        let began = time.monotonic();
        let readings = match &mut sampler {
            Some(sampler) => Some(sampler.round().await),
            None => None,
        };
        if news.send(readings).await.is_err() {
            return;
        }
        let took = time.monotonic().saturating_sub(began);
        tokio::select! {
            () = pause.wait(interval.saturating_sub(took)) => {}
            changed = nudged.changed() => if changed.is_err() { return },
        }
    }
}

/// What the loop knows.
pub struct Story {
    watch: Watch,
    detector: Detector,
    fold: Fold,
    fold_began: Duration,
    /// Rounds whose changes the spool did not take.
    untold: BTreeMap<String, ServiceRound>,
    refusals: Refusals,
}

impl Story {
    /// Goes on with the episodes that the spool holds open.
    #[must_use]
    pub fn begin(watch: Watch) -> Self {
        let open = watch.spool.open_episodes().into_iter().map(|open| (open.episode, open.last));
        let detector = Detector::new(&watch.config, open, watch.safe_mode);
        let fold_began = watch.time.monotonic();
        Self { watch, detector, fold: Fold::default(), fold_began, untold: BTreeMap::new(), refusals: Refusals::default() }
    }

    fn now(&self) -> Moment {
        Moment { at: self.watch.time.now(), mono: self.watch.time.monotonic() }
    }

    /// A round of readings.
    pub async fn measured(&mut self, readings: Vec<Reading>) {
        let now = self.now();
        self.fold.add(now.at, &readings);
        let changes = self.detector.observe_readings(now, &readings);
        self.watch.current.send_modify(|current| current.readings = readings);
        self.tell(changes).await;
        if now.mono.saturating_sub(self.fold_began) >= FOLD_SPAN {
            self.spool_samples().await;
        }
    }

    /// A round of a service's checks.
    pub async fn asked(&mut self, round: ServiceRound) {
        self.watch.current.send_modify(|current| {
            current.services.insert(round.service.clone(), round.state);
        });
        let changes = self.detector.observe_round(self.now(), &round);
        if self.tell(changes).await {
            self.untold.remove(&round.service);
        } else {
            self.untold.insert(round.service.clone(), round);
        }
    }

    /// What could not be told when it was found, and what was left open by earlier runs.
    pub async fn catch_up(&mut self) {
        for round in std::mem::take(&mut self.untold).into_values() {
            self.asked(round).await;
        }
        let changes = self.detector.observe_orphans(self.now());
        self.tell(changes).await;
        if let Some(raised) = self.refusals.look(self.now()) {
            self.tell_of_refusals(raised).await;
        }
    }

    /// Raised and cleared at once: while it was so, it could not be written down.
    async fn tell_of_refusals(&mut self, raised: FaultChange) {
        let episode = match self.watch.spool.push(Payload::Fault(raised.clone())).await {
            Ok(episode) => episode,
            Err(error) => {
                tracing::error!("the disk still refuses: {:#}", anyhow::Error::new(error));
                self.refusals.refused(self.now());
                return;
            }
        };
        tracing::warn!(record = %episode, "{}", raised.summary);
        self.refusals.told();
        let cleared = FaultChange { kind: FaultChangeKind::Cleared, episode: Some(episode), ..raised };
        if let Err(error) = self.watch.spool.push(Payload::Fault(cleared)).await {
            // It is found open, and cleared, at the next start.
            tracing::error!("the end of the disk's bad time could not be spooled: {:#}", anyhow::Error::new(error));
            self.refusals.refused(self.now());
        }
    }

    /// Spools the changes in order up to the first that is not taken; whether all were.
    async fn tell(&mut self, changes: Vec<FaultChange>) -> bool {
        for (at, change) in changes.iter().enumerate() {
            let (component, code, kind) = (&change.key.component, &change.key.code, change.kind.as_str());
            match self.watch.spool.push(Payload::Fault(change.clone())).await {
                Ok(id) => {
                    tracing::info!(component, code, kind, record = %id, "{}", change.summary);
                    self.refusals.accepted(change);
                    self.detector.confirm(self.now(), change, id);
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(error, component, code, kind, "a fault could not be spooled; it is tried again");
                    let now = self.now();
                    changes[at..].iter().for_each(|untold| self.refusals.refused_change(now, untold));
                    return false;
                }
            }
        }
        true
    }

    /// The samples so far become a record.
    pub async fn spool_samples(&mut self) {
        self.fold_began = self.watch.time.monotonic();
        let Some(samples) = self.fold.samples(self.watch.time.now()) else { return };
        match self.watch.spool.push(Payload::Samples(samples)).await {
            Ok(_) => self.fold.begin_anew(),
            Err(error) => {
                if error.stops_recording() {
                    self.refusals.refused(self.now());
                }
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "the samples could not be spooled; they become part of the next record");
            }
        }
    }
}

#[cfg(test)]
mod tests;
