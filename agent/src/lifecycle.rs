//! One life of the process: tasks, the soft stop, the drain, the hard stop, and what systemd is told of them.
//!
//! `daemon` makes it, every loop gets a `StopSignal`. A task that ends before it was asked to, or panics, stops the process
//! with a failure; it never limps on. The watchdog is fed from the same loop that does the work, so a blocked loop is seen.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After the soft stop, tasks get this long to deliver the goodbye.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// Tells a task that the process is to end.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Resolves once the process is to end.
    pub(crate) async fn requested(mut self) {
        // The sender lives as long as the process; its loss means the same.
        drop(self.0.wait_for(|stop| *stop).await);
    }

    /// Whether the process is to end.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// The process's tasks. Lives on a `LocalSet`.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: watch::Sender<bool>,
    terminate: Signal,
    interrupt: Signal,
}

impl Lifecycle {
    /// Begins before anything is started that must be stopped: from here on a signal waits for [`Lifecycle::run`].
    ///
    /// # Errors
    /// When the signals can't be handled.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
        Ok(Self { tasks: JoinSet::new(), stop: watch::Sender::new(false), terminate, interrupt })
    }

    /// A signal for a new task.
    pub(crate) fn stop_signal(&self) -> StopSignal {
        StopSignal(self.stop.subscribe())
    }

    /// Starts a task that runs until the stop signal.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + 'static) {
        self.tasks.spawn_local(async move { (name, task.await) });
    }

    /// Runs until a signal or a failed task; then stops, drains, and, on a second signal or after [`DRAIN`], cuts off.
    ///
    /// # Errors
    /// The first task that failed or ended unasked.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        notify(&[NotifyState::Ready]);
        let feed_every = sd_notify::watchdog_enabled().map(|period| period / 2);
        let failed = loop {
            tokio::select! {
                _ = self.terminate.recv() => break None,
                _ = self.interrupt.recv() => break None,
                ended = self.tasks.join_next() => break Some(unasked(ended)),
                () = pause(feed_every) => notify(&[NotifyState::Watchdog]),
            }
        };
        notify(&[NotifyState::Stopping]);
        self.stop.send_replace(true);
        let drained = tokio::select! {
            drained = drain(&mut self.tasks) => drained,
            _ = self.terminate.recv() => Ok(()),
            _ = self.interrupt.recv() => Ok(()),
            () = tokio::time::sleep(DRAIN + Duration::from_secs(2)) => Ok(()),
        };
        self.tasks.abort_all();
        failed.map_or(drained, Err)
    }
}

async fn drain(tasks: &mut JoinSet<(&'static str, anyhow::Result<()>)>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        let (name, result) = ended.context("a task crashed while stopping")?;
        result.context(name)?;
    }
    Ok(())
}

async fn pause(period: Option<Duration>) {
    match period {
        Some(period) => tokio::time::sleep(period).await,
        None => std::future::pending().await,
    }
}

fn unasked(ended: Option<Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        None => anyhow::anyhow!("there is nothing to run"),
        Some(Err(crash)) => anyhow::Error::new(crash).context("a task crashed"),
        Some(Ok((name, Err(error)))) => error.context(name),
        Some(Ok((name, Ok(())))) => anyhow::anyhow!("{name}: ended without being asked to"),
    }
}

/// Sets the line that `systemctl status` shows.
pub(crate) fn tell_systemd(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_unasked_stops_the_process_with_a_failure_and_the_others_get_to_finish() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut life = Lifecycle::begin().unwrap();
                let (finished, was_finished) = tokio::sync::oneshot::channel();
                let stop = life.stop_signal();
                life.spawn("waits", async move {
                    stop.requested().await;
                    finished.send(()).map_err(|()| anyhow::anyhow!("nobody listens"))
                });
                life.spawn("breaks", async { anyhow::bail!("the disk is gone") });
                let error = life.run().await.unwrap_err();
                assert_eq!(format!("{error:#}"), "breaks: the disk is gone");
                was_finished.await.unwrap();
            })
            .await;
    }

    #[tokio::test]
    async fn a_panic_in_a_task_is_a_failure_of_the_process() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut life = Lifecycle::begin().unwrap();
                life.spawn("panics", async { panic!("boom") });
                assert!(format!("{:#}", life.run().await.unwrap_err()).contains("crashed"));
            })
            .await;
    }
}
