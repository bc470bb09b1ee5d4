//! Join tokens: made by an operator for a customer, a site and a product (R25). The secret leaves once, in the join string; the
//! row keeps its hash.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;

use super::join::JoinToken;
use crate::audit;
use crate::db::Conn;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TokenEvent<'a> {
    JoinTokenCreated { token_id: &'a str, site_id: &'a str, product: &'a str, duty: &'a str, uses: i64, expires_at: UnixMs },
}

/// Adds a token and records who made it.
pub(crate) async fn add(tx: &mut Conn, token: &JoinToken, actor: &str) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO join_tokens (token_id, tenant_id, site_id, product, duty, secret_hash, uses_left, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&token.token_id)
    .bind(&token.tenant_id)
    .bind(&token.site_id)
    .bind(&token.product)
    .bind(&token.duty)
    .bind(&token.secret_hash)
    .bind(token.uses_left)
    .bind(token.created_at.0)
    .bind(token.expires_at.0)
    .execute(&mut *tx)
    .await?;
    let made = TokenEvent::JoinTokenCreated {
        token_id: &token.token_id,
        site_id: &token.site_id,
        product: &token.product,
        duty: &token.duty,
        uses: token.uses_left,
        expires_at: token.expires_at,
    };
    audit::append(tx, &token.tenant_id, token.created_at, actor, &format!("join_token:{}", token.token_id), &made).await.map(drop)
}

/// The token of that public name. It names its tenant itself: whoever joins does not know it.
pub(crate) async fn get(conn: &mut Conn, token_id: &str) -> Result<Option<JoinToken>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM join_tokens WHERE token_id = $1").bind(token_id).fetch_optional(conn).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(JoinToken {
        token_id: row.try_get("token_id")?,
        tenant_id: row.try_get("tenant_id")?,
        site_id: row.try_get("site_id")?,
        product: row.try_get("product")?,
        duty: row.try_get("duty")?,
        secret_hash: row.try_get("secret_hash")?,
        uses_left: row.try_get("uses_left")?,
        created_at: UnixMs(row.try_get("created_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
    }))
}

/// Spends one use, in one statement, so that a race spends no more than there are. `false`: none was left.
pub(crate) async fn spend(tx: &mut Conn, token_id: &str, now: UnixMs) -> Result<bool, sqlx::Error> {
    let spent =
        sqlx::query("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE token_id = $1 AND uses_left > 0 AND expires_at > $2")
            .bind(token_id)
            .bind(now.0)
            .execute(tx)
            .await?;
    Ok(spent.rows_affected() == 1)
}
