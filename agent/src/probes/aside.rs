//! Runs what may block in the kernel (name resolution, a dead mount, starting a program from one) on a thread of its own.
//!
//! At most one job per object is under way: while one hangs, the next is refused instead of piling up threads. The threads are
//! not the runtime's, so that a hung one never keeps the agent from ending. Two of them are kept for what comes next: starting a
//! thread costs more than most jobs.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

/// So many threads wait for the next job: measuring and asking often begin in the same moment.
const KEPT: usize = 2;

/// A thread for which nothing came for so long ends: those that measuring and asking use are always sooner.
const IDLE: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// Threads for what may hang. Cheap to clone; the clones share the threads.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    idle: Arc<Mutex<Vec<mpsc::SyncSender<Job>>>>,
}

impl Workers {
    /// Runs `job` on a waiting thread, else on a new one.
    ///
    /// # Errors
    /// When no thread could be started.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut job: Job = Box::new(job);
        loop {
            let Some(worker) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
            match worker.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(refused)) => job = refused,
            }
        }
        let idle = Arc::downgrade(&self.idle);
        let work = move || {
            loop {
                job();
                let (sender, jobs) = mpsc::sync_channel(1);
                let Some(list) = idle.upgrade() else { return };
                let mut waiting = list.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.len() >= KEPT {
                    return;
                }
                waiting.push(sender);
                drop(waiting);
                drop(list);
                // None comes any more once nobody holds the list.
                let Ok(next) = next_job(&jobs, &idle) else { return };
                job = next;
            }
        };
        std::thread::Builder::new().name("aside".to_owned()).spawn(work).map(drop)
    }
}

/// The next job; none once nobody holds the list, or nothing came for [`IDLE`].
fn next_job(jobs: &mpsc::Receiver<Job>, idle: &Weak<Mutex<Vec<mpsc::SyncSender<Job>>>>) -> Result<Job, mpsc::RecvError> {
    match jobs.recv_timeout(IDLE) {
        Ok(job) => Ok(job),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(mpsc::RecvError),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            // Whoever has taken our sender from the list by now still sends.
            if let Some(list) = idle.upgrade() {
                list.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            jobs.recv()
        }
    }
}

/// Hands out threads, one per object at most. Cheap to clone; the clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside {
    busy: Arc<Mutex<BTreeSet<String>>>,
    workers: Workers,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AsideError {
    /// The job before this one has not come back yet.
    #[error("{0} still hangs in the kernel since an earlier try")]
    StillHanging(String),
    /// No answer in time; the thread is left behind until the kernel lets it go.
    #[error("{0} gave no answer in time")]
    TimedOut(String),
    /// No thread could be started, or it died.
    #[error("no thread for {0}")]
    NoThread(String, #[source] Option<io::Error>),
}

impl Aside {
    /// On the threads of `workers`.
    pub(crate) fn on(workers: Workers) -> Self {
        Self { busy: Arc::default(), workers }
    }

    /// Runs `job` aside and waits for it for at most `limit`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        object: &str,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AsideError> {
        let object = object.to_owned();
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(object.clone()) {
            return Err(AsideError::StillHanging(object));
        }
        let free = Free { busy: Arc::clone(&self.busy), object: object.clone() };
        let (sender, receiver) = oneshot::channel();
        let started = self.workers.run(move || {
            let answer = job();
            drop(free);
            drop(sender.send(answer));
        });
        if let Err(error) = started {
            return Err(AsideError::NoThread(object, Some(error)));
        }
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AsideError::NoThread(object, None)),
            Err(_) => Err(AsideError::TimedOut(object)),
        }
    }
}

/// Gives the object free again, however the job ends.
struct Free {
    busy: Arc<Mutex<BTreeSet<String>>>,
    object: String,
}

impl Drop for Free {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn one_hanging_object_is_not_asked_twice_and_others_are_not_held_up() {
        let aside = Aside::default();
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let hung = aside.run("disk:/dead", Duration::from_millis(20), move || hold.recv().is_ok()).await;
        assert!(matches!(hung, Err(AsideError::TimedOut(_))));
        assert!(matches!(aside.run("disk:/dead", LONG, || 1).await, Err(AsideError::StillHanging(_))));
        assert_eq!(aside.run("disk:/", LONG, || 2).await.expect("another object"), 2);

        release.send(()).expect("the thread still waits");
        while matches!(aside.run("disk:/dead", LONG, || 3).await, Err(AsideError::StillHanging(_))) {
            tokio::task::yield_now().await;
        }
    }
}
