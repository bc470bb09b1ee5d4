//! Notices: who is told what, once. `rules.rs` decides, `texts.rs` words, `outbox.rs` keeps, `mail.rs` hands over. Sent means
//! acknowledged by the receiver's server. Rows are written in the transaction of what they tell; nothing here sends inside a
//! transaction.

pub(crate) mod listing;

use mainstay_shared::time_source::UnixMs;

use crate::config::Config;
use crate::customers::{Language, VENDOR_TENANT, store};
use crate::db::Conn;
use crate::tickets::{Ticket, TicketEvent};

pub(crate) mod facts;
pub(crate) mod mail;
pub(crate) mod outbox;
pub(crate) mod rules;
pub(crate) mod texts;
pub(crate) mod patch_mail;

/// A person to whom a notice goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) language: Language,
}

/// Writes the outbox rows that `event` (number `seq` of the tenant's chain) asks for: none for most kinds.
/// The Message-ID derives from tenant, ticket, event and recipient, so telling twice writes once.
pub(crate) async fn tell(
    tx: &mut Conn,
    config: &Config,
    now: UnixMs,
    ticket: &Ticket,
    seq: i64,
    event: &TicketEvent,
) -> anyhow::Result<()> {
    let Some(kind) = rules::kind_of(event, ticket) else { return Ok(()) };
    let people = rules::People {
        serving: store::serving(tx, &ticket.tenant_id).await?,
        staff: store::all_staff(tx).await?,
        contacts: if ticket.tenant_id == VENDOR_TENANT { Vec::new() } else { store::contacts(tx, &ticket.tenant_id).await? },
    };
    let facts = facts::load(tx, config, ticket, event).await?;
    for told in rules::whom(kind, ticket.severity, &ticket.site_id, &people) {
        let text = texts::of_ticket(kind, &facts, &told);
        let row = outbox::New {
            tenant_id: &ticket.tenant_id,
            subject_id: &ticket.ticket_id,
            about: &seq.to_string(),
            kind: kind.as_str(),
            recipient: &told.recipient,
        };
        outbox::enqueue(tx, config, now, &row, &text).await?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing;
