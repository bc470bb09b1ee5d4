//! The append-only event log: one hash chain per tenant over ticket and audit events.
//!
//! An event is written in the transaction of what it tells. Its hash covers its fields and the hash before it, so a row altered,
//! removed or put between is found by [`verify`]. Nothing here ever updates or deletes.

use mainstay_shared::time_source::UnixMs;
use ring::digest;
use serde::Serialize;
use sqlx::Row as _;

use crate::db::Conn;

/// The hash before a tenant's first event.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Who did it: `staff:ID`, `appliance:ID`, `token:ID`, or [`SYSTEM`].
pub(crate) const SYSTEM: &str = "system";

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Event {
    pub(crate) tenant_id: String,
    pub(crate) seq: i64,
    pub(crate) at: UnixMs,
    pub(crate) actor: String,
    /// `ticket:ID`, `appliance:ID`, `staff:ID`, ...
    pub(crate) subject: String,
    pub(crate) kind: String,
    /// JSON.
    pub(crate) body: String,
    pub(crate) previous_hash: String,
    pub(crate) hash: String,
}

/// The end of a tenant's chain: `(seq, hash)`; `(0, zeros)` before the first event.
pub(crate) async fn head(conn: &mut Conn, tenant_id: &str) -> Result<(i64, String), sqlx::Error> {
    let row = sqlx::query("SELECT seq, hash FROM events WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 1")
        .bind(tenant_id)
        .fetch_optional(conn)
        .await?;
    match row {
        Some(row) => Ok((row.try_get("seq")?, row.try_get("hash")?)),
        None => Ok((0, GENESIS.to_owned())),
    }
}

/// Appends one event. `body` must be an object with a `type` field, which becomes the kind (an enum tagged `type`).
///
/// # Errors
/// If the database refuses, or `body` has no `type`.
pub(crate) async fn append(
    tx: &mut Conn,
    tenant_id: &str,
    at: UnixMs,
    actor: &str,
    subject: &str,
    body: &impl Serialize,
) -> anyhow::Result<Event> {
    let value = serde_json::to_value(body)?;
    let kind = value.get("type").and_then(|kind| kind.as_str()).ok_or_else(|| anyhow::anyhow!("an event without a type"))?;
    let (before, previous_hash) = head(tx, tenant_id).await?;
    let mut event = Event {
        tenant_id: tenant_id.to_owned(),
        seq: before + 1,
        at,
        actor: actor.to_owned(),
        subject: subject.to_owned(),
        kind: kind.to_owned(),
        body: value.to_string(),
        previous_hash,
        hash: String::new(),
    };
    event.hash = link_hash(&event);
    sqlx::query(
        "INSERT INTO events (tenant_id, seq, at, actor, subject, kind, body, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&event.tenant_id)
    .bind(event.seq)
    .bind(event.at.0)
    .bind(&event.actor)
    .bind(&event.subject)
    .bind(&event.kind)
    .bind(&event.body)
    .bind(&event.previous_hash)
    .bind(&event.hash)
    .execute(tx)
    .await?;
    Ok(event)
}

/// The events of one subject, oldest first.
pub(crate) async fn of_subject(conn: &mut Conn, tenant_id: &str, subject: &str) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM events WHERE tenant_id = $1 AND subject = $2 ORDER BY seq")
        .bind(tenant_id)
        .bind(subject)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// A tenant's newest events, at most `limit`, oldest of them first.
pub(crate) async fn newest(conn: &mut Conn, tenant_id: &str, limit: i64) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM events WHERE tenant_id = $1 ORDER BY seq DESC LIMIT $2")
        .bind(tenant_id)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().rev().map(from_row).collect()
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Every link holds.
    Whole { count: i64, head: String },
    /// The first link that does not.
    Broken { seq: i64, why: String },
}

