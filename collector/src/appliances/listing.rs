//! Appliances as the console and the API show them: read-only, with the link's present values. Their text comes from the boxes and
//! is hostile; whoever shows it escapes it (R11).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context as _;
use mainstay_shared::check::ServiceState;
use mainstay_shared::record::Folded;
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::db::Conn;
use crate::db::multi_row;

/// How an appliance stands, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Held: a clone or a rewound snapshot; an operator releases it.
    Held,
    /// Not heard, and no goodbye explains it.
    Silent,
    /// It has open tickets.
    Faulty,
    /// It said goodbye.
    Away,
    /// Enrolled, never heard.
    NeverHeard,
    /// Heard, nothing open.
    Well,
    /// Out of service.
    Retired,
}

impl Standing {
    /// The name in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Silent => "silent",
            Self::Faulty => "faulty",
            Self::Away => "away",
            Self::NeverHeard => "never_heard",
            Self::Well => "well",
            Self::Retired => "retired",
        }
    }
}

/// An appliance with what is known of it now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ApplianceNow {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) product: String,
    pub(crate) vendor: String,
    pub(crate) model: String,
    pub(crate) serial: String,
    pub(crate) duty: String,
    pub(crate) agent_version: String,
    pub(crate) platform: String,
    pub(crate) state: String,
    pub(crate) held_reason: String,
    pub(crate) enrolled_at: UnixMs,
    pub(crate) last_seen_at: Option<UnixMs>,
    pub(crate) silent_since_at: Option<UnixMs>,
    pub(crate) goodbye_at: Option<UnixMs>,
    pub(crate) expected_back_at: Option<UnixMs>,
    pub(crate) clock_offset_ms: i64,
    pub(crate) backlog: i64,
    /// Current values by metric name.
    pub(crate) values: BTreeMap<String, f64>,
    /// Current states of the business services.
    pub(crate) services: BTreeMap<String, ServiceState>,
    /// Declared business services; none means severity blind.
    pub(crate) declared_count: i64,
    /// Not closed: its own, and those that hold an open episode of it.
    pub(crate) open_tickets: i64,
}

impl ApplianceNow {
    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        match (self.state.as_str(), self.last_seen_at) {
            ("retired", _) => Standing::Retired,
            ("held", _) => Standing::Held,
            _ if self.silent_since_at.is_some() => Standing::Silent,
            _ if self.open_tickets > 0 => Standing::Faulty,
            _ if self.goodbye_at.is_some() => Standing::Away,
            (_, None) => Standing::NeverHeard,
            (_, Some(_)) => Standing::Well,
        }
    }
}

macro_rules! appliance_text {
    () => {
        "SELECT a.tenant_id, a.appliance_id, a.site_id, a.name, a.product, a.vendor, a.model, a.serial, a.duty, \
    a.agent_version, a.platform, a.state, a.held_reason, a.enrolled_at, l.last_seen_at, l.silent_since_at, l.goodbye_at, \
    l.expected_back_at, l.clock_offset_ms, l.backlog, l.present_values, l.services, \
    (SELECT COUNT(*) FROM declared_services d WHERE d.tenant_id = a.tenant_id AND d.appliance_id = a.appliance_id) AS declared_count, \
    (SELECT COUNT(*) FROM (SELECT t.ticket_id FROM tickets t \
        WHERE t.tenant_id = a.tenant_id AND t.appliance_id = a.appliance_id AND t.state <> 'closed' \
        UNION SELECT t.ticket_id FROM episodes e JOIN tickets t ON t.tenant_id = e.tenant_id AND t.ticket_id = e.ticket_id \
        WHERE e.tenant_id = a.tenant_id AND e.appliance_id = a.appliance_id AND e.cleared_at IS NULL AND t.state <> 'closed') AS held) \
        AS open_tickets \
    FROM appliances a LEFT JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id"
    };
}
const APPLIANCE: &str = appliance_text!();
const APPLIANCES_BY_KEY: &str = concat!(appliance_text!(), " WHERE a.state <> 'retired' AND (a.tenant_id, a.appliance_id)");

