//! What intake keeps: watermarks per (epoch, lane), fault-lane records, losses, samples, declared services.
//!
//! What a batch brings is written with one statement a table. Functions take a
//! transaction: what they write commits with everything else of its report.

use mainstay_shared::check::DeclaredService;
use mainstay_shared::ids::{Lane, RecordId};
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::{LaneKey, Loss, StoredSamples};
use crate::appliances::links::LinkKey;
use crate::db::Conn;
use crate::db::multi_row::{self, Value};

/// The watermarks of the given runs that have rows of their own: `(tenant, appliance, epoch)`.
pub(crate) async fn load_marks(tx: &mut Conn, runs: &[Vec<String>]) -> anyhow::Result<Vec<(LaneKey, u64)>> {
    let rows = multi_row::select(
        tx,
        "SELECT tenant_id, appliance_id, epoch, lane, seq FROM lane_marks WHERE (tenant_id, appliance_id, epoch)",
        runs,
    )
    .await?;
    let mut marks = Vec::with_capacity(rows.len());
    for row in &rows {
        let lane: String = row.try_get("lane")?;
        let Some(lane) = Lane::ALL.into_iter().find(|known| known.as_str() == lane) else { continue };
        let key = LaneKey {
            tenant_id: row.try_get("tenant_id")?,
            appliance_id: row.try_get("appliance_id")?,
            epoch: row.try_get::<String, _>("epoch")?.parse()?,
            lane,
        };
        marks.push((key, u64::try_from(row.try_get::<i64, _>("seq")?)?));
    }
    Ok(marks)
}

/// Writes watermarks back.
pub(crate) async fn save_marks(tx: &mut Conn, marks: impl Iterator<Item = (&LaneKey, u64)>) -> Result<(), sqlx::Error> {
    let rows = marks
        .map(|(key, seq)| {
            let mut row = lane_values(key);
            row.push(Value::Int(saturated(seq)));
            row
        })
        .collect();
    multi_row::insert(
        tx,
        "lane_marks (tenant_id, appliance_id, epoch, lane, seq)",
        "",
        "ON CONFLICT (tenant_id, appliance_id, epoch, lane) DO UPDATE SET seq = excluded.seq",
        rows,
    )
    .await
}

/// The hashes under which a fault-lane record's id was taken before: empty, one, or (after a copy) several.
pub(crate) async fn known_hashes(
    tx: &mut Conn,
    (tenant_id, appliance_id): &LinkKey,
    id: &RecordId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT hash FROM fault_records WHERE tenant_id = $1 AND appliance_id = $2 AND epoch = $3 AND seq = $4")
        .bind(tenant_id)
        .bind(appliance_id)
        .bind(id.epoch.as_str())
        .bind(saturated(id.seq))
        .fetch_all(tx)
        .await
}

/// Keeps a fault-lane record as it came.
pub(crate) async fn add_fault_record(
    tx: &mut Conn,
    (tenant_id, appliance_id): &LinkKey,
    id: &RecordId,
    hash: &str,
    (received_at, occurred_at): (UnixMs, UnixMs),
    body: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO fault_records (tenant_id, appliance_id, epoch, seq, hash, received_at, occurred_at, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(id.epoch.as_str())
    .bind(saturated(id.seq))
    .bind(hash)
    .bind(received_at.0)
    .bind(occurred_at.0)
    .bind(body)
    .execute(tx)
    .await
    .map(drop)
}

/// Records losses; one that is known already stays as it is.
pub(crate) async fn add_losses(tx: &mut Conn, losses: &[Loss], now: UnixMs) -> Result<(), sqlx::Error> {
    let rows = losses
        .iter()
        .map(|loss| {
            let mut row = lane_values(&loss.lane);
            row.extend([Value::Int(saturated(loss.from_seq)), Value::Int(saturated(loss.to_seq)), Value::Text(loss.why.clone())]);
            row.extend([Value::Int(saturated(loss.count)), Value::Int(now.0)]);
            row
        })
        .collect();
    multi_row::insert(
        tx,
        "gaps (tenant_id, appliance_id, epoch, lane, from_seq, to_seq, why, lost_count, received_at)",
        "",
        "ON CONFLICT (tenant_id, appliance_id, epoch, lane, from_seq) DO NOTHING",
        rows,
    )
    .await
}

/// Keeps samples.
pub(crate) async fn add_samples(tx: &mut Conn, samples: Vec<(LinkKey, StoredSamples)>) -> anyhow::Result<()> {
    let row = |((tenant_id, appliance_id), samples): (LinkKey, StoredSamples)| {
        let (from_at, to_at) = (Value::Int(samples.from_at.0), Value::Int(samples.to_at.0));
        vec![Value::Text(tenant_id), Value::Text(appliance_id), from_at, to_at, Value::Blob(samples.metrics)]
    };
    let rows = samples.into_iter().map(row).collect();
    multi_row::insert(
        tx,
        "samples (tenant_id, appliance_id, from_at, to_at, metrics)",
        "",
        "ON CONFLICT (tenant_id, appliance_id, from_at, to_at) DO NOTHING",
        rows,
    )
    .await?;
    Ok(())
}

/// Puts the declared services in the place of those declared before.
pub(crate) async fn declare_services(
    tx: &mut Conn,
    (tenant_id, appliance_id): &LinkKey,
    services: &[DeclaredService],
    now: UnixMs,
) -> anyhow::Result<()> {
    sqlx::query("DELETE FROM declared_services WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .execute(&mut *tx)
        .await?;
    let mut rows = Vec::with_capacity(services.len());
    for service in services {
        rows.push(vec![
            Value::Text(tenant_id.clone()),
            Value::Text(appliance_id.clone()),
            Value::Text(service.name.clone()),
            Value::Text(service.title.clone()),
            Value::Text(serde_json::to_string(&service.depends_on)?),
            Value::Int(i64::from(service.interval_s)),
            Value::Int(now.0),
        ]);
    }
    multi_row::insert(
        tx,
        "declared_services (tenant_id, appliance_id, service, title, depends_on, interval_s, declared_at)",
        "",
        "ON CONFLICT (tenant_id, appliance_id, service) DO NOTHING",
        rows,
    )
    .await?;
    Ok(())
}

fn lane_values(key: &LaneKey) -> Vec<Value> {
    vec![
        Value::Text(key.tenant_id.clone()),
        Value::Text(key.appliance_id.clone()),
        Value::Text(key.epoch.to_string()),
        Value::Text(key.lane.as_str().to_owned()),
    ]
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
