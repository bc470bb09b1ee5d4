//! Episodes as rows, unique by (tenant, appliance, component, code, episode).
//!
//! Functions take the caller's transaction. An episode belongs to the ticket that it opened or joined for good.

use mainstay_shared::fault::Level;
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Episode;
use crate::db::Conn;

/// A ticket's episodes, oldest first.
pub(crate) async fn of_ticket(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Vec<Episode>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM episodes WHERE tenant_id = $1 AND ticket_id = $2 ORDER BY raised_at, episode")
        .bind(tenant_id)
        .bind(ticket_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// The episodes of a customer's tickets that are not closed, or closed at or after `since`, oldest first.
pub(crate) async fn of_candidates(conn: &mut Conn, tenant_id: &str, since: UnixMs) -> Result<Vec<Episode>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.* FROM episodes e JOIN tickets t ON t.tenant_id = e.tenant_id AND t.ticket_id = e.ticket_id
         WHERE t.tenant_id = $1 AND t.state <> 'closed'
         UNION ALL SELECT e.* FROM episodes e JOIN tickets t ON t.tenant_id = e.tenant_id AND t.ticket_id = e.ticket_id
         WHERE t.tenant_id = $1 AND t.state = 'closed' AND t.closed_at >= $2 ORDER BY raised_at, episode",
    )
    .bind(tenant_id)
    .bind(since.0)
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
}

/// An appliance's episodes that touch the span, oldest first: for drawing them over its health.
pub(crate) async fn of_appliance_between(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    from: UnixMs,
    to: UnixMs,
) -> Result<Vec<Episode>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM episodes WHERE tenant_id = $1 AND appliance_id = $2 AND raised_at <= $3 AND cleared_at IS NULL
         UNION ALL SELECT * FROM episodes WHERE tenant_id = $1 AND appliance_id = $2 AND raised_at <= $3 AND cleared_at >= $4
         ORDER BY raised_at, episode",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(to.0)
    .bind(from.0)
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
}

/// An appliance's open episodes, oldest first.
pub(crate) async fn open_of_appliance(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Vec<Episode>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM episodes WHERE tenant_id = $1 AND appliance_id = $2 AND state = 'open' ORDER BY raised_at, episode",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
}

/// All open episodes of a customer, oldest first.
pub(crate) async fn open_of_tenant(conn: &mut Conn, tenant_id: &str) -> Result<Vec<Episode>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM episodes WHERE tenant_id = $1 AND state = 'open' ORDER BY raised_at, episode")
        .bind(tenant_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// One episode, if it is known.
pub(crate) async fn get(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    component: &str,
    code: &str,
    episode: &str,
) -> Result<Option<Episode>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT * FROM episodes WHERE tenant_id = $1 AND appliance_id = $2 AND component = $3 AND code = $4 AND episode = $5",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(component)
    .bind(code)
    .bind(episode)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(from_row).transpose()
}

/// Writes an episode: new, or with what may change in its run.
pub(crate) async fn put(tx: &mut Conn, episode: &Episode) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO episodes (tenant_id, appliance_id, component, code, episode, state, level, summary, grounds, ticket_id,
           raised_at, received_at, cleared_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (tenant_id, appliance_id, component, code, episode) DO UPDATE SET state = excluded.state,
           level = excluded.level, summary = excluded.summary, grounds = excluded.grounds, cleared_at = excluded.cleared_at",
    )
    .bind(&episode.tenant_id)
    .bind(&episode.appliance_id)
    .bind(&episode.component)
    .bind(&episode.code)
    .bind(&episode.episode)
    .bind(if episode.open { "open" } else { "cleared" })
    .bind(episode.level.as_str())
    .bind(&episode.summary)
    .bind(&episode.grounds)
    .bind(&episode.ticket_id)
    .bind(episode.raised_at.0)
    .bind(episode.received_at.0)
    .bind(episode.cleared_at.map(|at| at.0))
    .execute(tx)
    .await
    .map(drop)
}

/// Whether the customer has that appliance at that site.
pub(crate) async fn knows_appliance(
    conn: &mut Conn,
    tenant_id: &str,
    site_id: &str,
    appliance_id: &str,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query("SELECT 1 FROM appliances WHERE tenant_id = $1 AND site_id = $2 AND appliance_id = $3")
        .bind(tenant_id)
        .bind(site_id)
        .bind(appliance_id)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

fn from_row(row: &AnyRow) -> Result<Episode, sqlx::Error> {
    let (state, level): (String, String) = (row.try_get("state")?, row.try_get("level")?);
    Ok(Episode {
        tenant_id: row.try_get("tenant_id")?,
        appliance_id: row.try_get("appliance_id")?,
        component: row.try_get("component")?,
        code: row.try_get("code")?,
        episode: row.try_get("episode")?,
        open: state == "open",
        level: Level::from_name(&level)
            .ok_or_else(|| sqlx::Error::Decode(format!("episodes.level = {level:?}: none of the known words").into()))?,
        summary: row.try_get("summary")?,
        grounds: row.try_get("grounds")?,
        ticket_id: row.try_get("ticket_id")?,
        raised_at: UnixMs(row.try_get("raised_at")?),
        received_at: UnixMs(row.try_get("received_at")?),
        cleared_at: row.try_get::<Option<i64>, _>("cleared_at")?.map(UnixMs),
    })
}
