//! `/metrics` (Prometheus text) and `/healthz`, for the browsers' listener.
//!
//! `/healthz` is open to all and says only whether the service works: it names no cause. `/metrics` answers to a direct peer on a
//! loopback address only (a scraper on this machine, or its relay): through a proxy, or from elsewhere, there is nothing. Figures
//! carry no names of customers or appliances.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sqlx::Row as _;
use tokio::sync::Mutex;

use crate::db::{Conn, Engine};
use crate::flow::World;
use crate::intake::counts::{Counts, Label};

/// The database has to answer a probe within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The fleet is counted at most so often: all of it is read for that.
const FLEET_EVERY: Duration = Duration::from_secs(60);
/// One batch of intake may take this long before the worker counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many appliances there are by state, and when (monotonic) that was counted.
type Fleet = Arc<Mutex<Option<(Duration, Labelled)>>>;

/// The two routes.
pub(crate) fn watched(counts: Counts) -> Router<World> {
    let (healthy, fleet) = (counts.clone(), Fleet::default());
    Router::new().route("/healthz", get(move |State(world): State<World>| async move { healthz(&world, &healthy).await })).route(
        "/metrics",
        get(move |State(world): State<World>, ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap| async move {
            metrics(&world, &counts, &fleet, peer, &headers).await
        }),
    )
}

async fn healthz(world: &World, counts: &Counts) -> Response {
    let probe = async {
        let mut conn = world.db.read().await?;
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM collector").fetch_one(&mut *conn).await
    };
    let database = matches!(tokio::time::timeout(ANSWERS_WITHIN, probe).await, Ok(Ok(1)));
    let busy_since_ms = counts.busy_since_ms.load(Ordering::Relaxed);
    let intake = world.time.monotonic().saturating_sub(Duration::from_millis(busy_since_ms)) < STUCK_AFTER;
    let (status, word) = if database && intake { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failing") };
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, format!("{{\"status\":\"{word}\",\"database\":{database},\"intake\":{intake}}}\n")).into_response()
}

async fn metrics(world: &World, counts: &Counts, fleet: &Fleet, peer: SocketAddr, headers: &HeaderMap) -> Response {
    let relayed = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    if relayed || !peer.ip().to_canonical().is_loopback() {
        return StatusCode::NOT_FOUND.into_response();
    }
    match text(world, counts, fleet).await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            tracing::warn!(error = %format!("{error:#}"), "reading the figures failed");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

async fn text(world: &World, counts: &Counts, fleet: &Fleet) -> anyhow::Result<String> {
    let mut registry = Registry::with_prefix("mainstay");
    register(&mut registry, counts);
    let mut conn = world.db.read().await?;
    for (name, help, figures) in figures(&mut conn, world, fleet).await? {
        let family = Family::<Vec<(String, String)>, Gauge>::default();
        for (labels, value) in figures {
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    }
    let engine = Family::<Label, Gauge>::default();
    let name = if world.db.engine() == Engine::Sqlite { "sqlite" } else { "postgres" };
    engine.get_or_create(&[("engine", name)]).set(1);
    registry.register("database", "Which database serves", engine);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn register(registry: &mut Registry, counts: &Counts) {
    registry.register("intake_messages", "Messages taken, by kind", counts.messages.clone());
    registry.register("intake_records", "Records taken, by lane", counts.records.clone());
    registry.register("intake_replays", "Records that came again", counts.replays.clone());
    registry.register("intake_refused", "Messages and records refused, by reason", counts.refused.clone());
    registry.register("intake_records_lost", "Records lost before they arrived, by lane", counts.lost.clone());
    registry.register("intake_batch_size", "Messages committed together", counts.batch_size.clone());
    registry.register("intake_batch_seconds", "Time from taking a batch to its commit", counts.batch_seconds.clone());
    registry.register("appliances_held", "Appliances that this node put on hold as copies", counts.holds.clone());
    registry.register("waiting_polls", "Long polls that wait now", counts.waiting_polls.clone());
}

type Labelled = Vec<(Vec<(String, String)>, i64)>;

/// What only the database knows: the same on every node.
async fn figures(
    conn: &mut Conn,
    world: &World,
    fleet: &Fleet,
) -> Result<Vec<(&'static str, &'static str, Labelled)>, sqlx::Error> {
    let tickets = by_label(
        conn,
        "severity",
        "SELECT 'critical' AS label, COUNT(*) AS n FROM tickets
           WHERE state <> 'closed' AND state IN ('open', 'recovered') AND severity = 'critical'
         UNION ALL SELECT 'general', COUNT(*) FROM tickets
           WHERE state <> 'closed' AND state IN ('open', 'recovered') AND severity = 'general'",
    )
    .await?;
    // Only what is not settled: what was met, sent or closed once is history, and counting it would read it whole.
    let clocks = by_label(
        conn,
        "state",
        "SELECT state AS label, COUNT(*) AS n FROM clocks WHERE stopped_at IS NULL AND state IN ('running', 'missed') GROUP BY state",
    )
    .await?;
    let outbox =
        by_label(conn, "state", "SELECT state AS label, COUNT(*) AS n FROM outbox WHERE state <> 'sent' GROUP BY state").await?;
    let appliances = fleet_now(conn, world.time.monotonic(), fleet).await?;
    let silent: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM links WHERE silent_since_at IS NOT NULL").fetch_one(&mut *conn).await?;
    let oldest: Option<i64> =
        sqlx::query_scalar("SELECT MIN(created_at) FROM outbox WHERE state = 'waiting' AND state <> 'sent'")
            .fetch_one(&mut *conn)
            .await?;
    let oldest_s = oldest.map_or(0, |at| (world.time.now().0 - at).max(0) / 1000);
    Ok(vec![
        ("tickets_open", "Tickets that are not closed, by severity", tickets),
        ("clocks", "Promised clocks that no proof has stopped, by state", clocks),
        ("notices", "Notices that are not sent, by state", outbox),
        ("notices_oldest_waiting_seconds", "Age of the oldest notice that waits", vec![(Vec::new(), oldest_s)]),
        ("appliances", "Appliances, by state, as of a minute ago at most", appliances),
        ("appliances_silent", "Appliances that are silent now", vec![(Vec::new(), silent)]),
    ])
}

async fn fleet_now(conn: &mut Conn, now: Duration, fleet: &Fleet) -> Result<Labelled, sqlx::Error> {
    let mut counted = fleet.lock().await;
    if let Some((at, known)) = &*counted
        && now.saturating_sub(*at) < FLEET_EVERY
    {
        return Ok(known.clone());
    }
    let found = by_label(conn, "state", "SELECT state AS label, COUNT(*) AS n FROM appliances GROUP BY state").await?;
    *counted = Some((now, found.clone()));
    Ok(found)
}

async fn by_label(conn: &mut Conn, label: &str, sql: &'static str) -> Result<Labelled, sqlx::Error> {
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((vec![(label.to_owned(), row.try_get("label")?)], row.try_get("n")?))).collect()
}
