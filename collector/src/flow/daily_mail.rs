//! Once a day, at 08:00 China time (00:00 UTC): the operators get the heads of all chains of events, out of a database owner's
//! reach; customers with faults that recovered by themselves get one digest of them.
//!
//! Idempotent: a day's mails have their ids from the day, so writing them twice writes them once.

use mainstay_shared::time_source::UnixMs;

use super::World;
use crate::audit;
use crate::customers::{Customer, Role, VENDOR_TENANT, store};
use crate::db::{Conn, Turn, transact};
use crate::notices::Recipient;
use crate::notices::{facts, outbox, texts};
use crate::tickets::{TicketEvent, store as tickets, subject};

const DAY_MS: i64 = 86_400_000;

/// Writes yesterday's mails unless they are written.
pub(crate) async fn once(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    let day = now.0.div_euclid(DAY_MS) - 1;
    let written: Option<i64> = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'daily_mail'")
        .fetch_optional(&mut *world.db.read().await?)
        .await?;
    let created_at: i64 = sqlx::query_scalar("SELECT created_at FROM collector").fetch_one(&mut *world.db.read().await?).await?;
    if written.is_some_and(|written| written >= day) || created_at >= (day + 1) * DAY_MS {
        return Ok(());
    }
    transact!(world.db, Turn::Console, |tx| {
        let customers = store::customers(tx).await?;
        heads(tx, world, now, day, &customers).await?;
        for customer in customers.iter().filter(|customer| customer.tenant_id != VENDOR_TENANT) {
            digest(tx, world, now, day, customer).await?;
        }
        sqlx::query(
            "INSERT INTO counters (name, value) VALUES ('daily_mail', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(day)
        .execute(&mut *tx)
        .await?;
        Ok(())
    });
    Ok(())
}

fn day_text(day: i64) -> String {
    UnixMs(day * DAY_MS).to_utc().format("%Y-%m-%d").to_string()
}

async fn heads(tx: &mut Conn, world: &World, now: UnixMs, day: i64, customers: &[Customer]) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for customer in customers {
        let (seq, hash) = audit::head(tx, &customer.tenant_id).await?;
        lines.push(format!("{}  {seq}  {hash}", customer.tenant_id));
    }
    let day = day_text(day);
    for operator in store::all_staff(tx).await? {
        if operator.role != Role::Operator || operator.disabled_at.is_some() {
            continue;
        }
        let text = texts::heads(operator.language, &world.config.service_name, &day, &lines);
        let recipient = Recipient { name: operator.name, email: operator.email, language: operator.language };
        let row =
            outbox::New { tenant_id: VENDOR_TENANT, subject_id: "heads", about: &day, kind: "heads", recipient: &recipient };
        outbox::enqueue(tx, &world.config, now, &row, &text).await?;
    }
    Ok(())
}

async fn digest(tx: &mut Conn, world: &World, now: UnixMs, day: i64, customer: &Customer) -> anyhow::Result<()> {
    // By tickets, not by events: a customer's chain is read by ticket only.
    let opened: Vec<String> = sqlx::query_scalar(
        "SELECT ticket_id FROM tickets WHERE tenant_id = $1 AND opened_at >= $2 AND opened_at < $3 ORDER BY number",
    )
    .bind(&customer.tenant_id)
    .bind(day * DAY_MS)
    .bind((day + 1) * DAY_MS)
    .fetch_all(&mut *tx)
    .await?;
    let mut faults = Vec::new();
    for ticket_id in opened {
        let first: Option<String> =
            sqlx::query_scalar("SELECT body FROM events WHERE tenant_id = $1 AND subject = $2 ORDER BY seq LIMIT 1")
                .bind(&customer.tenant_id)
                .bind(subject(&ticket_id))
                .fetch_optional(&mut *tx)
                .await?;
        let told = first.and_then(|body| serde_json::from_str(&body).ok());
        if let Some(TicketEvent::Opened { already_recovered: true, .. }) = told
            && let Some(ticket) = tickets::get(tx, &customer.tenant_id, &ticket_id).await?
        {
            faults.push(texts::Over { place: facts::appliance_name(tx, &ticket).await?, ticket });
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let day = day_text(day);
    let link = format!("{}/", world.config.web_public_url);
    for contact in store::contacts(tx, &customer.tenant_id).await? {
        let text = texts::digest(contact.language, &customer.name, &day, &faults, &link);
        let recipient = Recipient { name: contact.name, email: contact.email, language: contact.language };
        let row = outbox::New {
            tenant_id: &customer.tenant_id,
            subject_id: "digest",
            about: &day,
            kind: "digest",
            recipient: &recipient,
        };
        outbox::enqueue(tx, &world.config, now, &row, &text).await?;
    }
    Ok(())
}
