//! What a check of a business service says. A check asks; it never judges severity.

use serde::{Deserialize, Serialize};

use crate::severity::wire_names;
use crate::time_source::UnixMs;

/// The state of a check or of a business service. Nagios 0, 1, 2, 3; refused and time-out are `down`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It answers as it should.
    Up,
    /// It answers, slightly worse than it should.
    Degraded,
    /// Whether it answers could not be found out; never taken for "not interrupted".
    Unknown,
    /// It does not answer as it should.
    Down,
}

wire_names!(ServiceState { Up = "up", Degraded = "degraded", Unknown = "unknown", Down = "down" });

/// One try of one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The check's name within its service.
    pub check: String,
    /// Its kind: `http`, `tcp`, `process`, `unit`, `plugin`.
    pub kind: String,
    /// What it found.
    pub state: ServiceState,
    /// Why, as a stable word: `ok`, `refused`, `timeout`, `status`, `body`, `certificate`, `exit`, `missing`, `cannot_run`, ...
    pub reason: String,
    /// What was seen, for a person; untrusted text.
    pub text: String,
    /// How long the try took.
    pub took_ms: u64,
    /// Which try of the round this was, from 1; a failure is retried twice.
    pub attempt: u8,
    /// When the try ended, by the agent's clock.
    pub at: UnixMs,
    /// A plugin's performance data as it printed them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perf_data: String,
}

/// A business service as the appliance declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredService {
    /// Its name; equal names on several appliances may be members of one service group.
    pub name: String,
    /// What it is for, in the customer's words.
    #[serde(default)]
    pub title: String,
    /// The names of its checks.
    pub checks: Vec<String>,
    /// How often it is checked.
    pub interval_s: u32,
    /// Component names of this appliance that it depends on (`disk:/var`), for joining faults to its ticket.
    #[serde(default)]
    pub depends_on: Vec<String>,
}
