//! Tickets: the promise to deal with one or more episodes. Types; the decisions stand in `severity.rs`, `rules.rs` and `state.rs`,
//! the SQL in `store.rs`. Nothing here sends, waits or reads a clock.

use mainstay_shared::severity::{Attribution, BusinessImpact, Severity};
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

use crate::appliances::PatchNews;
use crate::words::Words;

pub(crate) mod severity;
pub(crate) mod grounds;
pub(crate) mod rules;
pub(crate) mod state;
pub(crate) mod acts;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod testing;

/// The source of a ticket that a person opened for a customer.
pub(crate) const SOURCE_HUMAN: &str = "human";

/// How much of a reporter's words stands in a headline.
const HEADLINE_CHARS: usize = 60;

/// Where a ticket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TicketState {
    /// Something is wrong.
    Open,
    /// All its episodes have cleared; asks for confirmation.
    Recovered,
    /// Over. A fault within the flap window reopens it.
    Closed,
}

impl TicketState {
    /// All states.
    pub(crate) const ALL: [Self; 3] = [Self::Open, Self::Recovered, Self::Closed];

    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recovered => "recovered",
            Self::Closed => "closed",
        }
    }

    /// The state of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A ticket as it stands now. Its history is its part of the tenant's event chain (`audit`), subject `ticket:ID`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ticket {
    pub(crate) tenant_id: String,
    /// `T-000042`.
    pub(crate) ticket_id: String,
    pub(crate) number: i64,
    /// `agent`, `silence`, `human`, `internal`.
    pub(crate) source: String,
    pub(crate) state: TicketState,
    /// What makes two faults one cause.
    pub(crate) cause: String,
    pub(crate) site_id: String,
    /// Empty for a site or internal ticket.
    pub(crate) appliance_id: String,
    pub(crate) component: String,
    pub(crate) code: String,
    /// Untrusted text from the agent, or the requester's words; empty for what the collector found, whose code says it.
    pub(crate) summary: String,
    pub(crate) impact: BusinessImpact,
    pub(crate) severity: Severity,
    /// The impact was presumed from what could not be known.
    pub(crate) presumed: bool,
    /// Why this impact: a `severity::Reason` name, the key of its text.
    pub(crate) reason: String,
    /// JSON of the `severity::Grounds` behind the decision.
    pub(crate) grounds: String,
    pub(crate) attribution: Attribution,
    pub(crate) assigned_to: Option<String>,
    pub(crate) taken_by: Option<String>,
    pub(crate) responded_by: Option<String>,
    pub(crate) opened_at: UnixMs,
    /// When the condition began: receipt minus the record's age, minus how long it had lasted.
    pub(crate) fault_at: UnixMs,
    pub(crate) responded_at: Option<UnixMs>,
    pub(crate) recovered_at: Option<UnixMs>,
    pub(crate) closed_at: Option<UnixMs>,
    pub(crate) changed_at: UnixMs,
}

impl Ticket {
    /// What it is about, in one line of the reader's language: the fault by its code, or the first words of who reported it. `place`
    /// (the appliance, or the site) stands where the component has no name of its own. Holds untrusted text.
    pub(crate) fn headline(&self, w: Words, place: &str) -> String {
        if self.source != SOURCE_HUMAN {
            return w.fault(&self.component, &self.code, place);
        }
        let line = self.summary.lines().next().unwrap_or_default();
        let cut = if line.chars().count() > HEADLINE_CHARS { "…" } else { "" };
        let words: String = line.chars().take(HEADLINE_CHARS).collect();
        w.pair(&w.of("fault", &self.code), &format!("{words}{cut}"))
    }
}

/// How a named engineer responded (C2, C3: an automatic mail, an acknowledgement or an assignment is none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseWay {
    /// Called the customer.
    Phone,
    /// Wrote to the customer.
    Mail,
    /// Spoke with the customer on site.
    OnSite,
    /// Began the diagnosis.
    Diagnosis,
}

/// What happens to a ticket: the `kind` and `body` of its events. Serialised with `type` as the event's kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TicketEvent {
    /// It opened by itself or by a person.
    Opened { impact: BusinessImpact, presumed: bool, reason: String, summary: String, already_recovered: bool },
    /// Another episode joined.
    Joined { appliance_id: String, component: String, code: String, episode: String, summary: String },
    /// The impact changed; downward only by C8's customer support manager, with `why` and the customer's word.
    ImpactChanged { from: BusinessImpact, to: BusinessImpact, presumed: bool, reason: String, why: String, customer_word: String },
    /// One of its episodes cleared.
    EpisodeCleared { appliance_id: String, component: String, code: String, episode: String, summary: String },
    /// The same fault came back within the flap window.
    Reopened { component: String, code: String, episode: String, summary: String },
    /// All episodes cleared.
    Recovered,
    /// Closed by a person, or by the documented rule after confirmation time.
    Closed { why: String },
    /// A named engineer took it.
    Taken { staff_id: String, name: String },
    /// The named engineer contacted the customer or began the diagnosis: the proof that stops the response clock.
    Responded { staff_id: String, name: String, way: ResponseWay, note: String },
    /// Given to somebody; no response.
    Assigned { to_staff_id: String, to_name: String },
    /// A note.
    Noted { text: String },
    /// Whose fault it turned out to be, with grounds.
    Attributed { attribution: Attribution, why: String },
    /// A clock began.
    ClockStarted { clock_no: i64, kind: String, policy_version: i64, warn_at: UnixMs, due_at: UnixMs },
    /// A clock's warning time came.
    ClockWarned { clock_no: i64, kind: String, due_at: UnixMs },
    /// A clock ran out: the promise was broken.
    ClockMissed { clock_no: i64, kind: String, due_at: UnixMs },
    /// A clock was stopped by proof, in time or late.
    ClockStopped { clock_no: i64, kind: String, in_time: bool, took_ms: i64 },
    /// A signed file that was offered from the ticket, or that it is about, came a step further on an appliance.
    Patch {
        appliance_id: String,
        #[serde(flatten)]
        news: PatchNews,
    },
    /// A notice was accepted by its receiver's server.
    NoticeSent { kind: String, recipient: String },
    /// A notice was refused for good.
    NoticeRefused { kind: String, recipient: String, error: String },
}

/// The subject under which a ticket's events stand in the chain.
pub(crate) fn subject(ticket_id: &str) -> String {
    format!("ticket:{ticket_id}")
}
