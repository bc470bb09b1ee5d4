//! How a deadline came about, in lines for a person and as JSON: each step names the event it rests on and the rule it followed.
//!
//! Pure: it recomputes from the log, so that what it tells is what the log proves, not what a cache says.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

/// One step of the explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) at: UnixMs,
    /// The event's number in the customer's chain.
    pub(crate) seq: i64,
    pub(crate) clock_no: i64,
    pub(crate) what: String,
}

/// How a ticket's deadlines came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    pub(crate) ticket_id: String,
    pub(crate) steps: Vec<Step>,
    /// Whether the stored rows agree with the recomputation.
    pub(crate) rows_agree: bool,
}
