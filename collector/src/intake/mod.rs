//! Intake: a report is accepted once. Size and form, the order of records, what was lost on the way.
//!
//! Passive: `rules` decide on single records, `ready` prepares them, `store` keeps them, `counts` counts. Identity was settled before (R13), what a
//! fault means comes after. Nothing here answers an agent: that happens after commit only (R28).

use mainstay_shared::ids::{Epoch, Lane, RecordId};

pub(crate) mod marks;
pub(crate) mod rules;
pub(crate) mod ready;
pub(crate) mod store;
pub(crate) mod counts;

/// One run of one lane of one appliance: what a watermark belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) epoch: Epoch,
    pub(crate) lane: Lane,
}

impl LaneKey {
    /// The record of this lane with that number.
    pub(crate) fn record(&self, seq: u64) -> RecordId {
        RecordId { epoch: self.epoch.clone(), lane: self.lane, seq }
    }
}

/// Records that will never come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) lane: LaneKey,
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
    /// The agent's word, or `missing` for a hole that nobody explained.
    pub(crate) why: String,
    pub(crate) count: u64,
}

/// One folded record of samples, placed in the collector's time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredSamples {
    pub(crate) from_at: mainstay_shared::time_source::UnixMs,
    pub(crate) to_at: mainstay_shared::time_source::UnixMs,
    /// zstd of the metrics' JSON.
    pub(crate) metrics: Vec<u8>,
}
