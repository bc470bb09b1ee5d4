//! The life of the process: named tasks, soft stop (SIGTERM, SIGINT), drain, hard stop after a grace, and what systemd is told.
//!
//! The one place that spawns. A task that crashes, fails or ends before its time stops the process with a failure: it never
//! limps on. Background stories run on a period and when nudged, never twice at once; the next period is the retry.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

/// How the process is doing, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// Nothing new is begun; what is begun ends.
    Draining,
    /// The grace is over.
    Halting,
}

/// What every task holds to learn that it shall stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<Phase>);

impl Stop {
    /// Whether the soft stop has come.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Waits for the soft stop: begin nothing new, end what is begun.
    pub(crate) async fn stopping(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for the hard stop: drop what is left.
    pub(crate) async fn halting(&self) {
        self.reached(Phase::Halting).await;
    }

    async fn reached(&self, phase: Phase) {
        // A sender that is gone means that the process is past its end: stop as well.
        drop(self.0.clone().wait_for(|now| *now >= phase).await);
    }
}

/// How a task ended.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    outcome: anyhow::Result<()>,
}

/// The one object; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    ended: mpsc::UnboundedSender<Ended>,
    running: watch::Sender<usize>,
}

/// The end of a [`Lifecycle`] that waits: there is one.
#[derive(Debug)]
pub(crate) struct Waiting {
    lifecycle: Lifecycle,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Lifecycle {
    /// A life that has begun, and the end that waits for it.
    pub(crate) fn begin() -> (Self, Waiting) {
        let (ended, ended_receiver) = mpsc::unbounded_channel();
        let lifecycle = Self { phase: Arc::new(watch::Sender::new(Phase::Running)), ended, running: watch::Sender::new(0) };
        (lifecycle.clone(), Waiting { lifecycle, ended: ended_receiver })
    }

    /// What a task holds to learn that it shall stop.
    pub(crate) fn stop(&self) -> Stop {
        Stop(self.phase.subscribe())
    }

    /// Asks for the soft stop, as SIGTERM does.
    #[cfg(test)]
    pub(crate) fn ask_to_stop(&self) {
        self.raise(Phase::Draining);
    }

    /// Starts a task that stays until the soft stop: a listener, a story. Its early end is a failure of the process.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.start(name, task);
    }

