//! The link to each appliance: when it was heard last, the acknowledgement nonce, the present values of its heartbeat.
//!
//! Intake loads the links of a whole batch with one statement and writes them back with one. Nothing here decides.

use std::collections::HashMap;

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{ApplianceState, Identity};
use crate::db::Conn;
use crate::db::multi_row::{self, Value};

/// One appliance's link. Empty texts: nothing heard yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) last_seen_at: UnixMs,
    /// The epoch of the newest report.
    pub(crate) epoch: String,
    pub(crate) attempt: i64,
    pub(crate) nonce: String,
    pub(crate) nonce_before: String,
    /// How far the agent's wall clock is ahead of ours.
    pub(crate) clock_offset_ms: i64,
    /// Records waiting in its spool.
    pub(crate) backlog: i64,
    /// JSON object, metric name to number.
    pub(crate) present_values: String,
    /// JSON object, service name to state.
    pub(crate) services: String,
    pub(crate) goodbye_reason: String,
    pub(crate) goodbye_at: Option<UnixMs>,
    pub(crate) expected_back_at: Option<UnixMs>,
    pub(crate) silent_since_at: Option<UnixMs>,
}

/// A link with what intake needs of its appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedLink {
    pub(crate) link: Link,
    pub(crate) state: ApplianceState,
    /// The name and version that the appliance last told.
    pub(crate) told: (String, String, String),
}

/// The key of a link in a loaded batch.
pub(crate) type LinkKey = (String, String);

/// The key of `who`.
pub(crate) fn key(who: &Identity) -> LinkKey {
    (who.tenant_id.clone(), who.appliance_id.to_string())
}

/// A link of which nothing was heard yet.
pub(crate) async fn add(tx: &mut Conn, tenant_id: &str, appliance_id: &str, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before,
             clock_offset_ms, backlog, present_values, services, goodbye_reason)
         VALUES ($1, $2, $3, '', 0, '', '', 0, 0, '{}', '{}', '')",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(now.0)
    .execute(tx)
    .await
    .map(drop)
}

/// The links of a batch.
pub(crate) async fn load(tx: &mut Conn, keys: &[LinkKey]) -> Result<HashMap<LinkKey, LoadedLink>, sqlx::Error> {
    let keys: Vec<Vec<String>> = keys.iter().map(|(tenant, appliance)| vec![tenant.clone(), appliance.clone()]).collect();
    let rows = multi_row::select(
        tx,
        "SELECT l.*, a.state AS appliance_state, a.name, a.agent_version, a.platform FROM links l
         JOIN appliances a ON a.tenant_id = l.tenant_id AND a.appliance_id = l.appliance_id
         WHERE (l.tenant_id, l.appliance_id)",
        &keys,
    )
    .await?;
    let mut links = HashMap::with_capacity(rows.len());
    for row in &rows {
        let state: String = row.try_get("appliance_state")?;
        let state = ApplianceState::from_name(&state)
            .ok_or_else(|| sqlx::Error::Decode(format!("appliances.state: {state:?}").into()))?;
        let told = (row.try_get("name")?, row.try_get("agent_version")?, row.try_get("platform")?);
        let key = (row.try_get("tenant_id")?, row.try_get("appliance_id")?);
        links.insert(key, LoadedLink { link: from_row(row)?, state, told });
    }
    Ok(links)
}

/// Writes the links of a batch back.
pub(crate) async fn save<'a>(tx: &mut Conn, links: impl Iterator<Item = (&'a LinkKey, &'a Link)>) -> Result<(), sqlx::Error> {
    let rows = links.map(|(key, link)| to_row(key, link)).collect();
    multi_row::insert(
        tx,
        "links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before,
             clock_offset_ms, backlog, present_values, services, goodbye_reason, goodbye_at, expected_back_at, silent_since_at)",
        "ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET
             last_seen_at = excluded.last_seen_at, epoch = excluded.epoch, attempt = excluded.attempt, nonce = excluded.nonce,
             nonce_before = excluded.nonce_before,
             clock_offset_ms = excluded.clock_offset_ms, backlog = excluded.backlog,
             present_values = excluded.present_values, services = excluded.services,
             goodbye_reason = excluded.goodbye_reason, goodbye_at = excluded.goodbye_at,
             expected_back_at = excluded.expected_back_at, silent_since_at = excluded.silent_since_at",
        rows,
    )
    .await
    .map(drop)
}

/// Forgets every nonce: after a restore the agents hold newer ones than the restored rows, which proves nothing. The epoch stays:
/// an appliance that was heard before and never comes back is silent.
pub(crate) async fn forget_nonces(tx: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE links SET nonce = '', nonce_before = '', attempt = 0").execute(tx).await.map(drop)
}

fn to_row((tenant_id, appliance_id): &LinkKey, link: &Link) -> Vec<Value> {
    let text = |text: &String| Value::Text(text.clone());
    let maybe = |at: Option<UnixMs>| Value::MaybeInt(at.map(|at| at.0));
    vec![
        text(tenant_id),
        text(appliance_id),
        Value::Int(link.last_seen_at.0),
        text(&link.epoch),
        Value::Int(link.attempt),
        text(&link.nonce),
        text(&link.nonce_before),
        Value::Int(link.clock_offset_ms),
        Value::Int(link.backlog),
        text(&link.present_values),
        text(&link.services),
        text(&link.goodbye_reason),
        maybe(link.goodbye_at),
        maybe(link.expected_back_at),
        maybe(link.silent_since_at),
    ]
}

fn from_row(row: &AnyRow) -> Result<Link, sqlx::Error> {
    let maybe = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(UnixMs));
    Ok(Link {
        last_seen_at: UnixMs(row.try_get("last_seen_at")?),
        epoch: row.try_get("epoch")?,
        attempt: row.try_get("attempt")?,
        nonce: row.try_get("nonce")?,
        nonce_before: row.try_get("nonce_before")?,
        clock_offset_ms: row.try_get("clock_offset_ms")?,
        backlog: row.try_get("backlog")?,
        present_values: row.try_get("present_values")?,
        services: row.try_get("services")?,
        goodbye_reason: row.try_get("goodbye_reason")?,
        goodbye_at: maybe("goodbye_at")?,
        expected_back_at: maybe("expected_back_at")?,
        silent_since_at: maybe("silent_since_at")?,
    })
}
