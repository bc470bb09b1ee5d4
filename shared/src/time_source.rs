//! Time as an argument: the only place of the product that reads a clock.
//!
//! Wall time is data (stamps, deadlines shown to people); monotonic time is for waits. A [`TimeSource`] is handed down from
//! `main`, so that a test can move time by hand. It must never be replaced by a call to the system's clock elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC: the one form of wall time on the wire and in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// This moment moved by `delta_ms` (negative: into the past), saturating at the ends.
    #[must_use]
    pub fn plus_ms(self, delta_ms: i64) -> Self {
        Self(self.0.saturating_add(delta_ms))
    }

    /// This moment moved forward by `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds from `earlier` to this moment; negative if `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As a calendar time; years outside chrono's range become the epoch.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0).single().unwrap_or_default()
    }
}

impl std::fmt::Display for UnixMs {
    /// RFC 3339 in UTC, to the millisecond.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    }
}

/// Where a program's time comes from: the machine, or a hand in a test.
#[derive(Debug, Clone)]
pub struct TimeSource(Source);

#[derive(Debug, Clone)]
enum Source {
    System { started: std::time::Instant, floor: Arc<Mutex<UnixMs>> },
    Manual(Arc<Mutex<(UnixMs, Duration)>>),
}

impl TimeSource {
    /// The machine's clocks, with no floor but the epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn system() -> Self {
        Self(Source::System { started: std::time::Instant::now(), floor: Arc::default() })
    }

    /// A clock that only [`TimeSource::advance`] moves, starting at `now`.
    #[must_use]
    pub fn manual(now: UnixMs) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new((now, Duration::ZERO)))))
    }

    /// Wall time. Never below the floor (DESIGN: max of RTC, build time, last verified signed time, persisted).
    #[must_use]
    pub fn now(&self) -> UnixMs {
        match &self.0 {
            Source::System { floor, .. } => machine_now().max(*floor.lock().unwrap_or_else(PoisonError::into_inner)),
            Source::Manual(state) => state.lock().unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// The machine's own wall clock without the floor: to measure how far it is off.
    #[must_use]
    pub fn raw_now(&self) -> UnixMs {
        match &self.0 {
            Source::System { .. } => machine_now(),
            Source::Manual(_) => self.now(),
        }
    }

    /// Time since an arbitrary start; never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started, .. } => started.elapsed(),
            Source::Manual(state) => state.lock().unwrap_or_else(PoisonError::into_inner).1,
        }
    }

    /// Raises the floor below which [`TimeSource::now`] never answers. Lowering it is ignored.
    pub fn raise_floor(&self, at_least: UnixMs) {
        match &self.0 {
            Source::System { floor, .. } => {
                let mut floor = floor.lock().unwrap_or_else(PoisonError::into_inner);
                *floor = (*floor).max(at_least);
            }
            Source::Manual(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.0 = state.0.max(at_least);
            }
        }
    }

    /// Sets a manual clock's wall time alone, as a jump of a machine's clock does; a system clock is not set.
    pub fn set_wall(&self, to: UnixMs) {
        if let Source::Manual(state) = &self.0 {
            state.lock().unwrap_or_else(PoisonError::into_inner).0 = to;
        }
    }

    /// Moves a manual clock forward; a system clock is not moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(state) = &self.0 {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = state.0.plus(by);
            state.1 += by;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn machine_now() -> UnixMs {
    UnixMs(Utc::now().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_lifts_a_clock_that_stands_at_1970_and_never_falls() {
        let time = TimeSource::manual(UnixMs(0));
        time.raise_floor(UnixMs(1_000));
        assert_eq!(time.now(), UnixMs(1_000));
        time.raise_floor(UnixMs(10));
        assert_eq!(time.now(), UnixMs(1_000));
    }

    #[test]
    fn advancing_moves_wall_and_monotonic_time_together() {
        let time = TimeSource::manual(UnixMs(5));
        time.advance(Duration::from_millis(7));
        assert_eq!((time.now(), time.monotonic()), (UnixMs(12), Duration::from_millis(7)));
    }
}
