//! Records: what the spool keeps and a report carries. A record is taken once, whatever the network repeats.

use std::collections::BTreeMap;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::check::DeclaredService;
use crate::fault::FaultChange;
use crate::ids::{EpisodeId, RecordId};
use crate::patch::{Installed, PatchReport};
use crate::time_source::UnixMs;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Payload {
    /// A fault changed.
    Fault(FaultChange),
    /// The agent started: the first record of an epoch.
    Started(Started),
    /// The agent stops on purpose.
    Goodbye(Goodbye),
    /// Five minutes of samples, folded.
    Samples(Samples),
    /// Records were dropped by policy; moves the watermark (R31).
    Gap(Gap),
    /// All faults that are open at the sender; of its others, whatever the collector still holds open is over.
    OpenFaults(OpenFaults),
    /// A signed file came a step further.
    Patch(PatchReport),
    /// `mainstay-agent test`: a marked message that opens no ticket.
    Test(TestMessage),
}

/// What the agent knows of itself and its machine at start, or when its configuration changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The agent's version.
    pub agent_version: String,
    /// The kernel's boot id: equal boot ids mean that the machine was not restarted between.
    pub boot_id: String,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// The host's name; untrusted text.
    pub hostname: String,
    /// Operating system and kernel, for a person.
    pub platform: String,
    /// Whether the run before ended without a goodbye in the same boot.
    pub after_crash: bool,
    /// Whether the agent is in safe mode (three crashes within five minutes).
    pub safe_mode: bool,
    /// The declared business services; empty means severity blind.
    pub services: Vec<DeclaredService>,
    /// The product that patches are for, if the box was set up for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Installed>,
}

/// A planned stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why: `stop`, `reboot`, `shutdown`, `upgrade`.
    pub reason: String,
    /// When the agent expects to be back, if it does.
    pub expected_return_at: Option<UnixMs>,
}

/// One metric over a span: minimum, mean, maximum, last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Folded {
    /// Smallest value.
    pub min: f64,
    /// Mean value.
    pub avg: f64,
    /// Largest value.
    pub max: f64,
    /// Last value.
    pub last: f64,
}

/// Samples folded over a span, by metric name (`cpu.busy_percent`, `disk./var.used_percent`, ...).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Begin of the span.
    pub from: UnixMs,
    /// End of the span.
    pub to: UnixMs,
    /// The metrics.
    pub metrics: BTreeMap<String, Folded>,
}

/// A range of sequence numbers of the same epoch and lane that will never come, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing.
    pub from_seq: u64,
    /// Last missing.
    pub to_seq: u64,
    /// `lane_full`, `corrupt`, `compacted`, `poison`.
    pub why: String,
    /// How many records were lost by it.
    pub count: u64,
}

/// The whole of what is open, told to a collector whose memory was restored: it may hold faults open that ended since its backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFaults {
    /// The episodes; at most [`crate::limits::MAX_OPEN_FAULTS`].
    pub episodes: Vec<EpisodeId>,
}

/// A marked message, end to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestMessage {
    /// A random mark, shown on both ends.
    pub mark: String,
    /// Who asked for it.
    pub note: String,
}

/// A record as it stands in the spool and on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Who it is.
    pub id: RecordId,
    /// The agent's wall clock when it was made.
    pub at: UnixMs,
    /// The agent's monotonic clock when it was made, in ms since the epoch's start. Its age is computed from this within the epoch.
    pub mono_ms: u64,
    /// What it says.
    pub payload: Payload,
}

impl Record {
    /// SHA-256 over the record's JSON as hex: tells a replay (same hash) from another record under the same id.
    #[must_use]
    pub fn hash(&self) -> String {
        // Serialising plain data into memory cannot fail; an empty hash would only ever equal another failure's.
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(digest::digest(&digest::SHA256, &json))
    }
}