/// Walks a tenant's chain from its beginning, in slices, so that a long chain holds neither memory nor a long-lived reader.
pub(crate) async fn verify(db: &crate::db::Db, tenant_id: &str) -> Result<Verdict, sqlx::Error> {
    const SLICE: i64 = 1000;
    let (mut seq, mut hash) = (0_i64, GENESIS.to_owned());
    loop {
        let mut conn = db.read().await?;
        let rows = sqlx::query("SELECT * FROM events WHERE tenant_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind(tenant_id)
            .bind(seq)
            .bind(SLICE)
            .fetch_all(&mut *conn)
            .await?;
        drop(conn);
        if rows.is_empty() {
            return Ok(Verdict::Whole { count: seq, head: hash });
        }
        for row in &rows {
            let event = from_row(row)?;
            if let Some(why) = fault_of_link(&event, seq, &hash) {
                return Ok(Verdict::Broken { seq: event.seq, why });
            }
            (seq, hash) = (event.seq, event.hash);
        }
    }
}

fn fault_of_link(event: &Event, seq_before: i64, hash_before: &str) -> Option<String> {
    if event.seq != seq_before + 1 {
        Some(format!("number {} follows {seq_before}: events are missing", event.seq))
    } else if event.previous_hash != hash_before {
        Some("it does not continue the event before it".to_owned())
    } else if event.hash != link_hash(event) {
        Some("its content was altered".to_owned())
    } else {
        None
    }
}

/// SHA-256 over length-prefixed fields: no field can borrow bytes from its neighbour.
fn link_hash(event: &Event) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let (seq, at) = (event.seq.to_string(), event.at.0.to_string());
    let fields = [&event.previous_hash, &event.tenant_id, &seq, &at, &event.actor, &event.subject, &event.kind, &event.body];
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    hex::encode(context.finish())
}

fn from_row(row: &sqlx::any::AnyRow) -> Result<Event, sqlx::Error> {
    Ok(Event {
        tenant_id: row.try_get("tenant_id")?,
        seq: row.try_get("seq")?,
        at: UnixMs(row.try_get("at")?),
        actor: row.try_get("actor")?,
        subject: row.try_get("subject")?,
        kind: row.try_get("kind")?,
        body: row.try_get("body")?,
        previous_hash: row.try_get("previous_hash")?,
        hash: row.try_get("hash")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::both_databases;
    use crate::db::{Db, Turn, transact};

    both_databases!(an_altered_or_missing_event_is_found, two_tenants_have_two_chains);

    async fn fill(db: &Db, tenant: &str, count: i64) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| {
            for n in 0..count {
                append(tx, tenant, UnixMs(n), SYSTEM, "ticket:T-1", &serde_json::json!({"type": "noted", "text": n})).await?;
            }
            Ok(())
        });
        Ok(())
    }

    async fn run(db: &Db, sql: &'static str) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| {
            sqlx::query(sql).execute(&mut *tx).await?;
            Ok(())
        });
        Ok(())
    }

    async fn an_altered_or_missing_event_is_found(db: Db) {
        fill(&db, "a", 5).await.expect("fills");
        assert!(matches!(verify(&db, "a").await.expect("verifies"), Verdict::Whole { count: 5, .. }));
        run(&db, "UPDATE events SET body = '{\"type\":\"noted\",\"text\":9}' WHERE seq = 3").await.expect("alters");
        assert!(matches!(verify(&db, "a").await.expect("verifies"), Verdict::Broken { seq: 3, .. }));
        run(&db, "DELETE FROM events WHERE seq = 3").await.expect("deletes");
        assert!(matches!(verify(&db, "a").await.expect("verifies"), Verdict::Broken { seq: 4, .. }));
    }

    async fn two_tenants_have_two_chains(db: Db) {
        fill(&db, "a", 2).await.expect("fills");
        fill(&db, "b", 1).await.expect("fills");
        let mut conn = db.read().await.expect("reads");
        assert_eq!(head(&mut conn, "a").await.expect("head").0, 2);
        assert_eq!(head(&mut conn, "b").await.expect("head").0, 1);
        assert_eq!(of_subject(&mut conn, "a", "ticket:T-1").await.expect("events").len(), 2);
    }
}
