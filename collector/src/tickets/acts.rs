//! What a member of staff may do to a ticket, and when: pure. `flow::staff_acts` carries it out.
//!
//! The role decides (C8); a refusal says why, in a word that a page can translate. Nothing here reads or writes.

use mainstay_shared::severity::{Attribution, BusinessImpact};
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Act {
    /// Becomes the named engineer. Not yet a response.
    Take,
    /// Has contacted the customer or begun the diagnosis: takes the ticket if nobody has, and stops the response clock.
    Respond { way: ResponseWay, note: String },
    /// Gives it to a colleague. No response. `to_name` is looked up by the story.
    Assign { to_staff_id: String },
    /// Writes something down.
    Note { text: String },
    /// Says whose fault it turned out to be.
    Attribute { attribution: Attribution, why: String },
    /// Upward: whoever works on tickets, with a reason. Downward: the customer support manager, with the customer's word too.
    ChangeImpact { to: BusinessImpact, why: String, customer_word: String },
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
    /// A closed ticket takes notes and can be reopened; nothing else.
    #[error("the ticket is closed: reopen it first")]
    Closed,
    /// Something still fails.
    #[error("{open_episodes} fault(s) of it have not cleared: say in the reason why it closes all the same")]
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
            Self::Closed => "ticket_closed",
            Self::StillFailing { .. } => "still_failing",
        }
    }
}
