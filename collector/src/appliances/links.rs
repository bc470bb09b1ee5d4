//! The link to each appliance: when it was heard last, the acknowledgement nonce, the present values of its heartbeat.
//!
//! Intake loads the links of a whole batch with one statement and writes them back with one. Nothing here decides.

use std::collections::HashMap;

use mainstay_shared::time_source::UnixMs;

use super::{ApplianceState, Identity};
use crate::db::Conn;
use crate::db::multi_row::{self, Value};

/// One appliance's link, as far as intake moves it. Empty texts: nothing heard yet.
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
    /// Up to where the fault lane of `epoch` is settled.
    pub(crate) fault_mark: u64,
    /// Up to where the sample lane of `epoch` is settled.
    pub(crate) sample_mark: u64,
}

/// What a heartbeat brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    /// Records waiting in the agent's spool.
    pub(crate) backlog: i64,
    /// JSON object, metric name to number.
    pub(crate) present_values: String,
    /// JSON object, service name to state.
    pub(crate) services: String,
}

/// What a goodbye says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away {
    pub(crate) reason: String,
    pub(crate) since_at: UnixMs,
    pub(crate) expected_back_at: Option<UnixMs>,
}

/// A link in a batch, with what intake needs of its appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedLink {
    link: Link,
    pub(crate) state: ApplianceState,
    /// The epoch as it was loaded.
    pub(crate) loaded_epoch: String,
    /// The service states of the last heartbeat.
    pub(crate) services: String,
    /// The last heartbeat said that the agent can record nothing.
    pub(crate) was_not_recording: bool,
    pub(crate) said_goodbye: bool,
    pub(crate) silent_since_at: Option<UnixMs>,
    touched: bool,
    beat: Option<Beat>,
}

impl LoadedLink {
    /// The link as it stands.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The link, to be changed and written.
    pub(crate) fn touch(&mut self) -> &mut Link {
        self.touched = true;
        &mut self.link
    }

    /// A heartbeat, to be written with the link. Whether its services differ from those told before.
    pub(crate) fn beats(&mut self, beat: Beat) -> bool {
        let differs = self.services != beat.services;
        self.services.clone_from(&beat.services);
        self.beat = Some(beat);
        differs
    }

    /// Whether the link is to be written.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }
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
pub(crate) async fn load(tx: &mut Conn, keys: &[LinkKey]) -> anyhow::Result<HashMap<LinkKey, LoadedLink>> {
    let keys: Vec<Vec<String>> = keys.iter().map(|(tenant, appliance)| vec![tenant.clone(), appliance.clone()]).collect();
    let rows: Vec<Row> = multi_row::tuples(
        tx,
        "l.tenant_id, l.appliance_id, l.last_seen_at, l.epoch, l.attempt, l.nonce, l.nonce_before, l.clock_offset_ms,
             l.fault_mark, l.sample_mark, l.services, l.goodbye_at, l.silent_since_at, a.state,
             CASE WHEN l.present_values LIKE '%\"agent.not_recording_s\"%' THEN a.state END",
        "FROM links l JOIN appliances a ON a.tenant_id = l.tenant_id AND a.appliance_id = l.appliance_id
         WHERE (l.tenant_id, l.appliance_id)",
        &keys,
    )
    .await?;
    Ok(rows.into_iter().map(from_row).collect())
}

/// Writes the links of a batch back.
pub(crate) async fn save(tx: &mut Conn, links: &HashMap<LinkKey, LoadedLink>) -> Result<(), sqlx::Error> {
    let touched = || links.iter().filter(|(_, loaded)| loaded.touched);
    let with_beat = |(key, loaded): (&LinkKey, &LoadedLink)| {
        let Beat { backlog, present_values, services } = loaded.beat.clone()?;
        let mut row = to_row(key, &loaded.link);
        row.extend([Value::Int(backlog), Value::Text(present_values), Value::Text(services)]);
        Some(row)
    };
    multi_row::insert(
        tx,
        "links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before, clock_offset_ms, fault_mark,
             sample_mark, backlog, present_values, services, goodbye_reason)",
        ", ''",
        "ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET
             last_seen_at = excluded.last_seen_at, epoch = excluded.epoch, attempt = excluded.attempt, nonce = excluded.nonce,
             nonce_before = excluded.nonce_before, clock_offset_ms = excluded.clock_offset_ms,
             fault_mark = excluded.fault_mark, sample_mark = excluded.sample_mark, backlog = excluded.backlog,
             present_values = excluded.present_values, services = excluded.services",
        touched().filter_map(with_beat).collect(),
    )
    .await?;
    // The row is there: the last columns only fill the form of an insertion.
    multi_row::insert(
        tx,
        "links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before, clock_offset_ms, fault_mark,
             sample_mark, backlog, present_values, services, goodbye_reason)",
        ", 0, '', '', ''",
        "ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET
             last_seen_at = excluded.last_seen_at, epoch = excluded.epoch, attempt = excluded.attempt, nonce = excluded.nonce,
             nonce_before = excluded.nonce_before, clock_offset_ms = excluded.clock_offset_ms,
             fault_mark = excluded.fault_mark, sample_mark = excluded.sample_mark",
        touched().filter(|(_, loaded)| loaded.beat.is_none()).map(|(key, loaded)| to_row(key, &loaded.link)).collect(),
    )
    .await
}

