//! What goes when it is old: sessions, join tokens, directives, samples. Events, tickets and episodes stay.
//!
//! Called once a day by the story of time; each limit is documented in docs/collector.md.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use crate::db::Conn;

const DAY_MS: i64 = 86_400_000;
/// Five-minute samples are kept so long.
const SAMPLES_MS: i64 = 90 * DAY_MS;
/// A join token is shown as used up or expired for so long.
const JOIN_TOKENS_MS: i64 = 7 * DAY_MS;
/// What was asked of an appliance stays in the chain of events; the row itself is needed no longer.
const DIRECTIVES_MS: i64 = 7 * DAY_MS;
/// A link in a mail says that it is over for so long; then it is unknown.
const OFFER_LINKS_MS: i64 = 30 * DAY_MS;
/// Signed by the online keys and long expired.
const ONLINE_METADATA_MS: i64 = 30 * DAY_MS;

/// Removes what is too old; answers how many rows went.
pub(crate) async fn prune(tx: &mut Conn, now: UnixMs) -> Result<u64, sqlx::Error> {
    let rules = [
        ("DELETE FROM sessions WHERE expires_at < $1", 0),
        ("DELETE FROM join_tokens WHERE expires_at < $1", JOIN_TOKENS_MS),
        ("DELETE FROM directives WHERE expires_at < $1", DIRECTIVES_MS),
        ("DELETE FROM offer_links WHERE expires_at < $1", OFFER_LINKS_MS),
        ("DELETE FROM online_metadata WHERE expires_at < $1", ONLINE_METADATA_MS),
    ];
    let mut gone = 0;
    for (sql, kept_ms) in rules {
        gone += sqlx::query(sql).bind(now.plus_ms(-kept_ms).0).execute(&mut *tx).await?.rows_affected();
    }
    Ok(gone)
}

/// The appliances that may have samples.
pub(crate) async fn sampled(conn: &mut Conn) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query("SELECT tenant_id, appliance_id FROM appliances").fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("tenant_id")?, row.try_get("appliance_id")?))).collect()
}

/// Removes an appliance's samples that are too old; answers how many rows went. A record of samples spans a day at most.
pub(crate) async fn prune_samples(tx: &mut Conn, tenant_id: &str, appliance_id: &str, now: UnixMs) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM samples WHERE tenant_id = $1 AND appliance_id = $2 AND from_at < $3 AND to_at < $3")
        .bind(tenant_id)
        .bind(appliance_id)
        .bind(now.plus_ms(-SAMPLES_MS).0)
        .execute(tx)
        .await?;
    Ok(done.rows_affected())
}

/// Whether somebody took the duty of this day's work: asked each second, without the writer.
pub(crate) async fn day_is_done(conn: &mut Conn, now: UnixMs) -> Result<bool, sqlx::Error> {
    let done: Option<i64> =
        sqlx::query_scalar("SELECT value FROM counters WHERE name = 'daily_work'").fetch_optional(conn).await?;
    Ok(done.is_some_and(|day| day >= now.0 / DAY_MS))
}

/// Takes the duty of a day's work: true for one caller a day.
pub(crate) async fn claim_day(tx: &mut Conn, now: UnixMs) -> Result<bool, sqlx::Error> {
    let taken: Option<i64> = sqlx::query_scalar(
        "INSERT INTO counters (name, value) VALUES ('daily_work', $1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE counters.value < excluded.value RETURNING value",
    )
    .bind(now.0 / DAY_MS)
    .fetch_optional(tx)
    .await?;
    Ok(taken.is_some())
}