/// A page of appliances by id; `after` is the cursor: the last id of the page before. `None` as tenant: the vendor's staff.
pub(crate) async fn list(
    conn: &mut Conn,
    tenant_id: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<ApplianceNow>, sqlx::Error> {
    let whose = if tenant_id.is_some() { "AND a.tenant_id = $3" } else { "" };
    let sql = format!("{APPLIANCE} WHERE a.appliance_id > $1 {whose} ORDER BY a.appliance_id LIMIT $2");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after.to_owned()).bind(limit);
    if let Some(tenant_id) = tenant_id {
        query = query.bind(tenant_id.to_owned());
    }
    query.fetch_all(conn).await?.iter().map(from_row).collect()
}

/// Appliances that ask for somebody: held, silent, or with tickets that are not closed (the newest of them); at most about `limit`
/// for each reason.
pub(crate) async fn troubled(conn: &mut Conn, tenant_id: Option<&str>, limit: i64) -> Result<Vec<ApplianceNow>, sqlx::Error> {
    let whose = if tenant_id.is_some() { "AND tenant_id = $2" } else { "" };
    let mut keys = BTreeSet::new();
    for (found, order) in [
        ("appliances WHERE state = 'held'", ""),
        ("links WHERE silent_since_at IS NOT NULL", ""),
        ("tickets WHERE state <> 'closed' AND appliance_id <> ''", "ORDER BY number DESC"),
    ] {
        let sql = format!("SELECT tenant_id, appliance_id FROM {found} {whose} {order} LIMIT $1");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(limit);
        if let Some(tenant_id) = tenant_id {
            query = query.bind(tenant_id.to_owned());
        }
        for row in &query.fetch_all(&mut *conn).await? {
            keys.insert(vec![row.try_get::<String, _>("tenant_id")?, row.try_get("appliance_id")?]);
        }
    }
    let keys: Vec<Vec<String>> = keys.into_iter().collect();
    let rows = multi_row::select(conn, APPLIANCES_BY_KEY, &keys).await?;
    rows.iter().map(from_row).collect()
}

/// The appliance of that id, whichever customer's: ids are unique over all. For the vendor's staff; others compare the tenant.
pub(crate) async fn find(conn: &mut Conn, appliance_id: &str) -> Result<Option<ApplianceNow>, sqlx::Error> {
    let sql = format!("{APPLIANCE} WHERE a.appliance_id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(appliance_id).fetch_optional(conn).await?;
    row.as_ref().map(from_row).transpose()
}

/// The names of these appliances by id, for lists of the vendor's staff.
pub(crate) async fn names(conn: &mut Conn, ids: &BTreeSet<String>) -> anyhow::Result<HashMap<String, String>> {
    let ids: Vec<Vec<String>> = ids.iter().map(|id| vec![id.clone()]).collect();
    let rows = multi_row::tuples(conn, "appliance_id, name", "FROM appliances WHERE (appliance_id)", &ids).await?;
    Ok(rows.into_iter().collect())
}

fn from_row(row: &AnyRow) -> Result<ApplianceNow, sqlx::Error> {
    let at = |column: &str| -> Result<Option<UnixMs>, sqlx::Error> { Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs)) };
    // What can't be read as JSON is shown as not there: a page must not fail over one box's values.
    let text =
        |column: &str| -> Result<String, sqlx::Error> { Ok(row.try_get::<Option<String>, _>(column)?.unwrap_or_default()) };
    Ok(ApplianceNow {
        tenant_id: row.try_get("tenant_id")?,
        appliance_id: row.try_get("appliance_id")?,
        site_id: row.try_get("site_id")?,
        name: row.try_get("name")?,
        product: row.try_get("product")?,
        vendor: row.try_get("vendor")?,
        model: row.try_get("model")?,
        serial: row.try_get("serial")?,
        duty: row.try_get("duty")?,
        agent_version: row.try_get("agent_version")?,
        platform: row.try_get("platform")?,
        state: row.try_get("state")?,
        held_reason: row.try_get("held_reason")?,
        enrolled_at: UnixMs(row.try_get("enrolled_at")?),
        last_seen_at: at("last_seen_at")?,
        silent_since_at: at("silent_since_at")?,
        goodbye_at: at("goodbye_at")?,
        expected_back_at: at("expected_back_at")?,
        clock_offset_ms: row.try_get::<Option<i64>, _>("clock_offset_ms")?.unwrap_or_default(),
        backlog: row.try_get::<Option<i64>, _>("backlog")?.unwrap_or_default(),
        values: serde_json::from_str(&text("present_values")?).unwrap_or_default(),
        services: serde_json::from_str(&text("services")?).unwrap_or_default(),
        declared_count: row.try_get("declared_count")?,
        open_tickets: row.try_get("open_tickets")?,
    })
}

