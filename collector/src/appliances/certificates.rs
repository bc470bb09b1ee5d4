//! The certificates that were issued, and renewals that wait for an operator's click (R26). A verified certificate is an identity
//! only while its row says so: revoking it, or retiring the appliance, ends it (R14).

use mainstay_shared::ids::ApplianceId;
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Identity;
use crate::db::Conn;

/// A certificate as issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StoredCertificate {
    /// Hex SHA-256 of its DER.
    pub(crate) fingerprint: String,
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    /// Hex of the raw public key.
    pub(crate) public_key: String,
    pub(crate) pem: String,
    pub(crate) not_after_at: UnixMs,
    pub(crate) issued_at: UnixMs,
    pub(crate) revoked_at: Option<UnixMs>,
}

/// A renewal of an expired certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RenewalRequest {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) public_key: String,
    pub(crate) requested_at: UnixMs,
    pub(crate) approved_at: Option<UnixMs>,
    pub(crate) approved_by: Option<String>,
}

/// Records an issued certificate.
pub(crate) async fn add(tx: &mut Conn, certificate: &StoredCertificate) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO certificates (fingerprint, tenant_id, appliance_id, public_key, pem, not_after_at, issued_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&certificate.fingerprint)
    .bind(&certificate.tenant_id)
    .bind(&certificate.appliance_id)
    .bind(&certificate.public_key)
    .bind(&certificate.pem)
    .bind(certificate.not_after_at.0)
    .bind(certificate.issued_at.0)
    .bind(certificate.revoked_at.map(|at| at.0))
    .execute(tx)
    .await
    .map(drop)
}

/// Who a verified certificate is; `None`: unknown, expired (a connection may outlive it), revoked, or of a retired appliance.
pub(crate) async fn identity_of(conn: &mut Conn, fingerprint: &str, now: UnixMs) -> Result<Option<Identity>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT a.tenant_id, a.appliance_id, a.site_id FROM certificates c
         JOIN appliances a ON a.tenant_id = c.tenant_id AND a.appliance_id = c.appliance_id
         WHERE c.fingerprint = $1 AND c.not_after_at > $2 AND c.revoked_at IS NULL AND a.state <> 'retired'",
    )
    .bind(fingerprint)
    .bind(now.0)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let appliance_id: String = row.try_get("appliance_id")?;
    let appliance_id: ApplianceId = appliance_id.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Some(Identity { tenant_id: row.try_get("tenant_id")?, appliance_id, site_id: row.try_get("site_id")? }))
}

/// The certificate of that fingerprint, whatever became of it.
pub(crate) async fn get(conn: &mut Conn, fingerprint: &str) -> Result<Option<StoredCertificate>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM certificates WHERE fingerprint = $1").bind(fingerprint).fetch_optional(conn).await?;
    row.as_ref().map(from_row).transpose()
}

/// An appliance's certificates, newest first.
pub(crate) async fn of_appliance(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
) -> Result<Vec<StoredCertificate>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM certificates WHERE tenant_id = $1 AND appliance_id = $2 ORDER BY issued_at DESC, fingerprint")
            .bind(tenant_id)
            .bind(appliance_id)
            .fetch_all(conn)
            .await?;
    rows.iter().map(from_row).collect()
}

/// Ends a certificate of an appliance. Whether it had a living one of that fingerprint.
pub(crate) async fn revoke(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    fingerprint: &str,
    now: UnixMs,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "UPDATE certificates SET revoked_at = $1
         WHERE tenant_id = $2 AND appliance_id = $3 AND fingerprint = $4 AND revoked_at IS NULL",
    )
    .bind(now.0)
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(fingerprint)
    .execute(tx)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Notes that a renewal waits. `true`: it is new, or for another key than before (which takes an approval back).
pub(crate) async fn request_renewal(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    public_key: &str,
    now: UnixMs,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query(
        "INSERT INTO renewal_requests (tenant_id, appliance_id, public_key, requested_at, approved_at, approved_by)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant_id, appliance_id) DO UPDATE
         SET public_key = excluded.public_key, requested_at = excluded.requested_at, approved_at = NULL, approved_by = NULL
         WHERE renewal_requests.public_key <> excluded.public_key",
    )
    .bind(tenant_id)
    .bind(appliance_id)
    .bind(public_key)
    .bind(now.0)
    .bind(None::<i64>)
    .bind(None::<String>)
    .execute(tx)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// The renewal that waits for an appliance, if one does.
pub(crate) async fn renewal_of(
    conn: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
) -> Result<Option<RenewalRequest>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM renewal_requests WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(RenewalRequest {
        tenant_id: row.try_get("tenant_id")?,
        appliance_id: row.try_get("appliance_id")?,
        public_key: row.try_get("public_key")?,
        requested_at: UnixMs(row.try_get("requested_at")?),
        approved_at: row.try_get::<Option<i64>, _>("approved_at")?.map(UnixMs),
        approved_by: row.try_get("approved_by")?,
    }))
}

/// An operator's click. Whether a renewal waited for it.
pub(crate) async fn approve_renewal(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    staff_id: &str,
    now: UnixMs,
) -> Result<bool, sqlx::Error> {
    let approved = sqlx::query(
        "UPDATE renewal_requests SET approved_at = $1, approved_by = $2
         WHERE tenant_id = $3 AND appliance_id = $4 AND approved_at IS NULL",
    )
    .bind(now.0)
    .bind(staff_id)
    .bind(tenant_id)
    .bind(appliance_id)
    .execute(tx)
    .await?;
    Ok(approved.rows_affected() == 1)
}

/// Takes a finished renewal off the list.
pub(crate) async fn end_renewal(tx: &mut Conn, tenant_id: &str, appliance_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM renewal_requests WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(tenant_id)
        .bind(appliance_id)
        .execute(tx)
        .await
        .map(drop)
}

fn from_row(row: &AnyRow) -> Result<StoredCertificate, sqlx::Error> {
    Ok(StoredCertificate {
        fingerprint: row.try_get("fingerprint")?,
        tenant_id: row.try_get("tenant_id")?,
        appliance_id: row.try_get("appliance_id")?,
        public_key: row.try_get("public_key")?,
        pem: row.try_get("pem")?,
        not_after_at: UnixMs(row.try_get("not_after_at")?),
        issued_at: UnixMs(row.try_get("issued_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(UnixMs),
    })
}
