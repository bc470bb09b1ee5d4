//! Notices as the console and the API show them: read-only. A body is shown to staff only, never to other customers (R23).

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use crate::db::Conn;

/// A notice in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct NoticeLine {
    pub(crate) notice_id: String,
    pub(crate) kind: String,
    pub(crate) channel: String,
    pub(crate) recipient: String,
    pub(crate) title: String,
    /// `waiting`, `sent` (the receiver's server took it) or `refused`.
    pub(crate) state: String,
    pub(crate) tries: i64,
    pub(crate) last_error: String,
    #[schema(value_type = i64)]
    pub(crate) created_at: UnixMs,
    #[schema(value_type = Option<i64>)]
    pub(crate) sent_at: Option<UnixMs>,
}

/// The notices about a subject (a ticket's id), oldest first.
pub(crate) async fn of_subject(conn: &mut Conn, tenant_id: &str, subject_id: &str) -> Result<Vec<NoticeLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT notice_id, kind, channel, recipient, title, state, tries, last_error, created_at, sent_at FROM outbox
         WHERE tenant_id = $1 AND subject_id = $2 ORDER BY created_at, notice_id LIMIT 500",
    )
    .bind(tenant_id)
    .bind(subject_id)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(NoticeLine {
                notice_id: row.try_get("notice_id")?,
                kind: row.try_get("kind")?,
                channel: row.try_get("channel")?,
                recipient: row.try_get("recipient")?,
                title: row.try_get("title")?,
                state: row.try_get("state")?,
                tries: row.try_get("tries")?,
                last_error: row.try_get("last_error")?,
                created_at: UnixMs(row.try_get("created_at")?),
                sent_at: row.try_get::<Option<i64>, _>("sent_at")?.map(UnixMs),
            })
        })
        .collect()
}
