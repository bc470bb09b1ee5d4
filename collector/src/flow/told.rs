//! What is told of a fault, by an agent or by the collector itself, as the rows and events that come of it.
//!
//! Plain conversions for `scene`; nothing here decides, reads or writes.

use mainstay_shared::fault::{FaultKey, Level};
use mainstay_shared::severity::Attribution;
use mainstay_shared::time_source::UnixMs;

use crate::faults::{CODE_SITE_SILENT, Episode};
use crate::tickets::rules::SilentSite;
use crate::tickets::severity::{Decision, Grounds};
use crate::tickets::{Ticket, TicketEvent, TicketState};

/// Whose report it is, from the certificate (R13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrivedFrom {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) site_id: String,
}

/// What is told of one fault, by an agent or by the collector itself.
pub(super) struct Told<'a> {
    pub(super) who: &'a ArrivedFrom,
    pub(super) key: &'a FaultKey,
    pub(super) episode: String,
    pub(super) level: Level,
    pub(super) summary: &'a str,
    /// JSON of `FaultGrounds`.
    pub(super) grounds: String,
    /// When the condition began.
    pub(super) began_at: UnixMs,
    /// When it was told: later by as long as it had lasted.
    pub(super) occurred_at: UnixMs,
    /// A ticket's source, if one opens.
    pub(super) source: &'static str,
    /// The whole site is silent: its appliances.
    pub(super) silent_site: Option<&'a SilentSite>,
}

impl Told<'_> {
    /// The episode as it is received at `now`; `over_at`: it is over already.
    pub(super) fn episode(&self, now: UnixMs, over_at: Option<UnixMs>) -> Episode {
        Episode {
            tenant_id: self.who.tenant_id.clone(),
            appliance_id: self.who.appliance_id.clone(),
            component: self.key.component.clone(),
            code: self.key.code.clone(),
            episode: self.episode.clone(),
            open: over_at.is_none(),
            level: self.level,
            summary: self.summary.to_owned(),
            grounds: self.grounds.clone(),
            ticket_id: String::new(),
            raised_at: self.began_at,
            received_at: now,
            cleared_at: over_at,
        }
    }
}

/// Whether an episode is of this fault.
pub(super) fn is_of(episode: &Episode, appliance_id: &str, key: &FaultKey) -> bool {
    episode.appliance_id == appliance_id && episode.component == key.component && episode.code == key.code
}

/// Whether two rows are the same episode of a customer.
pub(super) fn same_episode(one: &Episode, other: &Episode) -> bool {
    (&one.appliance_id, &one.component, &one.code, &one.episode)
        == (&other.appliance_id, &other.component, &other.code, &other.episode)
}

/// The event of an episode that joins a ticket.
pub(super) fn joined(episode: &Episode) -> TicketEvent {
    TicketEvent::Joined {
        appliance_id: episode.appliance_id.clone(),
        component: episode.component.clone(),
        code: episode.code.clone(),
        episode: episode.episode.clone(),
        summary: episode.summary.clone(),
    }
}

/// The event of an episode that is over.
pub(super) fn cleared(episode: &Episode, summary: &str) -> TicketEvent {
    TicketEvent::EpisodeCleared {
        appliance_id: episode.appliance_id.clone(),
        component: episode.component.clone(),
        code: episode.code.clone(),
        episode: episode.episode.clone(),
        summary: summary.to_owned(),
    }
}

/// The event of an episode that brings a ticket back.
pub(super) fn reopened(episode: &Episode) -> TicketEvent {
    TicketEvent::Reopened {
        component: episode.component.clone(),
        code: episode.code.clone(),
        episode: episode.episode.clone(),
        summary: episode.summary.clone(),
    }
}

/// The ticket that opens for an episode.
///
/// # Errors
/// If the grounds can't be written as JSON.
pub(super) fn new_ticket(
    now: UnixMs,
    told: &Told<'_>,
    episode: &Episode,
    number: i64,
    cause: String,
    decision: Decision,
    found: &Grounds,
) -> anyhow::Result<Ticket> {
    let is_site = told.silent_site.is_some();
    Ok(Ticket {
        tenant_id: episode.tenant_id.clone(),
        ticket_id: episode.ticket_id.clone(),
        number,
        source: told.source.to_owned(),
        state: if episode.open { TicketState::Open } else { TicketState::Recovered },
        cause,
        site_id: told.who.site_id.clone(),
        appliance_id: if is_site { String::new() } else { episode.appliance_id.clone() },
        component: episode.component.clone(),
        code: if is_site { CODE_SITE_SILENT.to_owned() } else { episode.code.clone() },
        summary: episode.summary.clone(),
        impact: decision.impact,
        severity: decision.severity,
        presumed: decision.presumed,
        reason: decision.reason.as_str().to_owned(),
        grounds: serde_json::to_string(found)?,
        attribution: Attribution::Unknown,
        assigned_to: None,
        taken_by: None,
        responded_by: None,
        opened_at: now,
        fault_at: episode.raised_at,
        responded_at: None,
        recovered_at: (!episode.open).then_some(now),
        closed_at: None,
        changed_at: now,
    })
}
