//! What a member of staff does to a ticket: one act, judged by `tickets::acts`, recorded, told.
//!
//! Callers (API, console, commands) hand over who acts; whether he may is decided here and answered with a typed reason.

use mainstay_shared::limits::{MAX_NAME_CHARS, MAX_TEXT_CHARS, clean_text};
use mainstay_shared::severity::{Attribution, BusinessImpact};

use super::World;
use super::record::{Desk, happened, opens};
use crate::clocks::{Clock, store as clocks};
use crate::customers::{Role, store as customers};
use crate::db::{Conn, Turn, next_number, transact};
use crate::faults::store as faults;
use crate::tickets::acts::{Act, By, Circumstances, Refused, decide};
use crate::tickets::severity::{self, Grounds};
use crate::tickets::{SOURCE_HUMAN, Ticket, TicketState, store as tickets};

/// Does one act to a ticket. Doing again what is already so changes nothing and is no error.
///
/// # Errors
/// The outer error is the database's; the inner says why the act was refused.
pub(crate) async fn act(world: &World, by: &By, ticket_id: &str, act: Act) -> anyhow::Result<Result<Ticket, Refused>> {
    let now = world.time.now();
    let desk = Desk { config: &world.config, now, actor: &by.actor };
    let act = cleaned(act);
    let done = transact!(world.db, Turn::Console, |tx| {
        let Some(mut ticket) = tickets::find(tx, ticket_id).await? else {
            return Ok(Err(Refused::NoSuchTicket { ticket_id: ticket_id.to_owned() }));
        };
        let circumstances = circumstances(tx, &ticket, &act).await?;
        let events = match decide(&ticket, by, &act, &circumstances) {
            Ok(events) => events,
            Err(refused) => return Ok(Err(refused)),
        };
        for event in &events {
            happened(tx, desk, &mut ticket, event).await?;
        }
        Ok(Ok(ticket))
    });
    // Its notice and everybody's page need not wait for the next look.
    world.look_now.notify_one();
    Ok(done)
}

async fn circumstances(tx: &mut Conn, ticket: &Ticket, act: &Act) -> anyhow::Result<Circumstances> {
    let (tenant_id, ticket_id) = (&ticket.tenant_id, &ticket.ticket_id);
    let colleague = match act {
        Act::Assign { to_staff_id } => customers::staff(tx, to_staff_id)
            .await?
            .filter(|staff| staff.disabled_at.is_none() && staff.role.works_on_tickets())
            .map(|staff| staff.name),
        _ => None,
    };
    let same_cause = tickets::of_open_cause(tx, tenant_id, &ticket.cause).await?.map(|other| other.ticket_id);
    Ok(Circumstances {
        unanswered: clocks::of_ticket(tx, tenant_id, ticket_id).await?.iter().any(Clock::is_unanswered),
        open_episodes: faults::of_ticket(tx, tenant_id, ticket_id).await?.iter().filter(|episode| episode.open).count(),
        colleague,
        same_cause: same_cause.filter(|other| other != ticket_id),
    })
}

/// People's text is limited like an agent's (R11), but may be longer and keeps its lines.
fn cleaned(act: Act) -> Act {
    match act {
        Act::Respond { way, note } => Act::Respond { way, note: clean(&note) },
        Act::Note { text } => Act::Note { text: clean(&text) },
        Act::Attribute { attribution, why } => Act::Attribute { attribution, why: clean(&why) },
        Act::ChangeImpact { to, why, customer_word } => {
            Act::ChangeImpact { to, why: clean(&why), customer_word: clean(&customer_word) }
        }
        Act::Close { why } => Act::Close { why: clean(&why) },
        Act::Reopen { why } => Act::Reopen { why: clean(&why) },
        Act::Take | Act::Assign { .. } => act,
    }
}

