//! The outbox: notices wait here from the transaction of what they tell until a receiver's server has acknowledged them (R32).
//!
//! Due rows are claimed in one statement; a claim is a lease, so that two nodes never send one at once and a node that dies
//! leaves its rows to the next. A mail sent again carries the same Message-ID. Nothing here sends.

use std::time::Duration;

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Recipient;
use super::rules::{self, Retry};
use super::texts::Text;
use crate::audit;
use crate::config::Config;
use crate::db::{Conn, mark_change};
use crate::tickets::{self, TicketEvent};

/// How long a claimed row belongs to its claimer: longer than a mail may take ([`super::mail::TIME_LIMIT`]).
pub(crate) const LEASE: Duration = Duration::from_secs(180);

/// The subject of notices that are about no ticket, in the record of events.
const NO_TICKET: &str = "notices";

/// A notice to be written.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) tenant_id: &'a str,
    /// A ticket's id, or `digest`, `heads`.
    pub(crate) subject_id: &'a str,
    /// What tells this notice from others of the subject: an event's number, a day.
    pub(crate) about: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) recipient: &'a Recipient,
}

/// A notice as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Notice {
    pub(crate) tenant_id: String,
    pub(crate) notice_id: String,
    pub(crate) subject_id: String,
    pub(crate) kind: String,
    pub(crate) recipient: String,
    pub(crate) message_id: String,
    pub(crate) title: String,
    #[serde(skip)]
    pub(crate) body: String,
    pub(crate) in_reply_to: String,
    /// `waiting`, `sent`, `refused`.
    pub(crate) state: String,
    pub(crate) tries: i64,
    pub(crate) last_error: String,
    pub(crate) created_at: UnixMs,
    pub(crate) next_try_at: Option<UnixMs>,
    pub(crate) sent_at: Option<UnixMs>,
}

/// What the mail server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took the mail.
    Acknowledged,
    /// Not now: it was away, slow, busy, or our own access was refused.
    NotNow(String),
    /// Never: it refuses this mail for good.
    Refused(String),
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Sent,
    Waits {
        until: UnixMs,
    },
    Refused,
    /// Somebody else settled it meanwhile.
    ByAnother,
}

/// Writes a notice unless it is there already.
pub(crate) async fn enqueue(tx: &mut Conn, config: &Config, now: UnixMs, new: &New<'_>, text: &Text) -> Result<(), sqlx::Error> {
    let notice_id = notice_id(new);
    let first: Option<String> = sqlx::query_scalar(
        "SELECT message_id FROM outbox WHERE tenant_id = $1 AND subject_id = $2 AND recipient = $3 ORDER BY created_at, notice_id LIMIT 1",
    )
    .bind(new.tenant_id)
    .bind(new.subject_id)
    .bind(&new.recipient.email)
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO outbox (tenant_id, notice_id, subject_id, kind, channel, recipient, message_id, title, body, in_reply_to, state,
         tries, last_error, created_at, next_try_at, sent_at)
         VALUES ($1, $2, $3, $4, 'mail', $5, $6, $7, $8, $9, 'waiting', 0, '', $10, $10, $11) ON CONFLICT DO NOTHING",
    )
    .bind(new.tenant_id)
    .bind(&notice_id)
    .bind(new.subject_id)
    .bind(new.kind)
    .bind(&new.recipient.email)
    .bind(format!("<{notice_id}@{}>", host(config)))
    .bind(&text.title)
    .bind(&text.body)
    .bind(first.unwrap_or_default())
    .bind(now.0)
    .bind(None::<i64>)
    .execute(tx)
    .await
    .map(drop)
}

/// The same notice has the same id, whoever writes it and how often.
fn notice_id(new: &New<'_>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for field in [new.tenant_id, new.subject_id, new.about, new.kind, &new.recipient.email.to_lowercase()] {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..16])
}

/// The right side of Message-IDs: the sender's mail domain, or the console's host while no mail is set up.
fn host(config: &Config) -> String {
    let from = config.mail.as_ref().and_then(|mail| mail.from.parse::<lettre::message::Mailbox>().ok());
    match from {
        Some(from) => from.email.domain().to_owned(),
        None => reqwest::Url::parse(&config.web_public_url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_else(|| "localhost".to_owned()),
    }
}

/// Claims up to `limit` due notices for [`LEASE`].
pub(crate) async fn claim(tx: &mut Conn, now: UnixMs, limit: i64) -> Result<Vec<Notice>, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE outbox SET next_try_at = $2, tries = tries + 1 WHERE state = 'waiting' AND next_try_at <= $1 AND (tenant_id, notice_id)
         IN (SELECT tenant_id, notice_id FROM outbox WHERE state = 'waiting' AND next_try_at <= $1 ORDER BY next_try_at LIMIT $3)
         RETURNING *",
    )
    .bind(now.0)
    .bind(now.plus(LEASE).0)
    .bind(limit)
    .fetch_all(tx)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Leases a claimed notice for longer, unless it was claimed by another since. Answers until when.
pub(crate) async fn renew(tx: &mut Conn, now: UnixMs, held: &Notice) -> Result<Option<UnixMs>, sqlx::Error> {
    let until = now.plus(LEASE);
    let done = sqlx::query(
        "UPDATE outbox SET next_try_at = $3 WHERE tenant_id = $1 AND notice_id = $2 AND state = 'waiting' AND next_try_at = $4",
    )
    .bind(&held.tenant_id)
    .bind(&held.notice_id)
    .bind(until.0)
    .bind(held.next_try_at.map_or(0, |at| at.0))
    .execute(tx)
    .await?;
    Ok((done.rows_affected() == 1).then_some(until))
}

