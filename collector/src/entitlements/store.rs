//! Entitlements as rows, one an appliance. The tenant stands in every question (R23).

use std::collections::BTreeSet;

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::Entitlement;
use crate::db::Conn;

/// What is recorded for an appliance.
pub(crate) async fn get(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Option<Entitlement>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM entitlements WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(UnixMs));
    let features: String = row.try_get("features")?;
    Ok(Some(Entitlement {
        software_until_at: at("software_until_at")?,
        hardware_until_at: at("hardware_until_at")?,
        service_until_at: at("service_until_at")?,
        features: serde_json::from_str::<BTreeSet<String>>(&features).unwrap_or_default(),
    }))
}

/// Records it, in place of what was.
pub(crate) async fn put(
    tx: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    entitlement: &Entitlement,
    (set_by, now): (&str, UnixMs),
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO entitlements (tenant_id, appliance_id, software_until_at, hardware_until_at, service_until_at, features, set_by, set_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET
         software_until_at = excluded.software_until_at, hardware_until_at = excluded.hardware_until_at,
         service_until_at = excluded.service_until_at, features = excluded.features, set_by = excluded.set_by, set_at = excluded.set_at",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(entitlement.software_until_at.map(|at| at.0))
    .bind(entitlement.hardware_until_at.map(|at| at.0))
    .bind(entitlement.service_until_at.map(|at| at.0))
    .bind(serde_json::to_string(&entitlement.features)?)
    .bind(set_by)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}