fn clean(text: &str) -> String {
    const MAX_LINES: usize = 100;
    let lines: Vec<String> = text.lines().take(MAX_LINES).map(|line| clean_text(line, MAX_TEXT_CHARS)).collect();
    lines.join("\n").trim().to_owned()
}

/// What a customer said by telephone, mail or web, as the engineer wrote it down (C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CustomerRequest {
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    /// The appliance that it is about, if known; else empty.
    pub(crate) appliance_id: String,
    /// A detailed description of the fault (C9).
    pub(crate) summary: String,
    /// The customer's answer to "is your business interrupted?".
    pub(crate) impact: BusinessImpact,
}

/// Opens a ticket for a customer who called.
///
/// # Errors
/// As [`act`].
pub(crate) async fn open_for_customer(
    world: &World,
    by: &By,
    request: CustomerRequest,
) -> anyhow::Result<Result<Ticket, Refused>> {
    if !by.role.works_on_tickets() && by.role != Role::AccountManager {
        let accepted = "system_engineer, support_manager, service_manager or account_manager".to_owned();
        return Ok(Err(Refused::Role { role: by.role.as_str().to_owned(), accepted }));
    }
    let summary = clean(&request.summary);
    if summary.is_empty() {
        let expected = "a detailed description of the fault (C9)".to_owned();
        return Ok(Err(Refused::Empty { field: "summary".to_owned(), expected }));
    }
    let now = world.time.now();
    let desk = Desk { config: &world.config, now, actor: &by.actor };
    let opened = transact!(world.db, Turn::Console, |tx| {
        if let Some(refused) = unknown(tx, &request).await? {
            return Ok(Err(refused));
        }
        let number = next_number(tx, "ticket").await?;
        let mut ticket = by_phone(&request, &summary, number, now)?;
        opens(tx, desk, &mut ticket, false).await?;
        Ok(Ok(ticket))
    });
    world.look_now.notify_one();
    Ok(opened)
}

async fn unknown(tx: &mut Conn, request: &CustomerRequest) -> anyhow::Result<Option<Refused>> {
    let named = |what: &str, id: &str| Some(Refused::NoSuch { what: what.to_owned(), id: clean_text(id, MAX_NAME_CHARS) });
    if customers::customer(tx, &request.tenant_id).await?.is_none() {
        return Ok(named("customer", &request.tenant_id));
    }
    if customers::site(tx, &request.tenant_id, &request.site_id).await?.is_none() {
        return Ok(named("site", &request.site_id));
    }
    let is_known = request.appliance_id.is_empty()
        || faults::knows_appliance(tx, &request.tenant_id, &request.site_id, &request.appliance_id).await?;
    Ok(if is_known { None } else { named("appliance", &request.appliance_id) })
}

fn by_phone(
    request: &CustomerRequest,
    summary: &str,
    number: i64,
    now: mainstay_shared::time_source::UnixMs,
) -> anyhow::Result<Ticket> {
    let grounds = Grounds::Human { answer: request.impact };
    let decision = severity::decide(&grounds);
    let ticket_id = format!("T-{number:06}");
    Ok(Ticket {
        tenant_id: request.tenant_id.clone(),
        cause: format!("human:{ticket_id}"),
        ticket_id,
        number,
        source: SOURCE_HUMAN.to_owned(),
        state: TicketState::Open,
        site_id: request.site_id.clone(),
        appliance_id: request.appliance_id.clone(),
        component: String::new(),
        code: "customer_request".to_owned(),
        summary: summary.to_owned(),
        impact: decision.impact,
        severity: decision.severity,
        presumed: decision.presumed,
        reason: decision.reason.as_str().to_owned(),
        grounds: serde_json::to_string(&grounds)?,
        attribution: Attribution::Unknown,
        assigned_to: None,
        taken_by: None,
        responded_by: None,
        opened_at: now,
        fault_at: now,
        responded_at: None,
        recovered_at: None,
        closed_at: None,
        changed_at: now,
    })
}
