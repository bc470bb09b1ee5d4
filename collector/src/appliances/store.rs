//! The appliances' rows. Functions take a connection, so that the caller decides what commits together; the tenant is part of
//! every question (R23). Certificates, tokens, links and directives have files of their own.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Appliance, ApplianceState};
use crate::db::Conn;

/// Adds an appliance with its still empty link.
pub(crate) async fn add(tx: &mut Conn, appliance: &Appliance, enrol_attempt: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO appliances (tenant_id, appliance_id, site_id, name, product, vendor, model, serial, duty, parts,
             agent_version, platform, state, held_reason, enrol_attempt, expected_hours, enrolled_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(&appliance.tenant_id)
    .bind(&appliance.appliance_id)
    .bind(&appliance.site_id)
    .bind(&appliance.name)
    .bind(&appliance.product)
    .bind(&appliance.vendor)
    .bind(&appliance.model)
    .bind(&appliance.serial)
    .bind(&appliance.duty)
    .bind(&appliance.parts)
    .bind(&appliance.agent_version)
    .bind(&appliance.platform)
    .bind(appliance.state.as_str())
    .bind(&appliance.held_reason)
    .bind(enrol_attempt)
    .bind(&appliance.expected_hours)
    .bind(appliance.enrolled_at.0)
    .execute(&mut *tx)
    .await?;
    super::links::add(tx, &appliance.tenant_id, &appliance.appliance_id, appliance.enrolled_at).await
}

/// One appliance of a tenant.
pub(crate) async fn get(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Option<Appliance>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM appliances WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Whose appliance an id is: for commands and pages of staff who serve every customer.
pub(crate) async fn tenant_of(conn: &mut Conn, appliance_id: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT tenant_id FROM appliances WHERE appliance_id = $1").bind(appliance_id).fetch_optional(conn).await
}

/// The appliances of one tenant, by name; `None`: of all tenants, for staff who serve them all.
pub(crate) async fn list(conn: &mut Conn, tenant_id: Option<&str>) -> Result<Vec<Appliance>, sqlx::Error> {
    let rows = match tenant_id {
        Some(tenant_id) => {
            sqlx::query("SELECT * FROM appliances WHERE tenant_id = $1 ORDER BY name, appliance_id")
                .bind(tenant_id)
                .fetch_all(conn)
                .await?
        }
        None => sqlx::query("SELECT * FROM appliances ORDER BY tenant_id, name, appliance_id").fetch_all(conn).await?,
    };
    rows.iter().map(from_row).collect()
}

/// Moves an appliance to `state`, unless it is retired. Whether there was one to move.
pub(crate) async fn set_state(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    state: ApplianceState,
    held_reason: &str,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE appliances SET state = $1, held_reason = $2
         WHERE tenant_id = $3 AND appliance_id = $4 AND state <> 'retired' AND state <> $1",
    )
    .bind(state.as_str())
    .bind(held_reason)
    .bind(tenant_id)
    .bind(appliance_id)
    .execute(tx)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Sets when an appliance is expected to be heard; empty: always. Whether that changed anything.
pub(crate) async fn set_expected_hours(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    hours: &str,
) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE appliances SET expected_hours = $1
         WHERE tenant_id = $2 AND appliance_id = $3 AND state <> 'retired' AND expected_hours <> $1",
    )
    .bind(hours)
    .bind(tenant_id)
    .bind(appliance_id)
    .execute(tx)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// What the agent tells of itself at its start. Texts are cleaned by the caller.
pub(crate) async fn set_told(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    name: &str,
    agent_version: &str,
    platform: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE appliances SET name = $1, agent_version = $2, platform = $3
         WHERE tenant_id = $4 AND appliance_id = $5 AND NOT (name = $1 AND agent_version = $2 AND platform = $3)",
    )
    .bind(name)
    .bind(agent_version)
    .bind(platform)
    .bind(tenant_id)
    .bind(appliance_id)
    .execute(tx)
    .await
    .map(drop)
}

/// The appliance that an attempt of enrolment made, if it made one.
pub(crate) async fn by_attempt(conn: &mut Conn, tenant_id: &str, attempt: &str) -> Result<Option<Appliance>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM appliances WHERE tenant_id = $1 AND enrol_attempt = $2 AND state <> 'retired'")
        .bind(tenant_id)
        .bind(attempt)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

fn from_row(row: &AnyRow) -> Result<Appliance, sqlx::Error> {
    let state: String = row.try_get("state")?;
    Ok(Appliance {
        tenant_id: row.try_get("tenant_id")?,
        appliance_id: row.try_get("appliance_id")?,
        site_id: row.try_get("site_id")?,
        name: row.try_get("name")?,
        product: row.try_get("product")?,
        vendor: row.try_get("vendor")?,
        model: row.try_get("model")?,
        serial: row.try_get("serial")?,
        duty: row.try_get("duty")?,
        parts: row.try_get("parts")?,
        agent_version: row.try_get("agent_version")?,
        platform: row.try_get("platform")?,
        state: ApplianceState::from_name(&state)
            .ok_or_else(|| sqlx::Error::Decode(format!("appliances.state: {state:?}").into()))?,
        held_reason: row.try_get("held_reason")?,
        expected_hours: row.try_get("expected_hours")?,
        enrolled_at: UnixMs(row.try_get("enrolled_at")?),
    })
}

#[cfg(test)]
pub(crate) mod tests;
