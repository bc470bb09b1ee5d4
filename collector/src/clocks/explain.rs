//! How a deadline came about, in lines for a person and as JSON: each step names the event it rests on and the rule it followed.
//!
//! Pure: it recomputes from the log, so that what it tells is what the log proves, not what a cache says.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

use super::rules::{Policy, advance, in_force};
use super::{Clock, ClockState};
use crate::tickets::{Ticket, TicketEvent};

/// One step of the explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) at: UnixMs,
    /// The event's number in the customer's chain.
    pub(crate) seq: i64,
    /// What happened and by which rule a clock moved.
    pub(crate) what: String,
}

/// How a ticket's deadlines came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    pub(crate) ticket_id: String,
    pub(crate) steps: Vec<Step>,
    /// The clocks as the log proves them.
    pub(crate) clocks: Vec<Clock>,
    /// Whether the stored rows agree with the recomputation.
    pub(crate) rows_agree: bool,
}

/// An event of the log: number, time, what.
pub(crate) type Logged<'a> = (i64, UnixMs, &'a TicketEvent);

/// Explains a ticket's clocks from its log; `rows` are what the database holds of them.
pub(crate) fn explain(ticket: &Ticket, log: &[Logged<'_>], policies: &[Policy], rows: &[Clock]) -> Explanation {
    let (mut clocks, mut steps) = (Vec::new(), Vec::new());
    for (seq, at, event) in log {
        let before = clocks.clone();
        advance(&mut clocks, ticket, *at, event, policies);
        for clock in clocks.iter().filter(|clock| !before.contains(clock)) {
            steps.push(Step { at: *at, seq: *seq, what: told(clock, before.len() < clocks.len(), event, policies) });
        }
    }
    Explanation { ticket_id: ticket.ticket_id.clone(), steps, rows_agree: clocks == rows, clocks }
}

fn told(clock: &Clock, is_new: bool, event: &TicketEvent, policies: &[Policy]) -> String {
    let (no, due_at) = (clock.clock_no, clock.due_at);
    match (is_new, clock.state) {
        (true, ClockState::Void) => {
            format!("clock {no} never counted: the fault had already cleared when it arrived (told in a digest)")
        }
        (true, _) => {
            let policy = in_force(policies, clock.started_at);
            let minutes = policy.promises.response.due_after_ms / 60_000;
            let why =
                if matches!(event, TicketEvent::Reopened { .. }) { "the ticket was reopened" } else { "the fault was received" };
            format!(
                "clock {no} (response) started because {why}: policy {} promises {minutes} minutes for both severities (C2, C3), \
                 so a warning at {} and the deadline at {due_at}",
                policy.version, clock.warn_at
            )
        }
        (false, ClockState::Met) => {
            format!("clock {no} was stopped by proof in time, {} before the deadline", span(clock, due_at))
        }
        (false, ClockState::Missed) if clock.stopped_at.is_some() => {
            format!("clock {no} was stopped by proof after its deadline {due_at}: the promise was broken")
        }
        (false, ClockState::Missed) => {
            format!("clock {no} ran out at {due_at} without proof of a response: the promise was broken")
        }
        (false, _) => format!("clock {no} warned: no response yet, the deadline is {due_at}"),
    }
}

/// `12 min 30 s` from the proof to the deadline.
fn span(clock: &Clock, due_at: UnixMs) -> String {
    let seconds = due_at.since_ms(clock.stopped_at.unwrap_or(due_at)) / 1000;
    format!("{} min {} s", seconds / 60, seconds % 60)
}
