//! What intake counts about itself, for `/metrics`: no names of customers or appliances. Cheap to clone; all clones count together.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// One label: `[("lane", "fault")]`.
pub(crate) type Label = [(&'static str, &'static str); 1];

/// Intake's own figures.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// Messages by `kind`: `report`, `poll`.
    pub(crate) messages: Family<Label, Counter>,
    /// Records taken by `lane`.
    pub(crate) records: Family<Label, Counter>,
    /// Records that came again.
    pub(crate) replays: Counter,
    /// What was refused, by `why`.
    pub(crate) refused: Family<Label, Counter>,
    /// Records lost on the way, by `lane` (R31).
    pub(crate) lost: Family<Label, Counter>,
    /// Messages committed together.
    pub(crate) batch_size: Histogram,
    /// Seconds from taking a batch to its commit.
    pub(crate) batch_seconds: Histogram,
    /// Appliances that were held.
    pub(crate) holds: Counter,
    /// Long polls that wait now.
    pub(crate) waiting_polls: Gauge,
    /// Since when the worker is at its present batch, in ms of the process's monotonic time; `u64::MAX` while it waits for work.
    pub(crate) busy_since_ms: Arc<AtomicU64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            messages: Family::default(),
            records: Family::default(),
            replays: Counter::default(),
            refused: Family::default(),
            lost: Family::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            batch_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            holds: Counter::default(),
            waiting_polls: Gauge::default(),
            busy_since_ms: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }
}
