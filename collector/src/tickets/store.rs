//! Tickets as rows: a cache of what the event chain says, written in the transaction of the event.
//!
//! Every function takes the caller's connection, so the caller decides what commits together. The tenant stands in every WHERE
//! (R23); only [`list`] and [`find`] may look across customers, for the vendor's staff who serve them all.

use mainstay_shared::severity::{Attribution, BusinessImpact, Severity};
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Ticket, TicketEvent, TicketState, subject};
use crate::audit;
use crate::db::Conn;

/// Which tickets [`list`] shows; everything unset means all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// One customer's; `None` shows every customer's and is for the vendor's staff only.
    pub(crate) tenant_id: Option<String>,
    pub(crate) state: Option<TicketState>,
    /// Open and recovered ones, whatever `state` says.
    pub(crate) not_closed: bool,
    pub(crate) severity: Option<Severity>,
    /// Tickets of this appliance, or that hold an episode of it.
    pub(crate) appliance_id: Option<String>,
}

impl Filter {
    /// The text of its conditions, which ask for what is wanted only: each text has an index (docs/database.md). Bound beside the
    /// text are `$1` the number below which the page lies, `$2` its length, then [`Filter::values`].
    fn conditions(&self) -> String {
        let mut text = "number < $1".to_owned();
        let mut place = 3;
        if self.not_closed {
            text.push_str(" AND state <> 'closed'");
        }
        if let Some(state) = self.state {
            text.push_str(&format!(" AND state = '{}'", state.as_str()));
        }
        if let Some(severity) = self.severity {
            text.push_str(&format!(" AND severity = '{}'", severity.as_str()));
        }
        if self.tenant_id.is_some() {
            text.push_str(&format!(" AND tenant_id = ${place}"));
            place += 1;
        }
        if self.appliance_id.is_some() {
            let its = format!("tenant_id = (SELECT tenant_id FROM appliances WHERE appliance_id = ${place})");
            text.push_str(&format!(
                " AND {its} AND ticket_id IN (SELECT ticket_id FROM tickets WHERE {its} AND appliance_id = ${place}
                   UNION SELECT ticket_id FROM episodes WHERE {its} AND appliance_id = ${place})"
            ));
        }
        text
    }

    fn values(&self) -> impl Iterator<Item = &String> {
        self.tenant_id.iter().chain(&self.appliance_id)
    }
}

/// A page of tickets, newest first. `below` is the cursor: the last number of the page before.
pub(crate) async fn list(conn: &mut Conn, filter: &Filter, below: Option<i64>, limit: i64) -> Result<Vec<Ticket>, sqlx::Error> {
    let sql = format!("SELECT * FROM tickets WHERE {} ORDER BY number DESC LIMIT $2", filter.conditions());
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(below.unwrap_or(i64::MAX)).bind(limit);
    for value in filter.values() {
        query = query.bind(value.clone());
    }
    query.fetch_all(conn).await?.iter().map(from_row).collect()
}

/// What stands first where not all can be shown: (condition, order) of literals, each a part of the index `tickets_live_by_rank` or
/// `tickets_recovered`.
const BY_RANK: [(&str, &str); 5] = [
    ("state = 'open' AND severity = 'critical' AND responded_at IS NULL", "number"),
    ("state = 'open' AND severity = 'critical' AND responded_at IS NOT NULL", "responded_at DESC"),
    ("state = 'open' AND severity = 'general' AND responded_at IS NULL", "number"),
    ("state = 'open' AND severity = 'general' AND responded_at IS NOT NULL", "responded_at DESC"),
    ("state = 'recovered'", "recovered_at DESC"),
];

