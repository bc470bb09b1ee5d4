//! A ticket's life, and how an event changes its row. Pure.
//!
//! ```text
//!              all episodes cleared              confirmed, or the rule
//!   ┌──────┐ ────────────────────────▶ ┌───────────┐ ─────────────────▶ ┌────────┐
//!   │ open │                           │ recovered │                    │ closed │
//!   └──────┘ ◀──────────────────────── └───────────┘                    └────────┘
//!       ▲ │    reopened in the flap window                                │  ▲
//!       │ └───────────────── closed by a person ──────────────────────────┼──┘
//!       └────────────── reopened in the flap window, or by a person ──────┘
//! ```
//! The row is the fold of the ticket's events: whatever stands in it can be found again in the chain.

use mainstay_shared::time_source::UnixMs;

use super::TicketState::{Closed, Open, Recovered};
use super::{Ticket, TicketEvent, TicketState};

/// An event that this state can't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ticket_id} is {}: it can't be {event}", state.as_str())]
pub(crate) struct Impossible {
    ticket_id: String,
    state: TicketState,
    event: &'static str,
}

/// What an event does to the state: `None` for an event that the state can't have.
fn next(state: TicketState, event: &TicketEvent) -> Option<TicketState> {
    use TicketEvent as E;
    match (state, event) {
        (Open | Recovered, E::Opened { .. }) => Some(state),
        (Closed, E::Opened { .. }) => None,
        (Open, E::Recovered) => Some(Recovered),
        (Recovered | Closed, E::Recovered) => None,
        (Recovered | Closed, E::Reopened { .. }) => Some(Open),
        (Open, E::Reopened { .. }) => None,
        (Open | Recovered, E::Closed { .. }) => Some(Closed),
        (Closed, E::Closed { .. }) => None,
        (Open | Recovered, E::Taken { .. } | E::Assigned { .. } | E::Responded { .. } | E::ImpactChanged { .. }) => Some(state),
        (Closed, E::Taken { .. } | E::Assigned { .. } | E::Responded { .. } | E::ImpactChanged { .. }) => None,
        // What arrives late, what time does, and what people write down never moves a ticket.
        (
            Open | Recovered | Closed,
            E::Joined { .. }
            | E::EpisodeCleared { .. }
            | E::Noted { .. }
            | E::Attributed { .. }
            | E::ClockStarted { .. }
            | E::ClockWarned { .. }
            | E::ClockMissed { .. }
            | E::ClockStopped { .. }
            | E::Patch { .. }
            | E::NoticeSent { .. }
            | E::NoticeRefused { .. },
        ) => Some(state),
    }
}

/// Applies an event of `at` to the row.
///
/// # Errors
/// If the state can't have it: the caller decided on an older ticket than it now writes.
pub(crate) fn apply(ticket: &mut Ticket, at: UnixMs, event: &TicketEvent) -> Result<(), Impossible> {
    let Some(next) = next(ticket.state, event) else {
        return Err(Impossible { ticket_id: ticket.ticket_id.clone(), state: ticket.state, event: name(event) });
    };
    ticket.state = next;
    ticket.changed_at = at;
    match event {
        TicketEvent::ImpactChanged { to, presumed, reason, .. } => {
            (ticket.impact, ticket.severity, ticket.presumed) = (*to, to.severity(), *presumed);
            ticket.reason.clone_from(reason);
        }
        TicketEvent::Recovered => ticket.recovered_at = Some(at),
        TicketEvent::Closed { .. } => ticket.closed_at = Some(at),
        TicketEvent::Reopened { .. } => {
            (ticket.recovered_at, ticket.closed_at) = (None, None);
            (ticket.responded_at, ticket.responded_by) = (None, None);
        }
        TicketEvent::Taken { staff_id, .. } => ticket.taken_by = Some(staff_id.clone()),
        TicketEvent::Assigned { to_staff_id, .. } => ticket.assigned_to = Some(to_staff_id.clone()),
        TicketEvent::Responded { staff_id, .. } if ticket.responded_at.is_none() => {
            (ticket.responded_at, ticket.responded_by) = (Some(at), Some(staff_id.clone()));
        }
        TicketEvent::Attributed { attribution, .. } => ticket.attribution = *attribution,
        TicketEvent::Opened { .. }
        | TicketEvent::Joined { .. }
        | TicketEvent::EpisodeCleared { .. }
        | TicketEvent::Responded { .. }
        | TicketEvent::Noted { .. }
        | TicketEvent::ClockStarted { .. }
        | TicketEvent::ClockWarned { .. }
        | TicketEvent::ClockMissed { .. }
        | TicketEvent::ClockStopped { .. }
        | TicketEvent::Patch { .. }
        | TicketEvent::NoticeSent { .. }
        | TicketEvent::NoticeRefused { .. } => {}
    }
    Ok(())
}

