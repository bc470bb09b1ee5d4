//! Bearer tokens of the API, as rows: hashed, expiring, with a role whose rights are a subset of the maker's, optionally bound to
//! one customer (R9). A token is shown once, when it is made, and can never be read again.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::customers::Role;
use crate::db::Conn;

/// What a token's text begins with, so that a scanner of leaked secrets can know it.
pub(crate) const PREFIX: &str = "mst_";

/// A token with its maker's standing now. The secret itself is nowhere.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Token {
    pub(crate) token_id: String,
    pub(crate) name: String,
    pub(crate) staff_id: String,
    pub(crate) role: Role,
    pub(crate) tenant_id: Option<String>,
    pub(crate) created_at: UnixMs,
    pub(crate) expires_at: UnixMs,
    pub(crate) revoked_at: Option<UnixMs>,
    #[serde(skip)]
    pub(crate) maker_role: Role,
    #[serde(skip)]
    pub(crate) maker_name: String,
    #[serde(skip)]
    pub(crate) maker_disabled_at: Option<UnixMs>,
}

const TOKEN: &str = "SELECT token_id, api_tokens.name AS token_name, api_tokens.staff_id, api_tokens.role AS token_role, tenant_id, \
                     api_tokens.created_at, expires_at, revoked_at, staff.role AS maker_role, staff.name AS maker_name, disabled_at \
                     FROM api_tokens JOIN staff ON staff.staff_id = api_tokens.staff_id";

fn token(row: &AnyRow) -> Result<Token, sqlx::Error> {
    let role = |column: &str| -> Result<Role, sqlx::Error> {
        Role::from_name(&row.try_get::<String, _>(column)?)
            .ok_or_else(|| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "no role of this version".into() })
    };
    Ok(Token {
        token_id: row.try_get("token_id")?,
        name: row.try_get("token_name")?,
        staff_id: row.try_get("staff_id")?,
        role: role("token_role")?,
        tenant_id: row.try_get("tenant_id")?,
        created_at: UnixMs(row.try_get("created_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(UnixMs),
        maker_role: role("maker_role")?,
        maker_name: row.try_get("maker_name")?,
        maker_disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(UnixMs),
    })
}

/// Writes a token.
pub(crate) async fn insert(tx: &mut Conn, token: &Token, token_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_tokens (token_id, token_hash, name, staff_id, role, tenant_id, created_at, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL)",
    )
    .bind(&token.token_id)
    .bind(token_hash)
    .bind(&token.name)
    .bind(&token.staff_id)
    .bind(token.role.as_str())
    .bind(&token.tenant_id)
    .bind(token.created_at.0)
    .bind(token.expires_at.0)
    .execute(tx)
    .await
    .map(drop)
}

/// The token of that hash.
pub(crate) async fn by_hash(conn: &mut Conn, token_hash: &str) -> Result<Option<Token>, sqlx::Error> {
    let sql = format!("{TOKEN} WHERE token_hash = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(token_hash).fetch_optional(conn).await?;
    row.as_ref().map(token).transpose()
}

/// A member of staff's tokens, newest first.
pub(crate) async fn of_staff(conn: &mut Conn, staff_id: &str) -> Result<Vec<Token>, sqlx::Error> {
    let sql = format!("{TOKEN} WHERE api_tokens.staff_id = $1 ORDER BY api_tokens.created_at DESC, token_id LIMIT 200");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(staff_id).fetch_all(conn).await?;
    rows.iter().map(token).collect()
}

/// Revokes one of a member of staff's own tokens. `false`: there is no such token left to revoke.
pub(crate) async fn revoke(tx: &mut Conn, staff_id: &str, token_id: &str, now: UnixMs) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE api_tokens SET revoked_at = $3 WHERE staff_id = $1 AND token_id = $2 AND revoked_at IS NULL")
        .bind(staff_id)
        .bind(token_id)
        .bind(now.0)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