/// One folded record of samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) from_at: UnixMs,
    pub(crate) to_at: UnixMs,
    pub(crate) metrics: BTreeMap<String, Folded>,
}

/// The largest JSON that one five-minute record may inflate to.
const MAX_METRICS_BYTES: usize = 1 << 20;

/// A record of samples spans a day at most: where the key's range begins.
const LONGEST_RECORD_MS: i64 = 86_400_000;

/// An appliance's samples that end within the span, oldest first, at most 2,100 (a week).
///
/// # Errors
/// If the database refuses or a stored record can't be read.
pub(crate) async fn samples(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    (from, to): (UnixMs, UnixMs),
) -> anyhow::Result<Vec<Sample>> {
    let rows = sqlx::query(
        "SELECT from_at, to_at, metrics FROM samples WHERE tenant_id = $1 AND appliance_id = $2 AND to_at > $3 AND to_at <= $4
           AND from_at >= $5 AND from_at <= $4 ORDER BY to_at LIMIT 2100",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(from.0)
    .bind(to.0)
    .bind(from.plus_ms(-LONGEST_RECORD_MS).0)
    .fetch_all(conn)
    .await?;
    // One unpacker and one room for all: a week has two thousand records.
    let mut unpacker = zstd::bulk::Decompressor::new().context("unpacking samples")?;
    let mut json = Vec::with_capacity(MAX_METRICS_BYTES);
    rows.iter()
        .map(|row| {
            let packed: Vec<u8> = row.try_get("metrics")?;
            json.clear();
            unpacker.decompress_to_buffer(&packed, &mut json).context("a stored sample")?;
            Ok(Sample {
                from_at: UnixMs(row.try_get("from_at")?),
                to_at: UnixMs(row.try_get("to_at")?),
                metrics: serde_json::from_slice(&json).context("a stored sample")?,
            })
        })
        .collect()
}

/// A business service as the appliance declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeclaredLine {
    pub(crate) service: String,
    pub(crate) title: String,
    pub(crate) interval_s: i64,
}

/// An appliance's declared business services.
pub(crate) async fn declared(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Vec<DeclaredLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT service, title, interval_s FROM declared_services WHERE tenant_id = $1 AND appliance_id = $2 ORDER BY service",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(DeclaredLine {
                service: row.try_get("service")?,
                title: row.try_get("title")?,
                interval_s: row.try_get("interval_s")?,
            })
        })
        .collect()
}

/// A certificate of an appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CertificateLine {
    /// Hex SHA-256.
    pub(crate) fingerprint: String,
    pub(crate) issued_at: UnixMs,
    pub(crate) not_after_at: UnixMs,
    pub(crate) revoked_at: Option<UnixMs>,
}

/// An appliance's certificates, newest first.
pub(crate) async fn certificates(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
) -> Result<Vec<CertificateLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT fingerprint, issued_at, not_after_at, revoked_at FROM certificates WHERE tenant_id = $1 AND appliance_id = $2
         ORDER BY issued_at DESC, fingerprint LIMIT 10",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(CertificateLine {
                fingerprint: row.try_get("fingerprint")?,
                issued_at: UnixMs(row.try_get("issued_at")?),
                not_after_at: UnixMs(row.try_get("not_after_at")?),
                revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(UnixMs),
            })
        })
        .collect()
}

/// When a renewal that waits for an operator was asked for (R26), if one waits.
pub(crate) async fn waiting_renewal(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Option<UnixMs>, sqlx::Error> {
    let asked: Option<i64> = sqlx::query_scalar(
        "SELECT requested_at FROM renewal_requests WHERE tenant_id = $1 AND appliance_id = $2 AND approved_at IS NULL",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .fetch_optional(conn)
    .await?;
    Ok(asked.map(UnixMs))
}