/// The participle in the error.
fn name(event: &TicketEvent) -> &'static str {
    match event {
        TicketEvent::Opened { .. } => "opened",
        TicketEvent::Recovered => "recovered",
        TicketEvent::Reopened { .. } => "reopened",
        TicketEvent::Closed { .. } => "closed",
        TicketEvent::Taken { .. } => "taken",
        TicketEvent::Assigned { .. } => "assigned",
        TicketEvent::Responded { .. } => "responded to",
        _ => "changed",
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::severity::{Attribution, BusinessImpact};

    use super::*;
    use crate::tickets::testing::ticket;

    fn reopened() -> TicketEvent {
        TicketEvent::Reopened { component: "c".into(), code: "x".into(), episode: "e".into(), summary: "s".into() }
    }

    fn taken() -> TicketEvent {
        TicketEvent::Taken { staff_id: "w".into(), name: "W".into() }
    }

    fn closed() -> TicketEvent {
        TicketEvent::Closed { why: "w".into() }
    }

    #[test]
    fn each_state_has_its_way_out_and_no_other() {
        let rows = [
            ("all episodes cleared", Open, TicketEvent::Recovered, Some(Recovered)),
            ("what is recovered recovers no more", Recovered, TicketEvent::Recovered, None),
            ("a dead ticket does not recover", Closed, TicketEvent::Recovered, None),
            ("confirmed", Recovered, closed(), Some(Closed)),
            ("closed by a manager while it fails", Open, closed(), Some(Closed)),
            ("closed once", Closed, closed(), None),
            ("back in the flap window", Recovered, reopened(), Some(Open)),
            ("back after closing", Closed, reopened(), Some(Open)),
            ("what is open is not reopened", Open, reopened(), None),
            ("taken while recovered", Recovered, taken(), Some(Recovered)),
            ("a dead ticket is not taken", Closed, taken(), None),
            ("a note on a dead ticket", Closed, TicketEvent::Noted { text: "n".into() }, Some(Closed)),
            (
                "its attribution found out later",
                Closed,
                TicketEvent::Attributed { attribution: Attribution::Customer, why: "w".into() },
                Some(Closed),
            ),
        ];
        for (sentence, state, event, expected) in rows {
            let mut ticket = Ticket { state, ..ticket() };
            let outcome = apply(&mut ticket, UnixMs(9), &event).map(|()| ticket.state).ok();
            assert_eq!(outcome, expected, "{sentence}");
        }
    }

    #[test]
    fn an_impossible_event_names_the_ticket_and_changes_nothing() {
        let mut ticket = Ticket { state: Closed, ..ticket() };
        let before = ticket.clone();
        let error = apply(&mut ticket, UnixMs(9), &taken()).expect_err("impossible");
        assert_eq!(error.to_string(), "T-000001 is closed: it can't be taken");
        assert_eq!(ticket, before);
    }

    #[test]
    fn a_reopened_ticket_waits_for_a_new_response_and_keeps_its_impact() {
        let mut ticket = ticket();
        let responded = TicketEvent::Responded {
            staff_id: "w".into(),
            name: "W".into(),
            way: crate::tickets::ResponseWay::Diagnosis,
            note: String::new(),
        };
        for event in [&responded, &TicketEvent::Recovered, &reopened()] {
            apply(&mut ticket, UnixMs(9), event).expect("possible");
        }
        assert_eq!((ticket.responded_at, ticket.recovered_at, ticket.impact), (None, None, BusinessImpact::Interrupted));
    }
}