    /// Runs `story` every `period` and when nudged, one at a time; what fails is logged and tried at the next turn.
    pub(crate) fn periodic<F, R>(&self, name: &'static str, period: Duration, nudge: Arc<Notify>, story: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<()>> + Send,
    {
        let stop = self.stop();
        self.spawn(name, async move {
            while !stop.is_stopping() {
                if let Err(error) = story().await {
                    tracing::warn!(story = name, error = %format!("{error:#}"), "failed; the next turn tries again");
                }
                tokio::select! {
                    () = stop.stopping() => {}
                    () = nudge.notified() => {}
                    () = tokio::time::sleep(period) => {}
                }
            }
            Ok(())
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running.send_modify(|count| *count += 1);
        let (ended, running, stop) = (self.ended.clone(), self.running.clone(), self.stop());
        let handle = tokio::spawn(async move {
            tokio::select! {
                outcome = task => outcome,
                () = stop.halting() => Err(anyhow::anyhow!("cut off: it did not end within the grace")),
            }
        });
        drop(tokio::spawn(async move {
            let outcome = handle.await.unwrap_or_else(|crash| Err(anyhow::Error::new(crash).context("crashed")));
            // Without a receiver the process is past its end.
            drop(ended.send(Ended { name, outcome }));
            running.send_modify(|count| *count -= 1);
        }));
    }

    fn raise(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let higher = phase > *now;
            *now = (*now).max(phase);
            higher
        });
    }
}

impl Waiting {
    /// Tells systemd that the service is ready, waits for a signal or a failed task, drains for at
    /// most `grace`, then cuts off what is left.
    ///
    /// # Errors
    /// If a task crashed, failed or ended before the stop, or did not end within the grace.
    pub(crate) async fn run(mut self, grace: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let stop = self.lifecycle.stop();
        let watchdog = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3_600), |within| within / 3);
        tell_systemd(&[NotifyState::Ready]);
        let mut failure = None;
        loop {
            tokio::select! {
                () = stop.stopping() => break,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(watchdog) => tell_systemd(&[NotifyState::Watchdog]),
                Some(ended) = self.ended.recv() => {
                    // A task may end on the soft stop before this loop has seen it.
                    if !stop.is_stopping() || ended.outcome.is_err() {
                        failure = Some(failure_of(ended));
                    }
                    break;
                }
            }
        }
        tell_systemd(&[NotifyState::Stopping]);
        tracing::info!("stopping");
        self.lifecycle.raise(Phase::Draining);
        let drained = tokio::time::timeout(grace, none_running(&self.lifecycle)).await;
        if drained.is_err() {
            self.lifecycle.raise(Phase::Halting);
            drop(tokio::time::timeout(Duration::from_secs(2), none_running(&self.lifecycle)).await);
        }
        while let Ok(ended) = self.ended.try_recv() {
            if ended.outcome.is_err() {
                failure.get_or_insert(failure_of(ended));
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

async fn none_running(lifecycle: &Lifecycle) {
    drop(lifecycle.running.subscribe().wait_for(|count| *count == 0).await);
}

fn failure_of(Ended { name, outcome }: Ended) -> anyhow::Error {
    match outcome {
        Err(error) => error.context(format!("the task {name:?} failed")),
        Ok(()) => anyhow::anyhow!("the task {name:?} ended before the stop"),
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const GRACE: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_task_that_fails_or_crashes_or_ends_early_stops_the_process_with_its_name() {
        for (n, part) in [(0, "\"door\" failed: no port"), (1, "\"door\" failed: crashed"), (2, "\"door\" ended before the stop")]
        {
            let (lifecycle, waiting) = Lifecycle::begin();
            lifecycle.spawn("door", async move {
                assert!(n != 1, "on purpose");
                if n == 0 { Err(anyhow::anyhow!("no port")) } else { Ok(()) }
            });
            let error = format!("{:#}", waiting.run(GRACE).await.expect_err("a failure"));
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_soft_stop_lets_begun_work_end() {
        let (lifecycle, waiting) = Lifecycle::begin();
        let (stop, done) = (lifecycle.stop(), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&done);
        lifecycle.spawn("work", async move {
            stop.stopping().await;
            tokio::task::yield_now().await;
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        lifecycle.ask_to_stop();
        waiting.run(Duration::from_secs(20)).await.expect("a clean stop");
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_does_not_end_within_the_grace_is_cut_off_and_told() {
        let (lifecycle, waiting) = Lifecycle::begin();
        lifecycle.spawn("stuck", std::future::pending());
        lifecycle.ask_to_stop();
        let error = format!("{:#}", waiting.run(GRACE).await.expect_err("a failure"));
        assert!(error.contains("\"stuck\"") && error.contains("within the grace"), "{error}");
    }

    #[tokio::test]
    async fn a_nudged_story_runs_at_once_and_survives_its_own_failure() {
        let (lifecycle, waiting) = Lifecycle::begin();
        let (nudge, runs) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (seen, ask) = (Arc::clone(&runs), lifecycle.clone());
        lifecycle.periodic("story", Duration::from_secs(3_600), Arc::clone(&nudge), move || {
            let run = seen.fetch_add(1, Ordering::SeqCst);
            if run == 1 {
                ask.ask_to_stop();
            }
            async move { if run == 0 { Err(anyhow::anyhow!("the database is away")) } else { Ok(()) } }
        });
        nudge.notify_one();
        waiting.run(Duration::from_secs(20)).await.expect("a clean stop");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}
