//! Something happened to a ticket: the one place that writes it down. Event into the chain, row, clocks, notices: one transaction.
//!
//! Every story that touches a ticket goes through [`happened`], so no change can miss its record (C4) or its notice.

use mainstay_shared::time_source::UnixMs;

use crate::audit;
use crate::clocks::{rules as clock_rules, store as clocks};
use crate::config::Config;
use crate::db::{Conn, mark_change};
use crate::notices;
use crate::tickets::{Ticket, TicketEvent, state, store as tickets, subject};

/// Under what circumstances a story writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) config: &'a Config,
    pub(super) now: UnixMs,
    /// As in `audit`.
    pub(super) actor: &'a str,
}

/// Opens a ticket: its row, then its first event.
pub(super) async fn opens(tx: &mut Conn, desk: Desk<'_>, ticket: &mut Ticket, already_recovered: bool) -> anyhow::Result<()> {
    tickets::insert(tx, ticket).await?;
    let event = TicketEvent::Opened {
        impact: ticket.impact,
        presumed: ticket.presumed,
        reason: ticket.reason.clone(),
        summary: ticket.summary.clone(),
        already_recovered,
    };
    happened(tx, desk, ticket, &event).await
}

/// Records one event, what it does to the row and to the clocks, and tells of it.
pub(super) async fn happened(tx: &mut Conn, desk: Desk<'_>, ticket: &mut Ticket, event: &TicketEvent) -> anyhow::Result<()> {
    state::apply(ticket, desk.now, event)?;
    tickets::update(tx, ticket).await?;
    let logged = append(tx, desk, ticket, event).await?;
    // Clock rows first: the notice names the deadline.
    let beside = move_clocks(tx, desk, ticket, event).await?;
    notices::tell(tx, desk.config, desk.now, ticket, logged, event).await?;
    for clock_event in &beside {
        let logged = append(tx, desk, ticket, clock_event).await?;
        notices::tell(tx, desk.config, desk.now, ticket, logged, clock_event).await?;
    }
    mark_change(tx).await?;
    Ok(())
}

/// Records an event without telling anybody.
pub(super) async fn happened_quietly(
    tx: &mut Conn,
    desk: Desk<'_>,
    ticket: &mut Ticket,
    event: &TicketEvent,
) -> anyhow::Result<()> {
    state::apply(ticket, desk.now, event)?;
    tickets::update(tx, ticket).await?;
    append(tx, desk, ticket, event).await?;
    mark_change(tx).await?;
    Ok(())
}

async fn append(tx: &mut Conn, desk: Desk<'_>, ticket: &Ticket, event: &TicketEvent) -> anyhow::Result<i64> {
    Ok(audit::append(tx, &ticket.tenant_id, desk.now, desk.actor, &subject(&ticket.ticket_id), event).await?.seq)
}

async fn move_clocks(tx: &mut Conn, desk: Desk<'_>, ticket: &Ticket, event: &TicketEvent) -> anyhow::Result<Vec<TicketEvent>> {
    let moves = matches!(event, TicketEvent::Opened { .. } | TicketEvent::Reopened { .. } | TicketEvent::Responded { .. });
    if !moves {
        return Ok(Vec::new());
    }
    let policies = clocks::policies(tx).await?;
    let before = clocks::of_ticket(tx, &ticket.tenant_id, &ticket.ticket_id).await?;
    let mut after = before.clone();
    let beside = clock_rules::advance(&mut after, ticket, desk.now, event, &policies);
    for clock in after.iter().filter(|clock| !before.contains(clock)) {
        clocks::put(tx, clock).await?;
    }
    Ok(beside)
}
