//! Directives: what is asked of an agent, until it says that it has done it or the wish expires. They carry no authority, and
//! stop while the appliance is held.

use std::collections::HashMap;

use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::links::LinkKey;
use crate::db::Conn;
use crate::db::multi_row;

/// Writes a directive; the caller marks the change that wakes the long poll.
pub(crate) async fn add(
    tx: &mut Conn,
    (tenant_id, appliance_id): &LinkKey,
    directive: &Directive,
    made_by: &str,
    now: UnixMs,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO directives (tenant_id, appliance_id, directive_id, ask, made_by, created_at, expires_at, done_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(&directive.id)
    .bind(serde_json::to_string(&directive.ask)?)
    .bind(made_by)
    .bind(now.0)
    .bind(directive.expires_at.0)
    .bind(None::<i64>)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the agent acted on a directive, and forgets what it said: a typed code must not outlive its use (R33).
pub(crate) async fn done(tx: &mut Conn, (tenant_id, appliance_id): &LinkKey, id: &str, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE directives SET done_at = $1, ask = '' WHERE tenant_id = $2 AND appliance_id = $3 AND directive_id = $4
             AND done_at IS NULL",
    )
    .bind(now.0)
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(id)
    .execute(tx)
    .await
    .map(drop)
}

/// Ends the wishes about an offer that was taken back; the agent may have learnt of them.
pub(crate) async fn forget_offer(
    tx: &mut Conn,
    (tenant_id, appliance_id): &LinkKey,
    offer_id: &str,
    now: UnixMs,
) -> Result<(), sqlx::Error> {
    let rows =
        sqlx::query("SELECT directive_id, ask FROM directives WHERE tenant_id = $1 AND appliance_id = $2 AND done_at IS NULL")
            .bind(tenant_id)
            .bind(appliance_id)
            .fetch_all(&mut *tx)
            .await?;
    for row in &rows {
        let ask: String = row.try_get("ask")?;
        let is_about = match serde_json::from_str(&ask) {
            Ok(Ask::Offered(offer)) => offer.offer_id == offer_id,
            Ok(Ask::Decided { offer_id: decided, .. }) => decided == offer_id,
            _ => false,
        };
        if is_about {
            let id: String = row.try_get("directive_id")?;
            done(tx, &(tenant_id.clone(), appliance_id.clone()), &id, now).await?;
        }
    }
    Ok(())
}

/// Whether a directive expired that is not forgotten.
pub(crate) async fn any_expired(conn: &mut Conn, now: UnixMs) -> Result<bool, sqlx::Error> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT expires_at FROM directives WHERE done_at IS NULL AND expires_at <= $1 AND ask <> '' LIMIT 1")
            .bind(now.0)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// Forgets what those said that expired: no box will hear it any more.
pub(crate) async fn forget_expired(tx: &mut Conn, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE directives SET ask = '' WHERE done_at IS NULL AND expires_at <= $1 AND ask <> ''")
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
}

/// What is asked of these appliances now; a held one is asked nothing.
pub(crate) async fn open_of(
    conn: &mut Conn,
    keys: &[LinkKey],
    now: UnixMs,
) -> Result<HashMap<LinkKey, Vec<Directive>>, sqlx::Error> {
    let keys: Vec<Vec<String>> = keys.iter().map(|(tenant, appliance)| vec![tenant.clone(), appliance.clone()]).collect();
    let rows = multi_row::select(
        conn,
        "SELECT d.tenant_id, d.appliance_id, d.directive_id, d.ask, d.expires_at FROM directives d
         JOIN appliances a ON a.tenant_id = d.tenant_id AND a.appliance_id = d.appliance_id
         WHERE a.state = 'active' AND d.done_at IS NULL AND (d.tenant_id, d.appliance_id)",
        &keys,
    )
    .await?;
    let mut open: HashMap<LinkKey, Vec<Directive>> = HashMap::new();
    for row in &rows {
        let expires_at = UnixMs(row.try_get("expires_at")?);
        if expires_at <= now {
            continue;
        }
        let ask: String = row.try_get("ask")?;
        let ask = serde_json::from_str(&ask).unwrap_or(Ask::Unknown);
        let key = (row.try_get("tenant_id")?, row.try_get("appliance_id")?);
        open.entry(key).or_default().push(Directive { id: row.try_get("directive_id")?, ask, expires_at });
    }
    Ok(open)
}

/// The appliances of which something is asked now: one question per node and change, however many polls wait.
pub(crate) async fn asked_appliances(conn: &mut Conn, now: UnixMs) -> Result<Vec<LinkKey>, sqlx::Error> {
    let rows = sqlx::query("SELECT DISTINCT tenant_id, appliance_id FROM directives WHERE done_at IS NULL AND expires_at > $1")
        .bind(now.0)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("tenant_id")?, row.try_get("appliance_id")?))).collect()
}
