//! What a member of staff may do to a ticket, and when: pure. `flow::staff_acts` carries it out.
//!
//! The role decides (C8); a refusal says why, in a word that a page can translate. Nothing here reads or writes.

use mainstay_shared::severity::{Attribution, BusinessImpact};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::severity::Reason;
use super::{ResponseWay, Ticket, TicketEvent, TicketState};
use crate::customers::Role;

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct By {
    /// As in `audit`: `staff:ID` for a person at the console, `token:ID` for the API.
    pub(crate) actor: String,
    pub(crate) staff_id: String,
    /// The person's name, as the customer is told it.
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// An act on a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Act {
    /// Becomes the named engineer. Not yet a response.
    Take,
    /// Has contacted the customer or begun the diagnosis: takes the ticket if nobody has, and stops the response clock.
    Respond {
        /// `phone`, `mail`, `on_site`, `diagnosis`.
        #[schema(value_type = String)]
        way: ResponseWay,
        note: String,
    },
    /// Gives it to a colleague. No response.
    Assign { to_staff_id: String },
    /// Writes something down.
    Note { text: String },
    /// Says whose fault it turned out to be.
    Attribute {
        /// `ours`, `customer`, `third_party`, `unknown`.
        #[schema(value_type = String)]
        attribution: Attribution,
        why: String,
    },
    /// Upward: whoever works on tickets, with a reason. Downward: the customer support manager, with the customer's word too.
    ChangeImpact {
        /// `none`, `slight`, `severe`, `interrupted`.
        #[schema(value_type = String)]
        to: BusinessImpact,
        why: String,
        customer_word: String,
    },
    /// Confirms that it is over.
    Close { why: String },
    /// It is not over after all.
    Reopen { why: String },
}

/// Why an act was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "refused", rename_all = "snake_case")]
pub(crate) enum Refused {
    /// No ticket of that number.
    #[error("there is no ticket {ticket_id}")]
    NoSuchTicket { ticket_id: String },
    /// The customer, site or appliance of a request does not exist.
    #[error("{what} {id:?} is not known for this customer")]
    NoSuch { what: String, id: String },
    /// The role does not work on tickets.
    #[error("the role {role} does not do this; it takes {accepted}")]
    Role { role: String, accepted: String },
    /// The colleague does not exist, is disabled, or does not work on tickets.
    #[error("{to_staff_id:?} can't be given a ticket: expected an active engineer or manager who works on tickets")]
    NoSuchColleague { to_staff_id: String },
    /// A text that must say something says nothing.
    #[error("{field} is empty: {expected}")]
    Empty { field: String, expected: String },
    /// Nobody has answered the customer yet.
    #[error("no response is recorded yet: record how the customer was contacted or the diagnosis begun, then close")]
    NotAnswered,
    /// Another ticket of the same cause is open.
    #[error("{ticket_id} is open for the same cause: go on there")]
    CauseIsOpen { ticket_id: String },
    /// A closed ticket takes notes and can be reopened; nothing else.
    #[error("the ticket is closed: reopen it first")]
    Closed,
    /// Something still fails.
    #[error("{open_episodes} fault(s) of it have not cleared: only a service or support manager closes it all the same")]
    StillFailing { open_episodes: usize },
}

impl Refused {
    /// A stable word for the API and for text keys.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoSuchTicket { .. } => "no_such_ticket",
            Self::NoSuch { .. } => "no_such_thing",
            Self::Role { .. } => "role_refused",
            Self::NoSuchColleague { .. } => "no_such_colleague",
            Self::Empty { .. } => "text_missing",
            Self::NotAnswered => "not_answered",
            Self::CauseIsOpen { .. } => "cause_is_open",
            Self::Closed => "ticket_closed",
            Self::StillFailing { .. } => "still_failing",
        }
    }
}

/// What an act is judged by, beside the ticket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    /// A clock of the ticket has no proof yet.
    pub(crate) unanswered: bool,
    pub(crate) open_episodes: usize,
    /// The colleague named by [`Act::Assign`], if he can be given a ticket.
    pub(crate) colleague: Option<String>,
    /// Another ticket of the same cause that is not closed.
    pub(crate) same_cause: Option<String>,
}

