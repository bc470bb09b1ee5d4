//! Open, join or reopen? Pure. "One cause" is: the same service group; or the same appliance within five minutes with a declared
//! dependency; or the same site silent; nothing else (DESIGN, Tickets).
//!
//! Looks at a customer's tickets that are not closed, or closed within the flap window; never at what a text says.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_shared::fault::FaultKey;
use mainstay_shared::severity::BusinessImpact;
use mainstay_shared::time_source::UnixMs;

use super::grounds::{cause_of_site, causes, is_silence, of_episode, one_depends_on_the_other};
use super::severity::{Decision, Grounds, decide};
use super::{Ticket, TicketState};
use crate::faults::Episode;
use crate::faults::landscape::Landscape;

/// How near in time a fault and one that depends on it are one cause.
const DEPENDENCY_WINDOW_MS: i64 = 5 * 60_000;

/// A fault that has no ticket yet.
#[derive(Debug, Clone)]
pub(crate) struct Arriving<'a> {
    pub(crate) appliance_id: &'a str,
    pub(crate) key: &'a FaultKey,
    pub(crate) occurred_at: UnixMs,
    /// Over before anybody could be told.
    pub(crate) already_cleared: bool,
    /// The whole site is silent.
    pub(crate) silent_site: Option<&'a SilentSite>,
}

/// A site of which nothing is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SilentSite {
    pub(crate) site_id: String,
    pub(crate) appliances: BTreeSet<String>,
}

/// A ticket that it might belong to, with its episodes.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) ticket: Ticket,
    pub(crate) episodes: Vec<Episode>,
}

/// What becomes of it; positions are those of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Open(OpenReason),
    Join(usize, SameCause),
    Reopen(usize, SameCause),
}

/// Why a ticket opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenReason {
    /// No ticket has this cause.
    NewCause,
    /// Its ticket recovered longer ago than the flap window: that one closes, a new one opens.
    AfterRecovery,
}

/// Why two faults are one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SameCause {
    /// The same fault, the same service, or the same service group.
    SameGroup,
    /// Same appliance, within five minutes, declared dependency.
    Dependency,
    /// The same site is silent.
    SiteSilent,
}

/// Decides for one fault at `now`.
pub(crate) fn place(
    arriving: &Arriving<'_>,
    candidates: &[Candidate],
    landscape: &Landscape,
    flap_window: Duration,
    now: UnixMs,
) -> Action {
    let matching =
        |wanted: TicketState| {
            candidates.iter().enumerate().rev().filter(move |(_, candidate)| candidate.ticket.state == wanted).find_map(
                |(position, candidate)| same_cause(arriving, candidate, landscape).map(|why| (position, candidate, why)),
            )
        };
    if let Some((position, _, why)) = matching(TicketState::Open) {
        return Action::Join(position, why);
    }
    let recovered = matching(TicketState::Recovered);
    if let Some((position, candidate, why)) = &recovered {
        let since = candidate.ticket.recovered_at.unwrap_or(now);
        if arriving.already_cleared {
            return Action::Join(*position, *why);
        }
        if now <= since.plus(flap_window) {
            return Action::Reopen(*position, *why);
        }
    }
    // A closed one can't come back beside a living one of its cause.
    let has_heir = |closed: &Ticket| {
        candidates.iter().any(|other| other.ticket.state != TicketState::Closed && other.ticket.cause == closed.cause)
    };
    if let Some((position, candidate, why)) = matching(TicketState::Closed) {
        let since = candidate.ticket.closed_at.unwrap_or_default();
        if now <= since.plus(flap_window) && recovered.is_none() && !has_heir(&candidate.ticket) {
            return if arriving.already_cleared { Action::Join(position, why) } else { Action::Reopen(position, why) };
        }
    }
    Action::Open(if recovered.is_some() { OpenReason::AfterRecovery } else { OpenReason::NewCause })
}

fn same_cause(arriving: &Arriving<'_>, candidate: &Candidate, landscape: &Landscape) -> Option<SameCause> {
    let mut own = causes(arriving.appliance_id, arriving.key, landscape);
    own.extend(arriving.silent_site.map(|site| cause_of_site(&site.site_id)));
    if own.contains(&candidate.ticket.cause) {
        return Some(SameCause::SameGroup);
    }
    candidate.episodes.iter().find_map(|episode| {
        let key = FaultKey::new(&episode.component, &episode.code);
        let near = episode.told_at().since_ms(arriving.occurred_at).abs() <= DEPENDENCY_WINDOW_MS;
        if !own.is_disjoint(&causes(&episode.appliance_id, &key, landscape)) {
            Some(SameCause::SameGroup)
        } else if episode.appliance_id == arriving.appliance_id
            && near
            && one_depends_on_the_other(arriving.appliance_id, arriving.key, &key, landscape)
        {
            Some(SameCause::Dependency)
        } else if arriving.silent_site.is_some_and(|site| is_silence(&key) && site.appliances.contains(&episode.appliance_id)) {
            Some(SameCause::SiteSilent)
        } else {
            None
        }
    })
}

/// The decision for a ticket: the gravest of its open episodes, with its grounds. `None`: nothing of it is open.
pub(crate) fn weigh(episodes: &[Episode], landscape: &Landscape) -> Option<(Decision, Grounds)> {
    episodes
        .iter()
        .filter(|episode| episode.open)
        .map(|episode| {
            let grounds = of_episode(episode, landscape);
            (decide(&grounds), grounds)
        })
        .reduce(|gravest, next| if weight(&next.0) > weight(&gravest.0) { next } else { gravest })
}

/// A certain interruption outweighs a presumed one.
fn weight(decision: &Decision) -> (BusinessImpact, bool) {
    (decision.impact, !decision.presumed)
}

/// What a new decision means for a ticket's impact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regrade {
    /// Graver than before.
    Upward,
    /// What was presumed is now known.
    Confirmed,
    /// As it was, or lighter: downward only by a person.
    Keep(KeepReason),
}

/// Why an impact stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepReason {
    /// The grounds have not become graver.
    NotGraver,
    /// A person graded it knowing grounds as grave as these.
    PersonDecided,
}

/// Compares. `person_knew`: the gravest automatic impact when a person last graded the ticket by hand, if one did.
pub(crate) fn regrade(ticket: &Ticket, new: &Decision, person_knew: Option<BusinessImpact>) -> Regrade {
    if person_knew.is_some_and(|knew| new.impact <= knew) {
        Regrade::Keep(KeepReason::PersonDecided)
    } else if new.impact > ticket.impact {
        Regrade::Upward
    } else if new.impact == ticket.impact && ticket.presumed && !new.presumed {
        Regrade::Confirmed
    } else {
        Regrade::Keep(KeepReason::NotGraver)
    }
}

#[cfg(test)]
mod tests;