/// The most urgent tickets that are not closed, at most `limit`: open before recovered, critical before general, unanswered before
/// answered, the oldest of the unanswered first. Of one customer, or of all (`None`, for the vendor's staff).
pub(crate) async fn urgent(conn: &mut Conn, tenant_id: Option<&str>, limit: usize) -> Result<Vec<Ticket>, sqlx::Error> {
    let whose = if tenant_id.is_some() { "AND tenant_id = $2" } else { "" };
    let mut found = Vec::new();
    for (condition, order) in BY_RANK {
        let left = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
        let sql = format!("SELECT * FROM tickets WHERE state <> 'closed' AND {condition} {whose} ORDER BY {order} LIMIT $1");
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(left);
        if let Some(tenant_id) = tenant_id {
            query = query.bind(tenant_id.to_owned());
        }
        for row in &query.fetch_all(&mut *conn).await? {
            found.push(from_row(row)?);
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// One ticket of a customer.
pub(crate) async fn get(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> Result<Option<Ticket>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tickets WHERE tenant_id = $1 AND ticket_id = $2")
        .bind(tenant_id)
        .bind(ticket_id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// The ticket of that id whichever customer's it is; ids (`T-000042`) are unique over all. For the vendor's staff only.
pub(crate) async fn find(conn: &mut Conn, ticket_id: &str) -> Result<Option<Ticket>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tickets WHERE ticket_id = $1").bind(ticket_id).fetch_optional(conn).await?;
    row.as_ref().map(from_row).transpose()
}

/// A customer's tickets that are not closed, or closed at or after `since`, oldest first: what a fault may belong to.
pub(crate) async fn candidates(conn: &mut Conn, tenant_id: &str, since: UnixMs) -> Result<Vec<Ticket>, sqlx::Error> {
    // Two parts, each with its index: an OR would read the customer's whole history.
    let rows = sqlx::query(
        "SELECT * FROM tickets WHERE tenant_id = $1 AND state <> 'closed'
         UNION ALL SELECT * FROM tickets WHERE tenant_id = $1 AND state = 'closed' AND closed_at >= $2 ORDER BY number",
    )
    .bind(tenant_id)
    .bind(since.0)
    .fetch_all(conn)
    .await?;
    rows.iter().map(from_row).collect()
}

/// The ticket of a cause that is not closed: there is one at most.
pub(crate) async fn of_open_cause(conn: &mut Conn, tenant_id: &str, cause: &str) -> Result<Option<Ticket>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tickets WHERE tenant_id = $1 AND open_cause = $2")
        .bind(tenant_id)
        .bind(cause)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Tickets recovered before `before`: due to close by rule.
pub(crate) async fn recovered_before(conn: &mut Conn, before: UnixMs, limit: i64) -> Result<Vec<Ticket>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM tickets WHERE state = 'recovered' AND recovered_at <= $1 ORDER BY recovered_at LIMIT $2")
            .bind(before.0)
            .bind(limit)
            .fetch_all(conn)
            .await?;
    rows.iter().map(from_row).collect()
}

/// One line of a ticket's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TimelineEntry {
    /// Its number in the customer's event chain.
    pub(crate) seq: i64,
    pub(crate) at: UnixMs,
    /// As in `audit`: `system`, `staff:ID`, `appliance:ID`, `token:ID`.
    pub(crate) actor: String,
    pub(crate) event: TicketEvent,
}

/// A ticket's history, oldest first.
///
/// # Errors
/// If the database refuses, or an event is none of [`TicketEvent`] (written by a newer collector).
pub(crate) async fn timeline(conn: &mut Conn, tenant_id: &str, ticket_id: &str) -> anyhow::Result<Vec<TimelineEntry>> {
    let events = audit::of_subject(conn, tenant_id, &subject(ticket_id)).await?;
    events
        .into_iter()
        .map(|event| {
            let parsed = serde_json::from_str(&event.body)
                .map_err(|error| anyhow::anyhow!("event {} of {ticket_id} ({}): {error}", event.seq, event.kind))?;
            Ok(TimelineEntry { seq: event.seq, at: event.at, actor: event.actor, event: parsed })
        })
        .collect()
}

/// How many tickets wait, for the head of a list and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) open_critical: i64,
    pub(crate) open_general: i64,
    pub(crate) recovered: i64,
    /// Open and not answered by a named engineer.
    pub(crate) unanswered: i64,
}

/// Counts of one customer, or of all (`None`, for the vendor's staff).
pub(crate) async fn counts(conn: &mut Conn, tenant_id: Option<&str>) -> Result<Counts, sqlx::Error> {
    let whose = if tenant_id.is_some() { "AND tenant_id = $1" } else { "" };
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(CASE WHEN state = 'open' AND severity = 'critical' THEN 1 ELSE 0 END), 0) AS BIGINT) AS critical,
                CAST(COALESCE(SUM(CASE WHEN state = 'open' AND severity = 'general' THEN 1 ELSE 0 END), 0) AS BIGINT) AS general,
                CAST(COALESCE(SUM(CASE WHEN state = 'recovered' THEN 1 ELSE 0 END), 0) AS BIGINT) AS recovered,
                CAST(COALESCE(SUM(CASE WHEN state = 'open' AND responded_at IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT) AS unanswered
         FROM tickets WHERE state <> 'closed' {whose}"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    if let Some(tenant_id) = tenant_id {
        query = query.bind(tenant_id.to_owned());
    }
    let row = query.fetch_one(conn).await?;
    Ok(Counts {
        open_critical: row.try_get("critical")?,
        open_general: row.try_get("general")?,
        recovered: row.try_get("recovered")?,
        unanswered: row.try_get("unanswered")?,
    })
}

