//! A report: spooled records on their way, and the acknowledgement after commit.

use serde::{Deserialize, Serialize};

use crate::ids::{CollectorEpoch, Epoch, Nonce, RecordId};
use crate::receipt::Receipt;
use crate::record::Record;
use crate::time_source::UnixMs;

/// `POST /agent/v1/reports`, JSON compressed with zstd. One report of an agent is under way at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportRequest {
    /// [`crate::api::WIRE_VERSION`] of the sender.
    pub version: u32,
    /// The sender's present epoch (records may be of older ones).
    pub epoch: Epoch,
    /// Counts the sender's reports within its epoch, from 1. A request that comes late, after a newer one, is told by it.
    pub attempt: u64,
    /// The newest nonce that the agent holds durably; absent before the first acknowledgement.
    pub nonce_echo: Option<Nonce>,
    /// The agent's wall clock now.
    pub sent_at: UnixMs,
    /// The agent's monotonic clock now, in ms since the epoch's start.
    pub sent_mono_ms: u64,
    /// In order within each (epoch, lane); at most [`crate::limits::MAX_RECORDS`].
    pub records: Vec<Record>,
}

/// The answer to a report, sent after commit only (R28).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportReply {
    /// Per (epoch, lane): everything up to and including this record is committed (or refused below, or a recorded gap).
    pub acks: Vec<RecordId>,
    /// To be stored durably with the watermarks, then echoed.
    pub nonce: Nonce,
    /// Which life of the collector's database this is.
    pub collector_epoch: CollectorEpoch,
    /// The collector's clock.
    pub received_at: UnixMs,
    /// Records that were understood as a whole but refused one by one; they are acknowledged too and must not be sent again.
    #[serde(default)]
    pub refused: Vec<RefusedRecord>,
    /// Present when fault-lane records were taken.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// The appliance is held (a clone or a rewound snapshot): faults are still taken, patches and directives stop.
    #[serde(default)]
    pub held: bool,
}

/// One record that the collector set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// Which.
    pub id: RecordId,
    /// Why, for a person.
    pub why: String,
}
