//! The long poll, which is itself the heartbeat: current values up, directives down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::ServiceState;
use crate::directive::Directive;
use crate::ids::{CollectorEpoch, Epoch};
use crate::patch::PatchProgress;
use crate::time_source::UnixMs;

/// Among the values while the agent can record nothing: for how many seconds. What can't be recorded can't be reported either.
pub const VALUE_NOT_RECORDING_S: &str = "agent.not_recording_s";

/// `POST /agent/v1/poll`, renewed every 55-60 s, answered at once when there is a directive. Not spooled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollRequest {
    /// [`crate::api::WIRE_VERSION`] of the sender.
    pub version: u32,
    /// The sender's present epoch.
    pub epoch: Epoch,
    /// The agent's wall clock now.
    pub sent_at: UnixMs,
    /// How long the collector may keep the request waiting.
    pub wait_s: u32,
    /// Current values by metric name.
    pub values: BTreeMap<String, f64>,
    /// Current states of the declared services.
    pub services: BTreeMap<String, ServiceState>,
    /// Records waiting in the spool.
    pub backlog: u64,
    /// Ids of directives acted on since the last poll.
    #[serde(default)]
    pub done: Vec<String>,
    /// Signed files on their way or being applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchProgress>,
}

/// The answer: directives, or none when the wait ran out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollReply {
    /// What is asked.
    pub directives: Vec<Directive>,
    /// The collector's clock.
    pub now: UnixMs,
    /// Which life of the collector's database this is.
    pub collector_epoch: CollectorEpoch,
}
