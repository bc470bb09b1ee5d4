//! What the boxes said of signed files, and what runs on them, as rows. The tenant stands in every question (R23).

use mainstay_shared::patch::{Installed, PatchReport, PatchStep};
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{STEPS, kind_from_name, kind_name, step_name};
use crate::db::Conn;

/// By which way a report came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As a record of the fault lane.
    Online,
    /// In a signed receipt that somebody carried.
    Receipt,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Receipt => "receipt",
        }
    }
}

/// What runs on an appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InstalledRow {
    pub(crate) product: String,
    pub(crate) version: String,
    pub(crate) hardware: String,
    pub(crate) patch_consent: String,
    pub(crate) action_consent: String,
    /// The number of the report that it rests on; 0: the agent's own word at its start.
    #[serde(skip)]
    pub(crate) number: i64,
    pub(crate) told_at: UnixMs,
}

/// A report as it is kept, for pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReportRow {
    pub(crate) number: i64,
    pub(crate) sha256: String,
    pub(crate) step: String,
    pub(crate) kind: String,
    pub(crate) product: String,
    pub(crate) from_version: String,
    pub(crate) to_version: String,
    pub(crate) reason: String,
    /// Untrusted text.
    pub(crate) detail: String,
    /// Untrusted text.
    pub(crate) output: String,
    /// `online` or `receipt`.
    pub(crate) way: String,
    pub(crate) occurred_at: UnixMs,
    pub(crate) received_at: UnixMs,
}

/// Keeps a report; `false`: it is known.
pub(crate) async fn add(
    tx: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    report: &PatchReport,
    way: Way,
    (occurred_at, received_at): (UnixMs, UnixMs),
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO patch_reports (tenant_id, appliance_id, number, sha256, step, offer_id, kind, product, from_version, to_version,
             reason, detail, output, way, occurred_at, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(number_of(report))
    .bind(&report.sha256)
    .bind(step_name(report.step))
    .bind(report.offer_id.as_deref().unwrap_or_default())
    .bind(kind_name(report.kind))
    .bind(&report.product)
    .bind(report.from_version.as_deref().unwrap_or_default())
    .bind(&report.to_version)
    .bind(&report.reason)
    .bind(&report.detail)
    .bind(&report.output)
    .bind(way.as_str())
    .bind(occurred_at.0)
    .bind(received_at.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A report's number as the database counts.
pub(crate) fn number_of(report: &PatchReport) -> i64 {
    i64::try_from(report.number).unwrap_or(i64::MAX)
}

/// How a version of a product ended on an appliance: every end that was told of, the newest last. By version, not by the file's hash:
/// signed anew it is another file with the same fault in it.
pub(crate) async fn ends_of(
    conn: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    (product, version): (&str, &str),
) -> Result<Vec<PatchStep>, sqlx::Error> {
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT step FROM patch_reports WHERE tenant_id = $1 AND appliance_id = $2 AND product = $3 AND to_version = $4
         AND kind = 'patch' ORDER BY number",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(product)
    .bind(version)
    .fetch_all(conn)
    .await?;
    let step = |name: String| STEPS.into_iter().find(|step| step_name(*step) == name && step.is_final());
    Ok(told.into_iter().filter_map(step).collect())
}

/// An appliance's newest reports, newest first.
pub(crate) async fn newest(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    limit: i64,
) -> Result<Vec<ReportRow>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM patch_reports WHERE tenant_id = $1 AND appliance_id = $2 ORDER BY number DESC LIMIT $3")
            .bind(tenant_id)
            .bind(appliance_id)
            .bind(limit)
            .fetch_all(conn)
            .await?;
    rows.iter().map(report_row).collect()
}

fn report_row(row: &AnyRow) -> Result<ReportRow, sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    Ok(ReportRow {
        number: row.try_get("number")?,
        sha256: row.try_get("sha256")?,
        step: row.try_get("step")?,
        kind: kind_name(kind_from_name(&kind)).to_owned(),
        product: row.try_get("product")?,
        from_version: row.try_get("from_version")?,
        to_version: row.try_get("to_version")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        output: row.try_get("output")?,
        way: row.try_get("way")?,
        occurred_at: UnixMs(row.try_get("occurred_at")?),
        received_at: UnixMs(row.try_get("received_at")?),
    })
}

/// What runs on an appliance, if it ever said.
pub(crate) async fn installed(conn: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<Option<InstalledRow>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM installed WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(InstalledRow {
        product: row.try_get("product")?,
        version: row.try_get("version")?,
        hardware: row.try_get("hardware")?,
        patch_consent: row.try_get("patch_consent")?,
        action_consent: row.try_get("action_consent")?,
        number: row.try_get("number")?,
        told_at: UnixMs(row.try_get("told_at")?),
    }))
}

/// Notes what an agent says at its start: the truth, whatever was known.
pub(crate) async fn set_installed(
    tx: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    told: &Installed,
    now: UnixMs,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO installed (tenant_id, appliance_id, product, version, hardware, patch_consent, action_consent, number, told_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8) ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET product = excluded.product,
             version = excluded.version, hardware = excluded.hardware, patch_consent = excluded.patch_consent,
             action_consent = excluded.action_consent, told_at = excluded.told_at",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(&told.product)
    .bind(&told.version)
    .bind(&told.hardware)
    .bind(&told.patch_consent)
    .bind(&told.action_consent)
    .bind(now.0)
    .execute(tx)
    .await
    .map(drop)
}

/// Notes the version that a report of that number leaves running, unless a later report is known.
pub(crate) async fn set_version(
    tx: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    (product, version): (&str, &str),
    number: i64,
    now: UnixMs,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO installed (tenant_id, appliance_id, product, version, hardware, patch_consent, action_consent, number, told_at)
         VALUES ($1, $2, $3, $4, '', '', '', $5, $6) ON CONFLICT (tenant_id, appliance_id) DO UPDATE SET version = excluded.version,
             number = excluded.number, told_at = excluded.told_at
         WHERE installed.number < excluded.number AND installed.product = excluded.product",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(product)
    .bind(version)
    .bind(number)
    .bind(now.0)
    .execute(tx)
    .await
    .map(drop)
}

/// How many appliances run which version: `(product, version, count)`, of one customer or of all.
pub(crate) async fn versions(conn: &mut Conn, tenant_id: Option<&str>) -> Result<Vec<(String, String, i64)>, sqlx::Error> {
    let whose = if tenant_id.is_some() { "WHERE tenant_id = $1" } else { "" };
    let sql = format!(
        "SELECT product, version, COUNT(*) AS n FROM installed {whose} GROUP BY product, version ORDER BY product, version"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    if let Some(tenant_id) = tenant_id {
        query = query.bind(tenant_id.to_owned());
    }
    query
        .fetch_all(conn)
        .await?
        .iter()
        .map(|row| Ok((row.try_get("product")?, row.try_get("version")?, row.try_get("n")?)))
        .collect()
}