/// Stores what the mail server said of a claimed notice, and records it with its ticket.
pub(crate) async fn settle(tx: &mut Conn, now: UnixMs, claimed: &Notice, outcome: &Outcome) -> anyhow::Result<Settled> {
    let (kind, recipient) = (claimed.kind.clone(), claimed.recipient.clone());
    let (settled, event) = match outcome {
        Outcome::Acknowledged => (Settled::Sent, Some(TicketEvent::NoticeSent { kind, recipient })),
        Outcome::Refused(error) => (Settled::Refused, Some(TicketEvent::NoticeRefused { kind, recipient, error: error.clone() })),
        Outcome::NotNow(error) => match rules::retry(claimed.created_at, claimed.tries, now) {
            Retry::At(until) => (Settled::Waits { until }, None),
            Retry::GivenUp => {
                let error = format!("given up after {} tries: {error}", claimed.tries);
                (Settled::Refused, Some(TicketEvent::NoticeRefused { kind, recipient, error }))
            }
        },
    };
    if !store(tx, now, claimed, outcome, &settled).await? {
        return Ok(Settled::ByAnother);
    }
    if let Some(event) = event {
        let is_ticket = claimed.subject_id.starts_with("T-");
        let subject = if is_ticket { tickets::subject(&claimed.subject_id) } else { NO_TICKET.to_owned() };
        audit::append(tx, &claimed.tenant_id, now, audit::SYSTEM, &subject, &event).await?;
        mark_change(tx).await?;
    }
    Ok(settled)
}

/// Whether the row was still there to be settled. A link's token is kept nowhere once its mail is sent (R33). What was acknowledged is sent, whoever holds the lease by now.
async fn store(tx: &mut Conn, now: UnixMs, claimed: &Notice, outcome: &Outcome, settled: &Settled) -> Result<bool, sqlx::Error> {
    let (state, next_try_at, sent_at) = match settled {
        Settled::Sent => ("sent", None, Some(now.0)),
        Settled::Waits { until } => ("waiting", Some(until.0), None),
        Settled::Refused | Settled::ByAnother => ("refused", None, None),
    };
    let error = match outcome {
        Outcome::Acknowledged => "",
        Outcome::NotNow(error) | Outcome::Refused(error) => error,
    };
    let done = sqlx::query(
        "UPDATE outbox SET state = $3, next_try_at = $4, sent_at = $5, last_error = $6,
         body = CASE WHEN $3 = 'sent' AND kind = 'patch_link' THEN '' ELSE body END
         WHERE tenant_id = $1 AND notice_id = $2 AND state = 'waiting' AND ($3 = 'sent' OR next_try_at = $7)",
    )
    .bind(&claimed.tenant_id)
    .bind(&claimed.notice_id)
    .bind(state)
    .bind(next_try_at)
    .bind(sent_at)
    .bind(error)
    .bind(claimed.next_try_at.map_or(0, |at| at.0))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notices, newest first: of one customer or all, in one state or all (empty).
pub(crate) async fn list(conn: &mut Conn, tenant_id: &str, state: &str, limit: i64) -> Result<Vec<Notice>, sqlx::Error> {
    // What is not sent is few: it has an index of its own, which needs its condition in the text.
    let unsent = if matches!(state, "waiting" | "refused") { "AND state <> 'sent'" } else { "" };
    let sql = format!(
        "SELECT * FROM outbox WHERE ($1 = '' OR tenant_id = $1) AND ($2 = '' OR state = $2) {unsent}
         ORDER BY created_at DESC, notice_id LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(tenant_id).bind(state).bind(limit).fetch_all(conn).await?;
    rows.iter().map(from_row).collect()
}

/// The notices about one ticket, oldest first.
pub(crate) async fn of_ticket(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Vec<Notice>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM outbox WHERE tenant_id = $1 AND subject_id = $2 ORDER BY created_at, notice_id")
        .bind(tenant_id)
        .bind(ticket_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(from_row).collect()
}

/// Makes unsent notices due now, refused ones too; `notice_id` empty: all. Answers how many.
pub(crate) async fn try_again(tx: &mut Conn, notice_id: &str, now: UnixMs) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE outbox SET state = 'waiting', tries = 0, next_try_at = $2 WHERE state <> 'sent' AND ($1 = '' OR notice_id = $1)",
    )
    .bind(notice_id)
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

fn from_row(row: &AnyRow) -> Result<Notice, sqlx::Error> {
    Ok(Notice {
        tenant_id: row.try_get("tenant_id")?,
        notice_id: row.try_get("notice_id")?,
        subject_id: row.try_get("subject_id")?,
        kind: row.try_get("kind")?,
        recipient: row.try_get("recipient")?,
        message_id: row.try_get("message_id")?,
        title: row.try_get("title")?,
        body: row.try_get("body")?,
        in_reply_to: row.try_get("in_reply_to")?,
        state: row.try_get("state")?,
        tries: row.try_get("tries")?,
        last_error: row.try_get("last_error")?,
        created_at: UnixMs(row.try_get("created_at")?),
        next_try_at: row.try_get::<Option<i64>, _>("next_try_at")?.map(UnixMs),
        sent_at: row.try_get::<Option<i64>, _>("sent_at")?.map(UnixMs),
    })
}
