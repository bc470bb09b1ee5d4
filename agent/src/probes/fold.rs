//! Folds readings into one record per five minutes: minimum, mean, maximum and last of each metric.
//!
//! Pure: moments are arguments. It must stay within the wire's limits: a record holds at most [`MAX_METRICS`] metrics, and what
//! does not fit is left out in name order, the same ones each time.

use std::collections::BTreeMap;

use mainstay_shared::limits::{MAX_NAME_CHARS, MAX_VALUES};
use mainstay_shared::record::{Folded, Samples};
use mainstay_shared::time_source::UnixMs;

use super::{Reading, full_name};

/// So many stay under the 64 KiB of a record.
const MAX_METRICS: usize = 300;

/// The span being folded.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    from: Option<UnixMs>,
    /// By component and metric: the names are made when the span ends.
    metrics: BTreeMap<String, BTreeMap<&'static str, Running>>,
    count: usize,
}

#[derive(Debug)]
struct Running {
    min: f64,
    max: f64,
    last: f64,
    sum: f64,
    count: f64,
}

impl Fold {
    /// Takes a round of readings in.
    pub(crate) fn add(&mut self, at: UnixMs, readings: &[Reading]) {
        self.from.get_or_insert(at);
        for reading in readings.iter().filter(|reading| reading.value.is_finite()) {
            let Some(running) = self.running(reading) else { continue };
            running.min = running.min.min(reading.value);
            running.max = running.max.max(reading.value);
            running.last = reading.value;
            running.sum += reading.value;
            running.count += 1.0;
        }
    }

    /// Where `reading` is folded into; none if it does not fit.
    fn running(&mut self, reading: &Reading) -> Option<&mut Running> {
        let known = self.metrics.get(&reading.component).is_some_and(|metrics| metrics.contains_key(reading.metric));
        if !known {
            if self.count >= MAX_METRICS || reading.name().chars().count() > MAX_NAME_CHARS {
                return None;
            }
            self.count += 1;
            let start = Running { min: f64::INFINITY, max: f64::NEG_INFINITY, last: 0.0, sum: 0.0, count: 0.0 };
            self.metrics.entry(reading.component.clone()).or_default().insert(reading.metric, start);
        }
        self.metrics.get_mut(&reading.component)?.get_mut(reading.metric)
    }

    /// The span so far, ended at `to`; none if nothing was measured. It goes on until [`Fold::begin_anew`], so that samples which
    /// were not accepted become part of the next record instead of being lost.
    pub(crate) fn samples(&self, to: UnixMs) -> Option<Samples> {
        let from = self.from?;
        let named = self.metrics.iter().flat_map(|(component, metrics)| {
            metrics.iter().map(move |(metric, running)| (full_name(component, metric), running.folded()))
        });
        let metrics: BTreeMap<String, Folded> = named.collect();
        (!metrics.is_empty()).then_some(Samples { from, to, metrics })
    }

    /// What was measured is spooled: a new span begins.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl Running {
    fn folded(&self) -> Folded {
        Folded { min: rounded(self.min), avg: rounded(self.sum / self.count), max: rounded(self.max), last: rounded(self.last) }
    }
}

/// The latest readings by name, for the heartbeat.
pub(crate) fn current_values(readings: &[Reading]) -> BTreeMap<String, f64> {
    let finite = readings.iter().filter(|reading| reading.value.is_finite());
    let named =
        finite.map(|reading| (reading.name(), rounded(reading.value))).filter(|(name, _)| name.chars().count() <= MAX_NAME_CHARS);
    named.take(MAX_VALUES).collect()
}

/// To a thousandth: more digits are noise and bytes.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_minimum_mean_maximum_and_last() {
        let mut fold = Fold::default();
        for (at, value) in [(0, 1.0), (10, 4.0), (20, 2.0), (30, f64::NAN)] {
            fold.add(UnixMs(at), &[Reading::new("disk:/var", "used_percent", value)]);
        }
        let samples = fold.samples(UnixMs(300)).expect("a span");
        assert_eq!((samples.from, samples.to), (UnixMs(0), UnixMs(300)));
        let folded = samples.metrics["disk./var.used_percent"];
        assert_eq!(folded, Folded { min: 1.0, avg: 2.333, max: 4.0, last: 2.0 });
        fold.add(UnixMs(310), &[Reading::new("disk:/var", "used_percent", 9.0)]);
        let longer = fold.samples(UnixMs(600)).expect("a span");
        let expected = (UnixMs(0), UnixMs(600), 9.0);
        assert_eq!((longer.from, longer.to, longer.metrics["disk./var.used_percent"].max), expected, "not accepted: it goes on");
        fold.begin_anew();
        assert_eq!(fold.samples(UnixMs(900)), None, "nothing measured since");
    }

    #[test]
    fn a_machine_with_thousands_of_metrics_stays_within_a_record() {
        let mut fold = Fold::default();
        let readings: Vec<Reading> =
            (0..5000).map(|n| Reading::new(format!("disk:/{n}/{}", "x".repeat(90)), "inodes_used_percent", 99.999)).collect();
        fold.add(UnixMs(0), &readings);
        let json = serde_json::to_vec(&fold.samples(UnixMs(1)).expect("a span")).expect("json");
        assert!(json.len() < mainstay_shared::limits::MAX_RECORD_BYTES, "{}", json.len());
        assert_eq!(current_values(&readings).len(), MAX_VALUES);
    }
}
