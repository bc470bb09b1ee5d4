//! Links in mails: who holds the token is known by it, and is allowed nothing but to ask the box (DESIGN, E-mail link).
//!
//! The token is 256 random bits; only its hash is kept. It is bound to a customer, a batch of offers and the file's hash, and expires.

use mainstay_shared::time_source::UnixMs;
use ring::rand::SecureRandom;
use sqlx::Row as _;

use crate::customers::Language;
use crate::db::Conn;

/// Downloads by one link.
pub(crate) const MOST_DOWNLOADS: i64 = 50;
/// Codes that may be typed at one link in all its life; the box allows five an offer.
pub(crate) const MOST_CODES: i64 = 20;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) token_hash: String,
    pub(crate) tenant_id: String,
    pub(crate) batch_id: String,
    pub(crate) sha256: String,
    /// The mail address that it was sent to.
    pub(crate) recipient: String,
    pub(crate) language: Language,
    pub(crate) created_at: UnixMs,
    pub(crate) expires_at: UnixMs,
    pub(crate) downloads: i64,
    pub(crate) codes_typed: i64,
}

/// A new token: 64 hex digits.
///
/// # Errors
/// If the system's generator fails.
pub(crate) fn new_token(rng: &dyn SecureRandom) -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    rng.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system's random generator failed"))?;
    Ok(hex::encode(bytes))
}

/// A token's hash, as it is kept.
pub(crate) fn hash_of(token: &str) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref())
}

/// Writes a link.
pub(crate) async fn add(tx: &mut Conn, link: &Link) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO offer_links (token_hash, tenant_id, batch_id, sha256, recipient, language, created_at, expires_at, downloads,
             codes_typed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&link.token_hash)
    .bind(&link.tenant_id)
    .bind(&link.batch_id)
    .bind(&link.sha256)
    .bind(&link.recipient)
    .bind(link.language.as_str())
    .bind(link.created_at.0)
    .bind(link.expires_at.0)
    .bind(link.downloads)
    .bind(link.codes_typed)
    .execute(tx)
    .await
    .map(drop)
}

/// The link of a token, while it lasts.
pub(crate) async fn by_token(conn: &mut Conn, token: &str, now: UnixMs) -> Result<Option<Link>, sqlx::Error> {
    let hash = hash_of(token);
    let row = sqlx::query("SELECT * FROM offer_links WHERE token_hash = $1 AND expires_at > $2")
        .bind(&hash)
        .bind(now.0)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let language: String = row.try_get("language")?;
    Ok(Some(Link {
        token_hash: hash,
        tenant_id: row.try_get("tenant_id")?,
        batch_id: row.try_get("batch_id")?,
        sha256: row.try_get("sha256")?,
        recipient: row.try_get("recipient")?,
        language: Language::from_code(&language).unwrap_or(Language::Zh),
        created_at: UnixMs(row.try_get("created_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
        downloads: row.try_get("downloads")?,
        codes_typed: row.try_get("codes_typed")?,
    }))
}

/// Binds the links of a batch to the hash that its file has now: the same content, signed anew.
pub(crate) async fn follow(tx: &mut Conn, (tenant_id, batch_id): (&str, &str), sha256: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE offer_links SET sha256 = $3 WHERE tenant_id = $1 AND batch_id = $2")
        .bind(tenant_id)
        .bind(batch_id)
        .bind(sha256)
        .execute(tx)
        .await
        .map(drop)
}

/// Counts a download; `false`: there were enough.
pub(crate) async fn count_download(tx: &mut Conn, token_hash: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE offer_links SET downloads = downloads + 1 WHERE token_hash = $1 AND downloads < $2")
        .bind(token_hash)
        .bind(MOST_DOWNLOADS)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts a code that was typed; `false`: there were enough.
pub(crate) async fn count_code(tx: &mut Conn, token_hash: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE offer_links SET codes_typed = codes_typed + 1 WHERE token_hash = $1 AND codes_typed < $2")
        .bind(token_hash)
        .bind(MOST_CODES)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