/// Notes a goodbye, or that it is over.
pub(crate) async fn set_away(tx: &mut Conn, (tenant_id, appliance_id): &LinkKey, away: Option<&Away>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE links SET goodbye_reason = $1, goodbye_at = $2, expected_back_at = $3
         WHERE tenant_id = $4 AND appliance_id = $5",
    )
    .bind(away.map_or("", |away| away.reason.as_str()))
    .bind(away.map(|away| away.since_at.0))
    .bind(away.and_then(|away| away.expected_back_at).map(|at| at.0))
    .bind(tenant_id)
    .bind(appliance_id)
    .execute(tx)
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
    let mark = |mark: u64| Value::Int(i64::try_from(mark).unwrap_or(i64::MAX));
    vec![
        text(tenant_id),
        text(appliance_id),
        Value::Int(link.last_seen_at.0),
        text(&link.epoch),
        Value::Int(link.attempt),
        text(&link.nonce),
        text(&link.nonce_before),
        Value::Int(link.clock_offset_ms),
        mark(link.fault_mark),
        mark(link.sample_mark),
    ]
}

/// A row in the order of [`load`].
type Row = (
    String,
    String,
    i64,
    String,
    i64,
    String,
    String,
    i64,
    u64,
    u64,
    String,
    Option<i64>,
    Option<i64>,
    ApplianceState,
    Option<String>,
);

fn from_row(row: Row) -> (LinkKey, LoadedLink) {
    let (tenant_id, appliance_id, seen, epoch, attempt, nonce, nonce_before, offset, fault_mark, sample_mark, ..) = &row;
    let link = Link {
        last_seen_at: UnixMs(*seen),
        epoch: epoch.clone(),
        attempt: *attempt,
        nonce: nonce.clone(),
        nonce_before: nonce_before.clone(),
        clock_offset_ms: *offset,
        fault_mark: *fault_mark,
        sample_mark: *sample_mark,
    };
    let key = (tenant_id.clone(), appliance_id.clone());
    let (.., services, goodbye_at, silent_since_at, state, not_recording) = row;
    let loaded = LoadedLink {
        loaded_epoch: link.epoch.clone(),
        link,
        services,
        was_not_recording: not_recording.is_some(),
        said_goodbye: goodbye_at.is_some(),
        silent_since_at: silent_since_at.map(UnixMs),
        state,
        touched: false,
        beat: None,
    };
    (key, loaded)
}
