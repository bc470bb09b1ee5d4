//! Who is told of what, and why (C7, C8, C10); when a mail that was not taken is tried again. Pure.
//!
//! A role that nobody fills for the customer falls to everyone who has it, so that a critical fault is never told to nobody.

use std::time::Duration;

use mainstay_shared::severity::Severity;
use mainstay_shared::time_source::UnixMs;

use super::Recipient;
use crate::customers::{Contact, Role, Serving, Staff};
use crate::tickets::{Ticket, TicketEvent};

/// What a notice says. One template each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Opened,
    Upgraded,
    Warned,
    Missed,
    Taken,
    Responded,
    Recovered,
    Reopened,
    Closed,
}

impl Kind {
    /// All kinds of notices about a ticket.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::Opened,
        Self::Upgraded,
        Self::Warned,
        Self::Missed,
        Self::Taken,
        Self::Responded,
        Self::Recovered,
        Self::Reopened,
        Self::Closed,
    ];

    /// The name in the outbox and in the ticket's record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Upgraded => "upgraded",
            Self::Warned => "warned",
            Self::Missed => "missed",
            Self::Taken => "taken",
            Self::Responded => "responded",
            Self::Recovered => "recovered",
            Self::Reopened => "reopened",
            Self::Closed => "closed",
        }
    }
}

/// What an event is told as; `None`: it is not told, or only in the daily digest.
pub(crate) fn kind_of(event: &TicketEvent, ticket: &Ticket) -> Option<Kind> {
    match event {
        TicketEvent::Opened { already_recovered: true, .. } => None,
        TicketEvent::Opened { .. } => Some(Kind::Opened),
        TicketEvent::ImpactChanged { from, to, .. } if from.severity() < to.severity() => Some(Kind::Upgraded),
        TicketEvent::Reopened { .. } => Some(Kind::Reopened),
        TicketEvent::Recovered => Some(Kind::Recovered),
        TicketEvent::Closed { .. } => Some(Kind::Closed),
        TicketEvent::Taken { .. } => Some(Kind::Taken),
        TicketEvent::Responded { .. } => Some(Kind::Responded),
        // A clock that still runs out on a closed ticket has nobody left to hurry.
        TicketEvent::ClockWarned { .. } => ticket.closed_at.is_none().then_some(Kind::Warned),
        TicketEvent::ClockMissed { .. } => Some(Kind::Missed),
        TicketEvent::ImpactChanged { .. }
        | TicketEvent::Joined { .. }
        | TicketEvent::EpisodeCleared { .. }
        | TicketEvent::Assigned { .. }
        | TicketEvent::Noted { .. }
        | TicketEvent::Attributed { .. }
        | TicketEvent::ClockStarted { .. }
        | TicketEvent::ClockStopped { .. }
        | TicketEvent::Patch { .. }
        | TicketEvent::NoticeSent { .. }
        | TicketEvent::NoticeRefused { .. } => None,
    }
}

/// Everyone who could be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct People {
    /// Active staff that serves the customer.
    pub(crate) serving: Vec<Serving>,
    /// All accounts, disabled ones too.
    pub(crate) staff: Vec<Staff>,
    /// The customer's contacts.
    pub(crate) contacts: Vec<Contact>,
}

/// Why a person is told; said at the end of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Serves the customer in this role.
    Serves(Role),
    /// Has this role, and nobody serves the customer in it.
    NobodyElse(Role),
    /// Nobody has any of the roles: an operator must know.
    LastResort,
    /// A contact of the customer's.
    Contact,
}

/// One person to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) recipient: Recipient,
    pub(crate) why: Why,
}

/// The roles that are told of a kind.
fn roles(kind: Kind, severity: Severity) -> &'static [Role] {
    use Role::{SeniorManagement, ServiceManager, SupportManager, SystemEngineer};
    match (kind, severity) {
        (Kind::Opened | Kind::Upgraded | Kind::Reopened | Kind::Warned, Severity::Critical) => {
            &[SystemEngineer, SupportManager, ServiceManager]
        }
        (Kind::Opened | Kind::Upgraded | Kind::Reopened | Kind::Warned, Severity::General) | (Kind::Recovered, _) => {
            &[SystemEngineer, SupportManager]
        }
        (Kind::Missed, _) => &[SupportManager, ServiceManager, SeniorManagement],
        (Kind::Taken | Kind::Responded | Kind::Closed, _) => &[],
    }
}

/// Whether the customer's contacts are told of a kind: everything but the vendor's own clocks.
fn tells_contacts(kind: Kind) -> bool {
    !matches!(kind, Kind::Warned | Kind::Missed)
}

/// Whom to tell, one entry a mail address.
pub(crate) fn whom(kind: Kind, severity: Severity, site_id: &str, people: &People) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    let mut add = |name: &str, email: &str, language, why| {
        if !told.iter().any(|known| known.recipient.email.eq_ignore_ascii_case(email)) {
            told.push(Told { recipient: Recipient { name: name.to_owned(), email: email.to_owned(), language }, why });
        }
    };
    let wanted = roles(kind, severity);
    for role in wanted.iter().copied() {
        let serving: Vec<&Staff> = people.serving.iter().filter(|one| one.role == role).map(|one| &one.staff).collect();
        let nobody = serving.is_empty();
        let all = people.staff.iter().filter(|one| nobody && one.role == role && one.disabled_at.is_none());
        let why = if nobody { Why::NobodyElse(role) } else { Why::Serves(role) };
        serving.into_iter().chain(all).for_each(|one| add(&one.name, &one.email, one.language, why));
    }
    if tells_contacts(kind) {
        let here = |contact: &&Contact| contact.site_id.as_deref().is_none_or(|site| site == site_id);
        people.contacts.iter().filter(here).for_each(|one| add(&one.name, &one.email, one.language, Why::Contact));
    }
    if !wanted.is_empty() && !told.iter().any(|one| matches!(one.why, Why::Serves(_) | Why::NobodyElse(_))) {
        let operators = people.staff.iter().filter(|one| one.role == Role::Operator && one.disabled_at.is_none());
        for one in operators {
            let recipient = Recipient { name: one.name.clone(), email: one.email.clone(), language: one.language };
            told.push(Told { recipient, why: Why::LastResort });
        }
    }
    told
}

/// What becomes of a mail that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Tried again then.
    At(UnixMs),
    /// Given up: it is older than three days and was tried often enough.
    GivenUp,
}

/// How long a mail is tried (RFC 5321, 4.5.4.1 asks for days).
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);

/// When to try again after `tries` attempts: 15 s at first, doubling to 10 min, since a fault waits for the mail.
pub(crate) fn retry(created_at: UnixMs, tries: i64, now: UnixMs) -> Retry {
    if tries >= 10 && now >= created_at.plus(GIVE_UP_AFTER) {
        return Retry::GivenUp;
    }
    let doublings = u32::try_from(tries.clamp(1, 10) - 1).unwrap_or(0);
    Retry::At(now.plus(Duration::from_secs((15 << doublings).min(600))))
}

#[cfg(test)]
mod tests;
