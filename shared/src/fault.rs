//! Faults as the agent reports them: a condition `(component, code)` and its episode from raise to clear.

use serde::{Deserialize, Serialize};

use crate::check::{CheckResult, ServiceState};
use crate::ids::EpisodeId;
use crate::severity::wire_names;
use crate::time_source::UnixMs;

/// How bad a condition of the *machine* is. It says nothing of the business: severity is the collector's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth a look.
    Warning,
    /// Wrong.
    Serious,
}

wire_names!(Level { Warning = "warning", Serious = "serious" });

/// What a fault is about: which part of the appliance, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultKey {
    /// `service:NAME`, `disk:/var`, `memory`, `net:eth0`, `agent`, ...
    pub component: String,
    /// A stable word, listed in docs/faults.md: `service_down`, `disk_space_low`, ...
    pub code: String,
}

impl FaultKey {
    /// The key of `code` on `component`.
    #[must_use]
    pub fn new(component: impl Into<String>, code: impl Into<String>) -> Self {
        Self { component: component.into(), code: code.into() }
    }

    /// The business service that this fault is about, if it is about one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.component.strip_prefix("service:")
    }
}

/// A service answers no more.
pub const CODE_SERVICE_DOWN: &str = "service_down";
/// A service answers worse than it should (Nagios 1).
pub const CODE_SERVICE_DEGRADED: &str = "service_degraded";
/// Whether a service answers could not be found out (Nagios 3, a check that can't run).
pub const CODE_CHECK_UNKNOWN: &str = "check_unknown";
/// The agent runs in safe mode after a crash loop.
pub const CODE_AGENT_SAFE_MODE: &str = "agent_safe_mode";
/// The machine's clock is far off.
pub const CODE_CLOCK_OFFSET: &str = "clock_offset";

/// What the agent saw when it raised a fault: its grounds, in clear text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FaultGrounds {
    /// The check tries of the round, for a service fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// The state the service was last known in before the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known: Option<ServiceState>,
    /// The measured value, for a machine fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The value's unit: `percent`, `bytes`, `celsius`, `count`, `ms`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The threshold that was crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How long the condition had lasted when the fault was raised.
    #[serde(default)]
    pub lasted_ms: u64,
}

/// What happened to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultChangeKind {
    /// It began: this record's id is the episode's.
    Raised,
    /// It got worse (or its level fell again) within the episode.
    Worsened,
    /// It is over.
    Cleared,
    /// It is still so: sent again because the collector's memory was restored (its epoch is new).
    Restated,
}

wire_names!(FaultChangeKind { Raised = "raised", Worsened = "worsened", Cleared = "cleared", Restated = "restated" });

/// One change of a fault, as a record's payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultChange {
    /// What happened.
    pub kind: FaultChangeKind,
    /// To what.
    #[serde(flatten)]
    pub key: FaultKey,
    /// The episode; absent on `raised`, whose own record id it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<EpisodeId>,
    /// How bad it is now.
    pub level: Level,
    /// One line for a person; untrusted text.
    pub summary: String,
    /// What was seen.
    #[serde(default)]
    pub grounds: FaultGrounds,
    /// When the condition began or ended, by the agent's clock.
    pub at: UnixMs,
    /// Whether the condition was there when the agent first looked.
    #[serde(default)]
    pub present_at_start: bool,
}
