//! `explain TICKET`: loads a ticket's log, policies and clock rows, and lets `clocks::explain` tell how the deadlines came about.
//! Reads only; the nightly check asks the same question of every ticket that is not closed.

use crate::clocks::explain::{self as rules, Explanation, Logged};
use crate::clocks::store as clocks;
use crate::db::Conn;
use crate::tickets::{Ticket, store as tickets};

/// The explanation of a ticket; `None` if there is no such ticket.
///
/// # Errors
/// If the database refuses or the log can't be read.
pub(crate) async fn explain(conn: &mut Conn, ticket_id: &str) -> anyhow::Result<Option<Explanation>> {
    match tickets::find(conn, ticket_id).await? {
        Some(ticket) => Ok(Some(explain_ticket(conn, &ticket).await?)),
        None => Ok(None),
    }
}

/// The explanation of a ticket already loaded.
pub(super) async fn explain_ticket(conn: &mut Conn, ticket: &Ticket) -> anyhow::Result<Explanation> {
    let timeline = tickets::timeline(conn, &ticket.tenant_id, &ticket.ticket_id).await?;
    let log: Vec<Logged<'_>> = timeline.iter().map(|entry| (entry.seq, entry.at, &entry.event)).collect();
    let rows = clocks::of_ticket(conn, &ticket.tenant_id, &ticket.ticket_id).await?;
    let policies = clocks::policies(conn).await?;
    Ok(rules::explain(ticket, &log, &policies, &rows))
}
