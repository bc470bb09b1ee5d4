//! The machine's clock against the collector's: positive when the machine's is ahead.
//!
//! Whoever hears from the collector tells the [`ClockReference`]; between such times the reference runs on by monotonic time, so
//! that a jump of the machine's clock shows at the next look. Without a reference of the last hours there is no reading.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::time_source::{TimeSource, UnixMs};

use super::{Place, Probe, Reading};

/// A reference older than this says nothing: monotonic time drifts too.
const MAX_AGE: Duration = Duration::from_secs(6 * 3600);

/// The last trusted time heard, shared between who hears it and who measures.
#[derive(Debug, Clone, Default)]
pub struct ClockReference(Arc<Mutex<Option<(UnixMs, Duration)>>>);

impl ClockReference {
    /// `trusted` is the time now, by the collector's answer.
    pub fn tell(&self, trusted: UnixMs, time: &TimeSource) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((trusted, time.monotonic()));
    }

    /// How far the machine's clock is ahead, ms; none without a fresh reference.
    #[must_use]
    pub fn offset_ms(&self, time: &TimeSource) -> Option<i64> {
        let (trusted, told_at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = time.monotonic().checked_sub(told_at).filter(|age| *age <= MAX_AGE)?;
        Some(time.raw_now().since_ms(trusted.plus(age)))
    }

    /// The time now by the reference where it is fresh, else by the machine's clock and its floor.
    pub(crate) fn now(&self, time: &TimeSource) -> UnixMs {
        self.offset_ms(time).map_or_else(|| time.now(), |offset| time.raw_now().plus_ms(-offset))
    }
}

/// Measures the offset.
pub(crate) struct Clock {
    reference: ClockReference,
}

impl Clock {
    /// Against `reference`.
    pub(crate) fn new(reference: ClockReference) -> Self {
        Self { reference }
    }
}

impl Probe for Clock {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["clock".to_owned()]
    }

    #[expect(clippy::cast_precision_loss, reason = "an offset of 2^53 ms is 285 thousand years")]
    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        self.reference.offset_ms(&place.time).map(|offset| Reading::new(object, "offset_ms", offset as f64)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_runs_on_by_monotonic_time_and_grows_old() {
        let time = TimeSource::manual(UnixMs(10_000));
        let reference = ClockReference::default();
        assert_eq!(reference.offset_ms(&time), None);
        reference.tell(UnixMs(8_000), &time);
        time.advance(Duration::from_secs(60));
        assert_eq!(reference.offset_ms(&time), Some(2_000));
        time.raise_floor(UnixMs(100_000));
        assert_eq!(reference.offset_ms(&time), Some(32_000), "a jump shows at once");
        assert_eq!(reference.now(&time), UnixMs(68_000), "and does not move the trusted time");
        time.advance(Duration::from_secs(7 * 3600));
        assert_eq!(reference.offset_ms(&time), None);
    }
}
