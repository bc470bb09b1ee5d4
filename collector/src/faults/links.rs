//! What silence needs to know of the links, and the mark that one is silent. The intake owns the rest of these rows.
//!
//! Marking is one conditional statement: of two nodes that find the same silence, one marks it.

use std::collections::BTreeMap;

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::silence::QuietLink;
use crate::db::Conn;

/// Links of appliances in service that were heard once, but not since `before`, and those marked silent.
pub(crate) async fn quiet(conn: &mut Conn, before: UnixMs) -> Result<Vec<QuietLink>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT l.tenant_id, l.appliance_id, a.site_id, l.last_seen_at, l.goodbye_at, l.expected_back_at, l.silent_since_at,
                a.expected_hours, s.time_zone
         FROM links l JOIN appliances a ON a.tenant_id = l.tenant_id AND a.appliance_id = l.appliance_id
                      JOIN sites s ON s.tenant_id = a.tenant_id AND s.site_id = a.site_id
         WHERE a.state <> 'retired' AND l.epoch <> '' AND (l.last_seen_at < $1 OR l.silent_since_at IS NOT NULL)
         ORDER BY l.tenant_id, l.appliance_id",
    )
    .bind(before.0)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(UnixMs));
            Ok(QuietLink {
                tenant_id: row.try_get("tenant_id")?,
                appliance_id: row.try_get("appliance_id")?,
                site_id: row.try_get("site_id")?,
                last_seen_at: UnixMs(row.try_get("last_seen_at")?),
                goodbye_at: at("goodbye_at")?,
                expected_back_at: at("expected_back_at")?,
                silent_since_at: at("silent_since_at")?,
                expected_hours: row.try_get("expected_hours")?,
                time_zone: row.try_get("time_zone")?,
            })
        })
        .collect()
}

/// How many appliances in service, ever heard, each (customer, site) has.
pub(crate) async fn per_site(conn: &mut Conn) -> Result<BTreeMap<(String, String), usize>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT a.tenant_id, a.site_id, COUNT(*) AS n FROM appliances a
         JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id
         WHERE a.state <> 'retired' AND l.epoch <> '' GROUP BY a.tenant_id, a.site_id",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let count: i64 = row.try_get("n")?;
            Ok(((row.try_get("tenant_id")?, row.try_get("site_id")?), usize::try_from(count).unwrap_or(0)))
        })
        .collect()
}

/// Marks a link silent, if it was not heard meanwhile and nobody else marked it. Answers whether this call did.
pub(crate) async fn mark_silent(tx: &mut Conn, link: &QuietLink, now: UnixMs) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE links SET silent_since_at = $4
         WHERE tenant_id = $1 AND appliance_id = $2 AND last_seen_at = $3 AND silent_since_at IS NULL",
    )
    .bind(&link.tenant_id)
    .bind(&link.appliance_id)
    .bind(link.last_seen_at.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the mark away.
pub(crate) async fn is_back(tx: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE links SET silent_since_at = NULL WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .execute(tx)
        .await
        .map(drop)
}

/// When the collector last started, if it ever did.
pub(crate) async fn collector_started_at(conn: &mut Conn) -> Result<Option<UnixMs>, sqlx::Error> {
    let at: Option<i64> = sqlx::query_scalar("SELECT started_at FROM collector").fetch_optional(conn).await?;
    Ok(at.map(UnixMs))
}

/// Notes that it starts now.
pub(crate) async fn collector_starts(tx: &mut Conn, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE collector SET started_at = $1").bind(now.0).execute(tx).await.map(drop)
}
