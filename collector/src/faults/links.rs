//! What silence needs to know of the links, and the mark that one is silent. The intake owns the rest of these rows.
//!
//! Marking is one conditional statement: of two nodes that find the same silence, one marks it.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::time_source::UnixMs;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::silence::QuietLink;
use crate::db::Conn;
use crate::db::multi_row;

/// Links of appliances in service that were heard once, but not since `before`, and those marked silent.
pub(crate) async fn quiet(conn: &mut Conn, before: UnixMs) -> Result<Vec<QuietLink>, sqlx::Error> {
    // The marked ones by their own index; most of them are among the others, so that a set is kept.
    let mut found = BTreeMap::new();
    for condition in ["l.last_seen_at < $1", "l.silent_since_at IS NOT NULL AND l.last_seen_at >= $1"] {
        let sql = format!(
            "SELECT l.tenant_id, l.appliance_id, a.site_id, l.last_seen_at, l.goodbye_at, l.expected_back_at, l.silent_since_at,
                    a.expected_hours, s.time_zone
             FROM links l JOIN appliances a ON a.tenant_id = l.tenant_id AND a.appliance_id = l.appliance_id
                          JOIN sites s ON s.tenant_id = a.tenant_id AND s.site_id = a.site_id
             WHERE {condition} AND a.state <> 'retired' AND l.epoch <> ''"
        );
        for row in &sqlx::query(AssertSqlSafe(sql)).bind(before.0).fetch_all(&mut *conn).await? {
            let link = quiet_link(row)?;
            found.insert((link.tenant_id.clone(), link.appliance_id.clone()), link);
        }
    }
    Ok(found.into_values().collect())
}

fn quiet_link(row: &AnyRow) -> Result<QuietLink, sqlx::Error> {
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
}

/// How many appliances in service, ever heard, each of these sites (customer, site) has.
pub(crate) async fn per_site(
    conn: &mut Conn,
    sites: &BTreeSet<(String, String)>,
) -> Result<BTreeMap<(String, String), usize>, sqlx::Error> {
    let keys: Vec<Vec<String>> = sites.iter().map(|(tenant_id, site_id)| vec![tenant_id.clone(), site_id.clone()]).collect();
    let rows = multi_row::select(
        conn,
        "SELECT a.tenant_id, a.site_id FROM appliances a
         JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id
         WHERE a.state <> 'retired' AND l.epoch <> '' AND (a.tenant_id, a.site_id)",
        &keys,
    )
    .await?;
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry((row.try_get("tenant_id")?, row.try_get("site_id")?)).or_default() += 1;
    }
    Ok(counts)
}

/// How many customers have appliances in service that were ever heard.
pub(crate) async fn customers_heard(conn: &mut Conn) -> Result<usize, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM customers c WHERE EXISTS (SELECT 1 FROM appliances a
           JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id
           WHERE a.tenant_id = c.tenant_id AND a.state <> 'retired' AND l.epoch <> '')",
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(count).unwrap_or(0))
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
