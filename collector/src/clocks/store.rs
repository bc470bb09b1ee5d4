//! Clock rows and policies. Due rows are claimed in one statement by whichever node comes first.
//!
//! Functions take the caller's transaction. Nothing here decides when a clock is due: `rules.rs` does.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Clock, ClockKind, ClockState};
use crate::db::Conn;

/// A ticket's clocks, oldest first.
pub(crate) async fn of_ticket(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Vec<Clock>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM clocks WHERE tenant_id = $1 AND ticket_id = $2 ORDER BY clock_no")
        .bind(tenant_id)
        .bind(ticket_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// Clocks without proof, running or missed, soonest deadline first: of one customer, or of all (`None`, for the vendor's staff).
pub(crate) async fn unanswered(conn: &mut Conn, tenant_id: Option<&str>, limit: i64) -> Result<Vec<Clock>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM clocks WHERE stopped_at IS NULL AND state IN ('running', 'missed') AND ($1 = '' OR tenant_id = $1)
         ORDER BY due_at LIMIT $2",
    )
    .bind(tenant_id.unwrap_or_default().to_owned())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
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
