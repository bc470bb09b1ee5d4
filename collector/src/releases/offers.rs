//! Offers as rows. The tenant stands in every question (R23); only lists for the vendor's staff look across customers.

use mainstay_shared::patch::{Offer, PatchKind};
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::life::OfferState;
use super::{OfferRow, kind_from_name, kind_name};
use crate::db::Conn;

impl OfferRow {
    /// As it crosses the wire.
    pub(crate) fn on_the_wire(&self) -> Offer {
        Offer {
            offer_id: self.offer_id.clone(),
            kind: self.kind,
            file: self.file.clone(),
            sha256: self.sha256.clone(),
            bytes: u64::try_from(self.bytes).unwrap_or_default(),
            product: self.product.clone(),
            version: self.version.clone(),
        }
    }
}

/// Writes a new offer.
pub(crate) async fn add(tx: &mut Conn, offer: &OfferRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO offers (tenant_id, offer_id, batch_id, appliance_id, file, sha256, bytes, kind, product, version, ticket_id, terms,
             state, percent, reason, detail, number, decision, decided_at, made_by, made_at, changed_at, expires_at, ended_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)",
    )
    .bind(&offer.tenant_id)
    .bind(&offer.offer_id)
    .bind(&offer.batch_id)
    .bind(&offer.appliance_id)
    .bind(&offer.file)
    .bind(&offer.sha256)
    .bind(offer.bytes)
    .bind(kind_name(offer.kind))
    .bind(&offer.product)
    .bind(&offer.version)
    .bind(&offer.ticket_id)
    .bind(&offer.terms)
    .bind(offer.state.as_str())
    .bind(offer.percent)
    .bind(&offer.reason)
    .bind(&offer.detail)
    .bind(offer.number)
    .bind(&offer.decision)
    .bind(offer.decided_at.map(|at| at.0))
    .bind(&offer.made_by)
    .bind(offer.made_at.0)
    .bind(offer.changed_at.0)
    .bind(offer.expires_at.0)
    .bind(offer.ended_at.map(|at| at.0))
    .execute(tx)
    .await
    .map(drop)
}

/// Writes back what moves: state, progress, decision.
pub(crate) async fn update(tx: &mut Conn, offer: &OfferRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE offers SET state = $3, percent = $4, reason = $5, detail = $6, number = $7, decision = $8, decided_at = $9,
             changed_at = $10, ended_at = $11 WHERE tenant_id = $1 AND offer_id = $2",
    )
    .bind(&offer.tenant_id)
    .bind(&offer.offer_id)
    .bind(offer.state.as_str())
    .bind(offer.percent)
    .bind(&offer.reason)
    .bind(&offer.detail)
    .bind(offer.number)
    .bind(&offer.decision)
    .bind(offer.decided_at.map(|at| at.0))
    .bind(offer.changed_at.0)
    .bind(offer.ended_at.map(|at| at.0))
    .execute(tx)
    .await
    .map(drop)
}

/// One offer of a customer.
pub(crate) async fn get(conn: &mut Conn, tenant_id: &str, offer_id: &str) -> Result<Option<OfferRow>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM offers WHERE tenant_id = $1 AND offer_id = $2")
        .bind(tenant_id)
        .bind(offer_id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// The offer of a file to an appliance that a report is about: the living one, else the newest.
pub(crate) async fn of_file(
    conn: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    sha256: &str,
) -> Result<Option<OfferRow>, sqlx::Error> {
    Ok(of_appliance(conn, tenant_id, appliance_id, 200)
        .await?
        .into_iter()
        .filter(|offer| offer.sha256 == sha256)
        .max_by_key(|offer| (offer.ended_at.is_none(), offer.made_at)))
}

/// An appliance's offers, newest first.
pub(crate) async fn of_appliance(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    limit: i64,
) -> Result<Vec<OfferRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM offers WHERE tenant_id = $1 AND appliance_id = $2 ORDER BY made_at DESC LIMIT $3")
        .bind(tenant_id)
        .bind(appliance_id)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    from_rows(&rows)
}

/// The offers made from a ticket, newest first.
pub(crate) async fn of_ticket(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Vec<OfferRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM offers WHERE tenant_id = $1 AND ticket_id = $2 AND ticket_id <> '' ORDER BY made_at DESC LIMIT 200",
    )
    .bind(tenant_id)
    .bind(ticket_id)
    .fetch_all(conn)
    .await?;
    from_rows(&rows)
}