/// What an act makes happen; nothing, if it is so already.
///
/// # Errors
/// With the reason of the refusal.
pub(crate) fn decide(ticket: &Ticket, by: &By, act: &Act, now: &Circumstances) -> Result<Vec<TicketEvent>, Refused> {
    may(by.role, act)?;
    let is_closed = ticket.state == TicketState::Closed;
    if is_closed && !matches!(act, Act::Note { .. } | Act::Attribute { .. } | Act::Reopen { .. } | Act::Close { .. }) {
        return Err(Refused::Closed);
    }
    match act {
        Act::Take => Ok(taken(ticket, by).into_iter().collect()),
        Act::Respond { way, note } => Ok(respond(ticket, by, *way, note, now)),
        Act::Assign { to_staff_id } => {
            let to_name = now.colleague.clone().ok_or_else(|| Refused::NoSuchColleague { to_staff_id: to_staff_id.clone() })?;
            let is_so = ticket.assigned_to.as_ref() == Some(to_staff_id);
            Ok(if is_so { Vec::new() } else { vec![TicketEvent::Assigned { to_staff_id: to_staff_id.clone(), to_name }] })
        }
        Act::Note { text } => {
            says_something("text", text, "what is to be remembered")?;
            Ok(vec![TicketEvent::Noted { text: text.clone() }])
        }
        Act::Attribute { attribution, why } => {
            says_something("why", why, "the grounds of the attribution")?;
            Ok(vec![TicketEvent::Attributed { attribution: *attribution, why: why.clone() }])
        }
        Act::ChangeImpact { to, why, customer_word } => change_impact(ticket, by, *to, why, customer_word),
        Act::Close { why } => close(ticket, by, why, now),
        Act::Reopen { why } => reopen(ticket, why, now),
    }
}

fn may(role: Role, act: &Act) -> Result<(), Refused> {
    let (ok, accepted) = match act {
        // Whoever serves the customer writes down what he learnt.
        Act::Note { .. } => (!role.administers(), "any role of the service organisation"),
        _ => (role.works_on_tickets(), "system_engineer, support_manager or service_manager"),
    };
    if ok { Ok(()) } else { Err(Refused::Role { role: role.as_str().to_owned(), accepted: accepted.to_owned() }) }
}

fn says_something(field: &str, text: &str, expected: &str) -> Result<(), Refused> {
    if text.trim().is_empty() {
        return Err(Refused::Empty { field: field.to_owned(), expected: expected.to_owned() });
    }
    Ok(())
}

fn taken(ticket: &Ticket, by: &By) -> Option<TicketEvent> {
    let is_so = ticket.taken_by.as_ref() == Some(&by.staff_id);
    (!is_so).then(|| TicketEvent::Taken { staff_id: by.staff_id.clone(), name: by.name.clone() })
}

/// The proof. When everything is answered already, a further contact is a note.
fn respond(ticket: &Ticket, by: &By, way: ResponseWay, note: &str, now: &Circumstances) -> Vec<TicketEvent> {
    if ticket.responded_at.is_some() && !now.unanswered {
        let is_said = !note.trim().is_empty();
        return is_said.then(|| TicketEvent::Noted { text: note.to_owned() }).into_iter().collect();
    }
    let event = TicketEvent::Responded { staff_id: by.staff_id.clone(), name: by.name.clone(), way, note: note.to_owned() };
    taken(ticket, by).into_iter().chain([event]).collect()
}

fn change_impact(
    ticket: &Ticket,
    by: &By,
    to: BusinessImpact,
    why: &str,
    customer_word: &str,
) -> Result<Vec<TicketEvent>, Refused> {
    if to == ticket.impact && !ticket.presumed {
        return Ok(Vec::new());
    }
    says_something("why", why, "the reason of the change")?;
    if to < ticket.impact {
        if !by.role.lowers_impact() {
            return Err(Refused::Role { role: by.role.as_str().to_owned(), accepted: Role::SupportManager.as_str().to_owned() });
        }
        says_something("customer_word", customer_word, "what the customer said, and who")?;
    }
    Ok(vec![TicketEvent::ImpactChanged {
        from: ticket.impact,
        to,
        presumed: false,
        reason: Reason::HumanAnswer.as_str().to_owned(),
        why: why.to_owned(),
        customer_word: customer_word.to_owned(),
    }])
}

fn close(ticket: &Ticket, by: &By, why: &str, now: &Circumstances) -> Result<Vec<TicketEvent>, Refused> {
    if ticket.state == TicketState::Closed {
        return Ok(Vec::new());
    }
    says_something("why", why, "how it ended")?;
    if now.unanswered {
        return Err(Refused::NotAnswered);
    }
    if now.open_episodes > 0 && by.role == Role::SystemEngineer {
        return Err(Refused::StillFailing { open_episodes: now.open_episodes });
    }
    Ok(vec![TicketEvent::Closed { why: why.to_owned() }])
}

fn reopen(ticket: &Ticket, why: &str, now: &Circumstances) -> Result<Vec<TicketEvent>, Refused> {
    if ticket.state == TicketState::Open {
        return Ok(Vec::new());
    }
    says_something("why", why, "what is wrong again")?;
    if let Some(ticket_id) = &now.same_cause {
        return Err(Refused::CauseIsOpen { ticket_id: ticket_id.clone() });
    }
    Ok(vec![TicketEvent::Reopened {
        component: ticket.component.clone(),
        code: ticket.code.clone(),
        episode: String::new(),
        summary: why.to_owned(),
    }])
}

#[cfg(test)]
mod tests;
