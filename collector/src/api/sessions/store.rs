//! Sessions as rows. Functions take a connection, so the caller decides what commits together. A cookie is stored as its SHA-256
//! only; the account behind a session is joined at every read, so that disabling it counts at once (R14).

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Session, Stage};
use crate::customers::{Language, Role};
use crate::db::Conn;

fn bad_row(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "a name that this version does not know".into() }
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
