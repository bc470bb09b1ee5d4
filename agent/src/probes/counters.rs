//! Rates from counters that only grow: what the probes of processors, disks and interfaces share.
//!
//! The first look gives no rate, and neither does a counter that went back (the device was replaced or the counter wrapped).

use std::collections::BTreeMap;
use std::time::Duration;

/// The last value and moment of each counter.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    last: BTreeMap<String, (Duration, Vec<u64>)>,
}

impl Counters {
    /// How much each value of `object` grew since the last look, and the seconds between.
    pub(crate) fn grown(&mut self, object: &str, now: Duration, values: Vec<u64>) -> Option<(Vec<f64>, f64)> {
        let (then, old) = self.last.insert(object.to_owned(), (now, values.clone()))?;
        let seconds = now.checked_sub(then)?.as_secs_f64();
        if seconds <= 0.0 || old.len() != values.len() {
            return None;
        }
        let grown: Option<Vec<f64>> = values.iter().zip(old).map(|(new, old)| new.checked_sub(old).map(to_float)).collect();
        Some((grown?, seconds))
    }

    /// Forgets what is no longer there.
    pub(crate) fn keep(&mut self, objects: &[String]) {
        self.last.retain(|object, _| objects.contains(object));
    }
}

/// A count as a value; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_looks_and_a_counter_that_grew() {
        let mut counters = Counters::default();
        let at = Duration::from_secs;
        assert_eq!(counters.grown("a", at(0), vec![5]), None);
        assert_eq!(counters.grown("a", at(10), vec![25]), Some((vec![20.0], 10.0)));
        assert_eq!(counters.grown("a", at(10), vec![26]), None, "no time has passed");
        assert_eq!(counters.grown("a", at(20), vec![1]), None, "the counter went back");
        assert_eq!(counters.grown("a", at(21), vec![2]), Some((vec![1.0], 1.0)));
    }
}
