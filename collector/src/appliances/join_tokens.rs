//! Join tokens: made by an operator, spent at enrolment. Only the secret's SHA-256 is stored.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

use crate::audit;
use crate::db::Conn;

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub(crate) token_id: String,
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    pub(crate) product: String,
    pub(crate) duty: String,
    pub(crate) uses: i64,
    pub(crate) expires_at: UnixMs,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TokenEvent<'a> {
    JoinTokenCreated { token_id: &'a str, site_id: &'a str, product: &'a str, duty: &'a str, uses: i64, expires_at: UnixMs },
}

/// What is stored of a secret: hex SHA-256. It has 128 random bits, so a slow hash would add nothing.
pub(crate) fn secret_hash(secret: &str) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()))
}

/// Stores a token and records who made it.
pub(crate) async fn create(tx: &mut Conn, token: &NewToken, secret: &str, now: UnixMs, actor: &str) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO join_tokens (token_id, tenant_id, site_id, product, duty, secret_hash, uses_left, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&token.token_id)
    .bind(&token.tenant_id)
    .bind(&token.site_id)
    .bind(&token.product)
    .bind(&token.duty)
    .bind(secret_hash(secret))
    .bind(token.uses)
    .bind(now.0)
    .bind(token.expires_at.0)
    .execute(&mut *tx)
    .await?;
    let made = TokenEvent::JoinTokenCreated {
        token_id: &token.token_id,
        site_id: &token.site_id,
        product: &token.product,
        duty: &token.duty,
        uses: token.uses,
        expires_at: token.expires_at,
    };
    audit::append(tx, &token.tenant_id, now, actor, &format!("join_token:{}", token.token_id), &made).await.map(drop)
}
