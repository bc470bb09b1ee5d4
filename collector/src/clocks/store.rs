//! Clock rows and policies. Due rows are claimed in one statement by whichever node comes first.
//!
//! Functions take the caller's transaction. Nothing here decides when a clock is due: `rules.rs` does.

use std::collections::HashMap;

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::rules::{FIRST_POLICY, Policy};
use super::{Clock, ClockKind, ClockState};
use crate::db::Conn;
use crate::db::multi_row;

/// A ticket's clocks, oldest first.
pub(crate) async fn of_ticket(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Vec<Clock>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM clocks WHERE tenant_id = $1 AND ticket_id = $2 ORDER BY clock_no")
        .bind(tenant_id)
        .bind(ticket_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// The clocks of these tickets (customer, ticket) that no proof has stopped, running or missed, by ticket; of several the newest.
pub(crate) async fn unanswered(conn: &mut Conn, tickets: &[Vec<String>]) -> Result<HashMap<String, Clock>, sqlx::Error> {
    let text = "SELECT * FROM clocks WHERE stopped_at IS NULL AND state IN ('running', 'missed') AND (tenant_id, ticket_id)";
    let rows = multi_row::select(conn, text, tickets).await?;
    let mut clocks: Vec<Clock> = rows.iter().map(from_row).collect::<Result<_, _>>()?;
    clocks.sort_by_key(|clock| clock.clock_no);
    Ok(clocks.into_iter().map(|clock| (clock.ticket_id.clone(), clock)).collect())
}

/// Writes a clock, new or moved.
pub(crate) async fn put(tx: &mut Conn, clock: &Clock) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO clocks (tenant_id, ticket_id, clock_no, kind, policy_version, state, started_at, warn_at, due_at, stopped_at,
           next_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (tenant_id, ticket_id, clock_no) DO UPDATE SET policy_version = excluded.policy_version,
           state = excluded.state, started_at = excluded.started_at, warn_at = excluded.warn_at, due_at = excluded.due_at,
           stopped_at = excluded.stopped_at, next_at = excluded.next_at",
    )
    .bind(&clock.tenant_id)
    .bind(&clock.ticket_id)
    .bind(clock.clock_no)
    .bind(clock.kind.as_str())
    .bind(clock.policy_version)
    .bind(clock.state.as_str())
    .bind(clock.started_at.0)
    .bind(clock.warn_at.0)
    .bind(clock.due_at.0)
    .bind(clock.stopped_at.map(|at| at.0))
    .bind(clock.next_at.map(|at| at.0))
    .execute(tx)
    .await
    .map(drop)
}

/// Puts recomputed clocks in the place of a ticket's rows.
pub(crate) async fn replace(tx: &mut Conn, tenant_id: &str, ticket_id: &str, clocks: &[Clock]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM clocks WHERE tenant_id = $1 AND ticket_id = $2")
        .bind(tenant_id)
        .bind(ticket_id)
        .execute(&mut *tx)
        .await?;
    for clock in clocks {
        put(tx, clock).await?;
    }
    Ok(())
}

/// When the next clock is due, if one runs: asked before [`claim_due`], which takes the writer.
pub(crate) async fn next_due(conn: &mut Conn) -> Result<Option<UnixMs>, sqlx::Error> {
    let at: Option<i64> = sqlx::query_scalar("SELECT MIN(next_at) FROM clocks WHERE next_at IS NOT NULL").fetch_one(conn).await?;
    Ok(at.map(UnixMs))
}

/// Takes every clock of which something must be told before `now`, and moves it on, in one statement: another node that asks at the
/// same time gets none of them. What comes back stands as it is after the move.
pub(crate) async fn claim_due(tx: &mut Conn, now: UnixMs) -> Result<Vec<Clock>, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE clocks SET state = CASE WHEN due_at < $1 THEN 'missed' ELSE state END,
                           next_at = CASE WHEN due_at < $1 THEN NULL ELSE due_at END
         WHERE next_at < $1 AND state = 'running' RETURNING *",
    )
    .bind(now.0)
    .fetch_all(tx)
    .await?;
    let mut clocks: Vec<Clock> = rows.iter().map(from_row).collect::<Result<_, _>>()?;
    clocks.sort_by_key(|clock| (clock.due_at, clock.ticket_id.clone(), clock.clock_no));
    Ok(clocks)
}

/// All policies, oldest first; before the first was written, the first all the same.
///
/// # Errors
/// If the database refuses or a policy's body can't be read.
pub(crate) async fn policies(conn: &mut Conn) -> anyhow::Result<Vec<Policy>> {
    let rows = sqlx::query("SELECT version, effective_at, body FROM clock_policies ORDER BY version").fetch_all(conn).await?;
    if rows.is_empty() {
        return Ok(vec![FIRST_POLICY]);
    }
    rows.iter()
        .map(|row| {
            let (version, body): (i64, String) = (row.try_get("version")?, row.try_get("body")?);
            let promises = serde_json::from_str(&body).map_err(|error| anyhow::anyhow!("clock policy {version}: {error}"))?;
            Ok(Policy { version, effective_at: UnixMs(row.try_get("effective_at")?), promises })
        })
        .collect()
}

/// Writes the first policy if there is none, so that the record shows what was promised.
pub(crate) async fn seed_policy(tx: &mut Conn) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO clock_policies (version, effective_at, body) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING")
        .bind(FIRST_POLICY.version)
        .bind(FIRST_POLICY.effective_at.0)
        .bind(serde_json::to_string(&FIRST_POLICY.promises)?)
        .execute(tx)
        .await?;
    Ok(())
}

fn from_row(row: &AnyRow) -> Result<Clock, sqlx::Error> {
    let state: String = row.try_get("state")?;
    Ok(Clock {
        tenant_id: row.try_get("tenant_id")?,
        ticket_id: row.try_get("ticket_id")?,
        clock_no: row.try_get("clock_no")?,
        kind: ClockKind::Response,
        policy_version: row.try_get("policy_version")?,
        state: ClockState::from_name(&state)
            .ok_or_else(|| sqlx::Error::Decode(format!("clocks.state = {state:?}: none of the known words").into()))?,
        started_at: UnixMs(row.try_get("started_at")?),
        warn_at: UnixMs(row.try_get("warn_at")?),
        due_at: UnixMs(row.try_get("due_at")?),
        stopped_at: row.try_get::<Option<i64>, _>("stopped_at")?.map(UnixMs),
        next_at: row.try_get::<Option<i64>, _>("next_at")?.map(UnixMs),
    })
}