/// The offers that one link is about.
pub(crate) async fn of_batch(conn: &mut Conn, tenant_id: &str, batch_id: &str) -> Result<Vec<OfferRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM offers WHERE tenant_id = $1 AND batch_id = $2 ORDER BY appliance_id")
        .bind(tenant_id)
        .bind(batch_id)
        .fetch_all(conn)
        .await?;
    from_rows(&rows)
}

/// The newest offers of a file, of one customer or (`None`, for the vendor's staff) of all.
pub(crate) async fn of_name(
    conn: &mut Conn,
    file: &str,
    tenant_id: Option<&str>,
    limit: i64,
) -> Result<Vec<OfferRow>, sqlx::Error> {
    let rows = match tenant_id {
        Some(tenant) => sqlx::query("SELECT * FROM offers WHERE file = $1 AND tenant_id = $2 ORDER BY made_at DESC LIMIT $3")
            .bind(file)
            .bind(tenant),
        None => sqlx::query("SELECT * FROM offers WHERE file = $1 ORDER BY made_at DESC LIMIT $2").bind(file),
    };
    from_rows(&rows.bind(limit).fetch_all(conn).await?)
}

/// Living offers whose box never took them up in time.
pub(crate) async fn overdue(conn: &mut Conn, now: UnixMs, limit: i64) -> Result<Vec<OfferRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM offers WHERE ended_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2")
        .bind(now.0)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    from_rows(&rows)
}

/// Whether an appliance that is in service and not held may fetch a file: it was offered to it and not taken back.
pub(crate) async fn may_fetch(
    conn: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    file: &str,
    needs_offer: bool,
) -> Result<bool, sqlx::Error> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM appliances WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .fetch_optional(&mut *conn)
        .await?;
    if state.as_deref() != Some("active") {
        return Ok(false);
    }
    let living = of_appliance(conn, tenant_id, appliance_id, 200).await?;
    let takes = |offer: &OfferRow| offer.file == file && !matches!(offer.state, OfferState::TakenBack | OfferState::Expired);
    Ok(!needs_offer || living.iter().any(takes))
}

/// Whether an appliance has an offer of this file that is not over: told that there is none, it would drop what it has fetched.
pub(crate) async fn is_awaited(
    conn: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    file: &str,
) -> Result<bool, sqlx::Error> {
    let sql = "SELECT offer_id FROM offers WHERE tenant_id = $1 AND appliance_id = $2 AND file = $3 AND ended_at IS NULL LIMIT 1";
    let offer = sqlx::query(sql).bind(tenant_id).bind(appliance_id).bind(file).fetch_optional(conn).await?;
    Ok(offer.is_some())
}

/// Whether files of a kind reach appliances by an offer only; the others are for everyone of the product.
pub(crate) fn needs_offer(kind: PatchKind) -> bool {
    matches!(kind, PatchKind::Patch | PatchKind::Action)
}

fn from_rows(rows: &[AnyRow]) -> Result<Vec<OfferRow>, sqlx::Error> {
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<OfferRow, sqlx::Error> {
    let at = |column: &str| Ok::<_, sqlx::Error>(UnixMs(row.try_get(column)?));
    let maybe_at = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(UnixMs));
    let (state, kind): (String, String) = (row.try_get("state")?, row.try_get("kind")?);
    Ok(OfferRow {
        tenant_id: row.try_get("tenant_id")?,
        offer_id: row.try_get("offer_id")?,
        batch_id: row.try_get("batch_id")?,
        appliance_id: row.try_get("appliance_id")?,
        file: row.try_get("file")?,
        sha256: row.try_get("sha256")?,
        bytes: row.try_get("bytes")?,
        kind: kind_from_name(&kind),
        product: row.try_get("product")?,
        version: row.try_get("version")?,
        ticket_id: row.try_get("ticket_id")?,
        terms: row.try_get("terms")?,
        state: OfferState::from_name(&state),
        percent: row.try_get("percent")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        number: row.try_get("number")?,
        decision: row.try_get("decision")?,
        decided_at: maybe_at("decided_at")?,
        made_by: row.try_get("made_by")?,
        made_at: at("made_at")?,
        changed_at: at("changed_at")?,
        expires_at: at("expires_at")?,
        ended_at: maybe_at("ended_at")?,
    })
}
