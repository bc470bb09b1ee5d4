//! Waits that wake the process once: for what is done again and again while the machine is at rest.
//!
//! The runtime's own timers stand in a wheel of coarse and fine slots, so that a wait of ten seconds wakes the process three times
//! (4 s, 64 ms, 1 ms). A timerfd (timerfd_create(2)) wakes it when it is over. It must never be used for a limit that seldom
//! passes: those cost nothing in the wheel.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

/// One waiter's timer, used again for each wait.
#[derive(Debug)]
pub(crate) struct Pause(Option<AsyncFd<OwnedFd>>);

impl Pause {
    /// A timer by the monotonic clock. Where the system gives none, the runtime's is used.
    #[expect(deprecated, reason = "sound for an OwnedFd, whose descriptor stays the same; its successor is unsafe to call")]
    pub(crate) fn new() -> Self {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(std::io::Error::from).and_then(AsyncFd::new);
        Self(timer.inspect_err(|error| tracing::warn!(%error, "no timer of the system's")).ok())
    }

    /// Waits so long. May be given up and begun again.
    pub(crate) async fn wait(&self, span: Duration) {
        match &self.0 {
            Some(timer) if set(timer, span) => over(timer).await,
            _ => tokio::time::sleep(span).await,
        }
    }
}

fn set(timer: &AsyncFd<OwnedFd>, span: Duration) -> bool {
    // Zero would switch the timer off.
    let span = span.max(Duration::from_nanos(1));
    let it_value = Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once).is_ok()
}

async fn over(timer: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = timer.readable().await else { return };
        // A wait that was given up may have left its readiness behind: then there is nothing to read.
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
        if read.is_ok() {
            // Else the next wait would begin with a read in vain.
            ready.clear_ready();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::time_source::TimeSource;

    use super::*;

    #[tokio::test]
    async fn a_wait_lasts_as_long_as_asked_also_after_one_that_was_given_up() {
        let pause = Pause::new();
        let given_up = tokio::time::timeout(Duration::from_millis(50), pause.wait(Duration::from_millis(20))).await;
        assert!(given_up.is_ok(), "it was over first");
        let given_up = tokio::time::timeout(Duration::from_millis(10), pause.wait(Duration::from_secs(100))).await;
        assert!(given_up.is_err());
        let clock = TimeSource::system();
        pause.wait(Duration::from_millis(30)).await;
        assert!(clock.monotonic() >= Duration::from_millis(30));
        pause.wait(Duration::ZERO).await;
    }
}