/// Adds a ticket's row. A second ticket of the same cause that is not closed is refused by the unique key.
pub(crate) async fn insert(tx: &mut Conn, ticket: &Ticket) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tickets (tenant_id, ticket_id, number, source, state, cause, open_cause, site_id, appliance_id, component,
           code, summary, impact, severity, presumed, reason, grounds, attribution, opened_at, fault_at, recovered_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(&ticket.tenant_id)
    .bind(&ticket.ticket_id)
    .bind(ticket.number)
    .bind(&ticket.source)
    .bind(ticket.state.as_str())
    .bind(&ticket.cause)
    .bind(open_cause(ticket))
    .bind(&ticket.site_id)
    .bind(&ticket.appliance_id)
    .bind(&ticket.component)
    .bind(&ticket.code)
    .bind(&ticket.summary)
    .bind(ticket.impact.as_str())
    .bind(ticket.severity.as_str())
    .bind(i64::from(ticket.presumed))
    .bind(&ticket.reason)
    .bind(&ticket.grounds)
    .bind(ticket.attribution.as_str())
    .bind(ticket.opened_at.0)
    .bind(ticket.fault_at.0)
    .bind(ticket.recovered_at.map(|at| at.0))
    .bind(ticket.changed_at.0)
    .execute(tx)
    .await
    .map(drop)
}

/// Writes what may change in a ticket's life.
pub(crate) async fn update(tx: &mut Conn, ticket: &Ticket) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE tickets SET state = $3, open_cause = $4, impact = $5, severity = $6, presumed = $7, reason = $8, grounds = $9,
           attribution = $10, assigned_to = $11, taken_by = $12, responded_by = $13, responded_at = $14, recovered_at = $15,
           closed_at = $16, changed_at = $17, summary = $18, code = $19
         WHERE tenant_id = $1 AND ticket_id = $2",
    )
    .bind(&ticket.tenant_id)
    .bind(&ticket.ticket_id)
    .bind(ticket.state.as_str())
    .bind(open_cause(ticket))
    .bind(ticket.impact.as_str())
    .bind(ticket.severity.as_str())
    .bind(i64::from(ticket.presumed))
    .bind(&ticket.reason)
    .bind(&ticket.grounds)
    .bind(ticket.attribution.as_str())
    .bind(ticket.assigned_to.clone())
    .bind(ticket.taken_by.clone())
    .bind(ticket.responded_by.clone())
    .bind(ticket.responded_at.map(|at| at.0))
    .bind(ticket.recovered_at.map(|at| at.0))
    .bind(ticket.closed_at.map(|at| at.0))
    .bind(ticket.changed_at.0)
    .bind(&ticket.summary)
    .bind(&ticket.code)
    .execute(tx)
    .await
    .map(drop)
}

fn open_cause(ticket: &Ticket) -> Option<String> {
    (ticket.state != TicketState::Closed).then(|| ticket.cause.clone())
}

fn from_row(row: &AnyRow) -> Result<Ticket, sqlx::Error> {
    let at = |column: &str| -> Result<Option<UnixMs>, sqlx::Error> { Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs)) };
    Ok(Ticket {
        tenant_id: row.try_get("tenant_id")?,
        ticket_id: row.try_get("ticket_id")?,
        number: row.try_get("number")?,
        source: row.try_get("source")?,
        state: named(row, "state", TicketState::from_name)?,
        cause: row.try_get("cause")?,
        site_id: row.try_get("site_id")?,
        appliance_id: row.try_get("appliance_id")?,
        component: row.try_get("component")?,
        code: row.try_get("code")?,
        summary: row.try_get("summary")?,
        impact: named(row, "impact", BusinessImpact::from_name)?,
        severity: named(row, "severity", Severity::from_name)?,
        presumed: row.try_get::<i64, _>("presumed")? != 0,
        reason: row.try_get("reason")?,
        grounds: row.try_get("grounds")?,
        attribution: named(row, "attribution", Attribution::from_name)?,
        assigned_to: row.try_get("assigned_to")?,
        taken_by: row.try_get("taken_by")?,
        responded_by: row.try_get("responded_by")?,
        opened_at: UnixMs(row.try_get("opened_at")?),
        fault_at: UnixMs(row.try_get("fault_at")?),
        responded_at: at("responded_at")?,
        recovered_at: at("recovered_at")?,
        closed_at: at("closed_at")?,
        changed_at: UnixMs(row.try_get("changed_at")?),
    })
}

/// A column that holds one of an enum's names.
fn named<T>(row: &AnyRow, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
    let name: String = row.try_get(column)?;
    parse(&name).ok_or_else(|| sqlx::Error::Decode(format!("tickets.{column} = {name:?}: none of the known words").into()))
}
