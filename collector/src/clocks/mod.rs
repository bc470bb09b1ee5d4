//! Clocks: the promised deadlines on a ticket (C2, C3). Types; `rules.rs` recomputes them from the event log and versioned policies,
//! `store.rs` keeps the due rows, `explain.rs` tells how a deadline came about.
//!
//! A row here is a cache of what the log says. A clock is stopped by proof only; nothing here reads a time source.

use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

pub(crate) mod rules;
pub(crate) mod explain;
pub(crate) mod store;

/// Which promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClockKind {
    /// 响应时间: a named engineer has taken the fault and contacted the customer or begun the diagnosis (C2, C3).
    Response,
}

impl ClockKind {
    /// The name in the database and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Response => "response",
        }
    }
}

/// Where a clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClockState {
    /// The proof has not come and the deadline has not passed.
    Running,
    /// The proof came in time.
    Met,
    /// The deadline passed without it; a later proof sets `stopped_at` and leaves the state.
    Missed,
    /// It never counted: the fault had cleared when it arrived.
    Void,
}

impl ClockState {
    /// All states.
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Met, Self::Missed, Self::Void];

    /// The name in the database and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Void => "void",
        }
    }

    /// The state of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// One promise on one ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Clock {
    pub(crate) tenant_id: String,
    pub(crate) ticket_id: String,
    /// Counts the ticket's clocks from 1; a reopened ticket has a new one.
    pub(crate) clock_no: i64,
    pub(crate) kind: ClockKind,
    /// The policy that was in force when it started; a later one never changes it.
    pub(crate) policy_version: i64,
    pub(crate) state: ClockState,
    pub(crate) started_at: UnixMs,
    pub(crate) warn_at: UnixMs,
    pub(crate) due_at: UnixMs,
    pub(crate) stopped_at: Option<UnixMs>,
    /// When something must next be told of it: the warning, then the breach.
    pub(crate) next_at: Option<UnixMs>,
}
