//! How events move a ticket's clocks: pure, the same fold for the living ticket and for the recomputation of an old one.
//!
//! The response clock (C2, C3) starts with the receipt of the fault and at each reopening, warns, runs out, and is stopped only by
//! proof: a named engineer who contacted the customer or began the diagnosis. Deadlines follow the policy in force at the start;
//! a policy made later changes nothing that has begun.

use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

use super::{Clock, ClockKind, ClockState};
use crate::tickets::{Ticket, TicketEvent};

/// A version of what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) version: i64,
    /// Clocks that start from then on follow it.
    pub(crate) effective_at: UnixMs,
    pub(crate) promises: Promises,
}

/// The body of a policy row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promises {
    /// The same for both severities (C2, C3).
    pub(crate) response: Allowance,
}

/// How long a promise allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowance {
    pub(crate) warn_after_ms: i64,
    pub(crate) due_after_ms: i64,
}

/// The commitment as it stands: response within 30 minutes (C2, C3), warning after 20 (ours), from the first day on.
pub(crate) const FIRST_POLICY: Policy = Policy {
    version: 1,
    effective_at: UnixMs(0),
    promises: Promises { response: Allowance { warn_after_ms: 20 * 60_000, due_after_ms: 30 * 60_000 } },
};

/// The policy in force at `at`: the newest that was effective then.
pub(crate) fn in_force(policies: &[Policy], at: UnixMs) -> &Policy {
    const FIRST: &Policy = &FIRST_POLICY;
    policies.iter().filter(|policy| policy.effective_at <= at).max_by_key(|policy| policy.version).unwrap_or(FIRST)
}

/// Moves `clocks` by one event of `at`; answers what is to be written into the log beside it.
pub(crate) fn advance(
    clocks: &mut Vec<Clock>,
    ticket: &Ticket,
    at: UnixMs,
    event: &TicketEvent,
    policies: &[Policy],
) -> Vec<TicketEvent> {
    match event {
        TicketEvent::Opened { already_recovered, .. } => start(clocks, ticket, at, policies, *already_recovered),
        TicketEvent::Reopened { .. } => start(clocks, ticket, at, policies, false),
        TicketEvent::Responded { .. } => stop(clocks, at),
        TicketEvent::ClockWarned { clock_no, .. } => {
            for clock in clocks.iter_mut().filter(|clock| clock.clock_no == *clock_no && clock.next_at == Some(clock.warn_at)) {
                clock.next_at = Some(clock.due_at);
            }
            Vec::new()
        }
        TicketEvent::ClockMissed { clock_no, .. } => {
            for clock in clocks.iter_mut().filter(|clock| clock.clock_no == *clock_no && clock.state == ClockState::Running) {
                (clock.state, clock.next_at) = (ClockState::Missed, None);
            }
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn start(clocks: &mut Vec<Clock>, ticket: &Ticket, at: UnixMs, policies: &[Policy], void: bool) -> Vec<TicketEvent> {
    let policy = in_force(policies, at);
    let allowance = policy.promises.response;
    let (warn_at, due_at) = (at.plus_ms(allowance.warn_after_ms), at.plus_ms(allowance.due_after_ms));
    // An older clock that still runs warns first; a flapping fault does not ring once per flap.
    let warned_by_older = clocks.iter().any(|clock| clock.state == ClockState::Running);
    let clock_no = clocks.iter().map(|clock| clock.clock_no).max().unwrap_or(0) + 1;
    clocks.push(Clock {
        tenant_id: ticket.tenant_id.clone(),
        ticket_id: ticket.ticket_id.clone(),
        clock_no,
        kind: ClockKind::Response,
        policy_version: policy.version,
        state: if void { ClockState::Void } else { ClockState::Running },
        started_at: at,
        warn_at,
        due_at,
        stopped_at: None,
        next_at: match (void, warned_by_older) {
            (true, _) => None,
            (false, true) => Some(due_at),
            (false, false) => Some(warn_at),
        },
    });
    let kind = ClockKind::Response.as_str().to_owned();
    if void {
        Vec::new()
    } else {
        vec![TicketEvent::ClockStarted { clock_no, kind, policy_version: policy.version, warn_at, due_at }]
    }
}

fn stop(clocks: &mut [Clock], at: UnixMs) -> Vec<TicketEvent> {
    let mut told = Vec::new();
    for clock in clocks.iter_mut().filter(|clock| clock.is_unanswered()) {
        let (clock_no, kind, due_at) = (clock.clock_no, clock.kind.as_str().to_owned(), clock.due_at);
        let in_time = clock.state == ClockState::Running && at <= due_at;
        if clock.state == ClockState::Running && !in_time {
            told.push(TicketEvent::ClockMissed { clock_no, kind: kind.clone(), due_at });
        }
        clock.state = if in_time { ClockState::Met } else { ClockState::Missed };
        (clock.stopped_at, clock.next_at) = (Some(at), None);
        told.push(TicketEvent::ClockStopped { clock_no, kind, in_time, took_ms: at.since_ms(clock.started_at) });
    }
    told
}

impl Clock {
    /// It counts, and its proof has not come.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.stopped_at.is_none() && matches!(self.state, ClockState::Running | ClockState::Missed)
    }
}

#[cfg(test)]
mod tests;
