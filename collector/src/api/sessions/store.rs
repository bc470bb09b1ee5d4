//! Sessions and the sign-in columns of staff accounts, as rows. Functions take a connection, so the caller decides what commits
//! together. No secret is ever stored in clear: cookies as SHA-256, passwords as argon2id.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Session, Stage};
use crate::customers::{Language, Role};
use crate::db::Conn;

/// The sign-in side of a staff account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) staff_id: String,
    pub(crate) password_hash: String,
    /// Base32.
    pub(crate) totp_secret: String,
    pub(crate) totp_last_step: i64,
    pub(crate) failed_count: i64,
    pub(crate) locked_until_at: Option<UnixMs>,
    pub(crate) disabled_at: Option<UnixMs>,
}

fn bad_row(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "a name that this version does not know".into() }
}

fn account(row: &AnyRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        staff_id: row.try_get("staff_id")?,
        password_hash: row.try_get("password_hash")?,
        totp_secret: row.try_get("totp_secret")?,
        totp_last_step: row.try_get("totp_last_step")?,
        failed_count: row.try_get("failed_count")?,
        locked_until_at: row.try_get::<Option<i64>, _>("locked_until_at")?.map(UnixMs),
        disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(UnixMs),
    })
}

/// The account of that user name.
pub(crate) async fn account_by_username(conn: &mut Conn, username: &str) -> Result<Option<Account>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM staff WHERE username = $1").bind(username).fetch_optional(conn).await?;
    row.as_ref().map(account).transpose()
}

/// The account of that id.
pub(crate) async fn account_by_id(conn: &mut Conn, staff_id: &str) -> Result<Option<Account>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM staff WHERE staff_id = $1").bind(staff_id).fetch_optional(conn).await?;
    row.as_ref().map(account).transpose()
}

/// Counts one more wrong guess and answers how many there are now.
pub(crate) async fn count_failure(tx: &mut Conn, staff_id: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("UPDATE staff SET failed_count = failed_count + 1 WHERE staff_id = $1 RETURNING failed_count")
        .bind(staff_id)
        .fetch_one(tx)
        .await
}

/// Lets an account rest.
pub(crate) async fn lock_until(tx: &mut Conn, staff_id: &str, until: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE staff SET locked_until_at = $2 WHERE staff_id = $1")
        .bind(staff_id)
        .bind(until.0)
        .execute(tx)
        .await
        .map(drop)
}

/// Uses up a code's time step and forgets the wrong guesses. `false`: somebody used that step first.
pub(crate) async fn use_step(tx: &mut Conn, staff_id: &str, step: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE staff SET totp_last_step = $2, failed_count = 0, locked_until_at = NULL WHERE staff_id = $1 AND totp_last_step < $2",
    )
    .bind(staff_id)
    .bind(step)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The language that an account reads.
pub(crate) async fn set_language(tx: &mut Conn, staff_id: &str, language: Language) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE staff SET language = $2 WHERE staff_id = $1")
        .bind(staff_id)
        .bind(language.as_str())
        .execute(tx)
        .await
        .map(drop)
}

/// A new session's row.
#[derive(Debug, Clone)]
pub(crate) struct NewSession<'a> {
    pub(crate) session_hash: &'a str,
    pub(crate) staff_id: &'a str,
    pub(crate) stage: Stage,
    pub(crate) csrf_token: &'a str,
    pub(crate) now: UnixMs,
    pub(crate) expires_at: UnixMs,
}

/// Writes a session.
pub(crate) async fn insert(tx: &mut Conn, new: NewSession<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (session_hash, staff_id, stage, csrf_token, created_at, last_seen_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $5, $6)",
    )
    .bind(new.session_hash)
    .bind(new.staff_id)
    .bind(new.stage.as_str())
    .bind(new.csrf_token)
    .bind(new.now.0)
    .bind(new.expires_at.0)
    .execute(tx)
    .await
    .map(drop)
}

const SESSION: &str = "SELECT sessions.session_hash, sessions.staff_id, stage, csrf_token, sessions.created_at, last_seen_at, \
                       expires_at, username, name, role, language, disabled_at \
                       FROM sessions JOIN staff ON staff.staff_id = sessions.staff_id";

fn session(row: &AnyRow) -> Result<Session, sqlx::Error> {
    let stage: String = row.try_get("stage")?;
    Ok(Session {
        session_hash: row.try_get("session_hash")?,
        staff_id: row.try_get("staff_id")?,
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        role: Role::from_name(&row.try_get::<String, _>("role")?).ok_or_else(|| bad_row("role"))?,
        language: Language::from_code(&row.try_get::<String, _>("language")?).ok_or_else(|| bad_row("language"))?,
        stage: if stage == Stage::Full.as_str() { Stage::Full } else { Stage::Password },
        csrf_token: row.try_get("csrf_token")?,
        created_at: UnixMs(row.try_get("created_at")?),
        last_seen_at: UnixMs(row.try_get("last_seen_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
        disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(UnixMs),
    })
}

/// The session of that hash, with the account behind it.
pub(crate) async fn load(conn: &mut Conn, session_hash: &str) -> Result<Option<Session>, sqlx::Error> {
    let sql = format!("{SESSION} WHERE sessions.session_hash = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(session_hash).fetch_optional(conn).await?;
    row.as_ref().map(session).transpose()
}

/// A member of staff's complete sessions, newest first.
pub(crate) async fn of_staff(conn: &mut Conn, staff_id: &str) -> Result<Vec<Session>, sqlx::Error> {
    let sql = format!("{SESSION} WHERE sessions.staff_id = $1 AND stage = 'full' ORDER BY sessions.created_at DESC LIMIT 50");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(staff_id).fetch_all(conn).await?;
    rows.iter().map(session).collect()
}

/// Marks a session as used.
pub(crate) async fn touch(tx: &mut Conn, session_hash: &str, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sessions SET last_seen_at = $2 WHERE session_hash = $1")
        .bind(session_hash)
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
}

/// Ends one session.
pub(crate) async fn delete(tx: &mut Conn, session_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE session_hash = $1").bind(session_hash).execute(tx).await.map(drop)
}

/// Ends all of a member of staff's sessions but one; answers how many.
pub(crate) async fn delete_others(tx: &mut Conn, staff_id: &str, kept_hash: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM sessions WHERE staff_id = $1 AND session_hash <> $2")
        .bind(staff_id)
        .bind(kept_hash)
        .execute(tx)
        .await?;
    Ok(done.rows_affected())
}
