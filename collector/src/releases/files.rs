//! Files of the repository as rows, what was signed online, when what was signed offline ends, and the lease of the node that does it.

use std::collections::BTreeSet;

use anyhow::Context as _;
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::online::{Role, Signed};
use super::{FileState, ReleaseFile, kind_name};
use crate::db::Conn;

/// Writes what was read of a file, in place of what was.
pub(crate) async fn put(tx: &mut Conn, file: &ReleaseFile, now: UnixMs) -> anyhow::Result<()> {
    let (product, version, manifest) = match &file.manifest {
        Some(manifest) => (manifest.product.clone(), manifest.version.to_string(), serde_json::to_string(manifest)?),
        None => Default::default(),
    };
    sqlx::query(
        "INSERT INTO release_files (file, sha256, bytes, mark, kind, product, version, manifest, manifest_sha256, state, refusal,
             expires_at, seen_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (file) DO UPDATE SET sha256 = excluded.sha256,
             bytes = excluded.bytes, mark = excluded.mark, kind = excluded.kind, product = excluded.product, version = excluded.version,
             manifest = excluded.manifest, manifest_sha256 = excluded.manifest_sha256, state = excluded.state,
             refusal = excluded.refusal, expires_at = excluded.expires_at, seen_at = excluded.seen_at",
    )
    .bind(&file.file)
    .bind(&file.sha256)
    .bind(i64::try_from(file.bytes).unwrap_or(i64::MAX))
    .bind(&file.mark)
    .bind(kind_name(file.kind()))
    .bind(product)
    .bind(version)
    .bind(manifest)
    .bind(&file.manifest_sha256)
    .bind(file.state.as_str())
    .bind(&file.refusal)
    .bind(file.expires_at.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Every file ever seen, by name.
pub(crate) async fn list(conn: &mut Conn) -> Result<Vec<ReleaseFile>, sqlx::Error> {
    sqlx::query("SELECT * FROM release_files ORDER BY file").fetch_all(conn).await?.iter().map(from_row).collect()
}

/// One file.
pub(crate) async fn get(conn: &mut Conn, file: &str) -> Result<Option<ReleaseFile>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM release_files WHERE file = $1").bind(file).fetch_optional(conn).await?;
    row.as_ref().map(from_row).transpose()
}

fn from_row(row: &AnyRow) -> Result<ReleaseFile, sqlx::Error> {
    let (state, manifest): (String, String) = (row.try_get("state")?, row.try_get("manifest")?);
    Ok(ReleaseFile {
        file: row.try_get("file")?,
        sha256: row.try_get("sha256")?,
        bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or_default(),
        mark: row.try_get("mark")?,
        manifest: serde_json::from_str(&manifest).ok(),
        manifest_sha256: row.try_get("manifest_sha256")?,
        state: FileState::from_name(&state),
        refusal: row.try_get("refusal")?,
        expires_at: UnixMs(row.try_get("expires_at")?),
    })
}

/// The newest that was signed for a role.
pub(crate) async fn newest_signed(conn: &mut Conn, role: Role) -> Result<Option<Signed>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM online_metadata WHERE role = $1 ORDER BY version DESC LIMIT 1")
        .bind(role.as_str())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| signed_from_row(role, row)).transpose()
}

/// One version of a role.
pub(crate) async fn signed(conn: &mut Conn, role: Role, version: i64) -> Result<Option<Signed>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM online_metadata WHERE role = $1 AND version = $2")
        .bind(role.as_str())
        .bind(version)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(|row| signed_from_row(role, row)).transpose()
}

fn signed_from_row(role: Role, row: &AnyRow) -> Result<Signed, sqlx::Error> {
    Ok(Signed {
        role: role.as_str(),
        version: row.try_get("version")?,
        body: row.try_get("body")?,
        names: row.try_get("names")?,
        signed_at: UnixMs(row.try_get("signed_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
    })
}

/// Keeps what was signed.
pub(crate) async fn add_signed(tx: &mut Conn, signed: &Signed) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO online_metadata (role, version, body, names, signed_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(signed.role)
        .bind(signed.version)
        .bind(&signed.body)
        .bind(&signed.names)
        .bind(signed.signed_at.0)
        .bind(signed.expires_at.0)
        .execute(tx)
        .await
        .map(drop)
}

/// A counter's next value, above `floor` in any case: versions never go back, whoever signed before.
///
/// # Errors
/// If there is none above it, or the database refuses.
pub(crate) async fn next_version(tx: &mut Conn, counter: &str, floor: i64) -> anyhow::Result<i64> {
    let least = floor.checked_add(1).with_context(|| format!("{counter}: there is no version above {floor}"))?;
    let version = sqlx::query_scalar(
        "INSERT INTO counters (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = CASE WHEN counters.value >= excluded.value THEN counters.value + 1
             ELSE excluded.value END RETURNING value",
    )
    .bind(counter)
    .bind(least)
    .fetch_one(tx)
    .await;
    version.with_context(|| format!("{counter}: no next version"))
}

/// What was signed offline, and until when: `(role, version, expires_at)`, the soonest first.
pub(crate) async fn expiries(conn: &mut Conn) -> Result<Vec<(String, i64, UnixMs)>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM signing_expiry ORDER BY expires_at, role").fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("role")?, row.try_get("version")?, UnixMs(row.try_get("expires_at")?)))).collect()
}

/// The version of the newest root that was believed; `None`: none was read yet.
pub(crate) async fn root_version(conn: &mut Conn) -> Result<Option<u64>, sqlx::Error> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT version FROM signing_expiry WHERE role = 'root'").fetch_optional(conn).await?;
    Ok(version.map(|version| u64::try_from(version).unwrap_or_default()))
}

/// Notes until when a role's newest version lasts.
pub(crate) async fn put_expiry(tx: &mut Conn, role: &str, version: i64, expires_at: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO signing_expiry (role, version, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (role) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at",
    )
    .bind(role)
    .bind(version)
    .bind(expires_at.0)
    .execute(tx)
    .await
    .map(drop)
}

/// Who holds a lease, and until when.
pub(crate) async fn lease(conn: &mut Conn, name: &str) -> Result<Option<(String, UnixMs)>, sqlx::Error> {
    let row = sqlx::query("SELECT holder, until_at FROM leases WHERE name = $1").bind(name).fetch_optional(conn).await?;
    row.map(|row| Ok((row.try_get("holder")?, UnixMs(row.try_get("until_at")?)))).transpose()
}

/// Takes a lease that is free, over, or one's own; whether it is one's own now.
pub(crate) async fn take_lease(
    tx: &mut Conn,
    name: &str,
    holder: &str,
    (now, until): (UnixMs, UnixMs),
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO leases (name, holder, until_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE
         SET holder = excluded.holder, until_at = excluded.until_at WHERE leases.until_at <= $4 OR leases.holder = excluded.holder",
    )
    .bind(name)
    .bind(holder)
    .bind(until.0)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The manifests that good withdrawals name.
pub(crate) fn withdrawn_manifests(files: &[ReleaseFile]) -> BTreeSet<String> {
    let good = files.iter().filter(|file| file.state == FileState::Good).filter_map(|file| file.manifest.as_ref());
    good.filter_map(|manifest| match &manifest.body {
        mainstay_patchkit::manifest::Body::Withdrawal(withdrawal) => Some(withdrawal.manifests.iter().cloned()),
        _ => None,
    })
    .flatten()
    .collect()
}
