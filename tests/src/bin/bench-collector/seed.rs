//! A collector's database as years of service leave it, written straight into it while no collector runs: appliances of many
//! customers, tickets with their episodes, clocks, notices and a chain of events that verifies, samples of a quarter.
//!
//! Only benches may do this; `growth` asks the collector itself whether it takes the rows for its own.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use e2e::load::speaker::METRICS;
use mainstay_shared::record::Folded;
use mainstay_shared::time_source::UnixMs;
use ring::digest;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) appliances: i64,
    pub(crate) tickets: i64,
}

/// Appliances of one customer.
const A_CUSTOMER: i64 = 100;
/// Tickets that are not closed, of every thousand; at most so many.
const LIVE: (i64, i64) = (50, 1_000);
/// Appliances with all their samples of a quarter, 288 a day; the others have an hour.
const SAMPLED: i64 = 3;
const QUARTER: i64 = 90 * 288;
/// Rows of events in one statement.
const AT_ONCE: usize = 500;
const MIN: i64 = 60_000;
const YEAR: i64 = 365 * 24 * 60 * MIN;

impl Size {
    pub(crate) fn customers(self) -> i64 {
        (self.appliances + A_CUSTOMER - 1) / A_CUSTOMER
    }

    /// Tickets that are not closed.
    pub(crate) fn live(self) -> i64 {
        (self.tickets * LIVE.0 / 1000).min(LIVE.1)
    }
}

/// The id of the `n`th seeded appliance, from 1.
pub(crate) fn appliance_id(n: i64) -> String {
    format!("abcdefabcdefabcd{}", 1_000_000_000_000_000 + n)
}

/// Fills the database at `url` as of `now`.
pub(crate) async fn seed(url: &str, size: Size, now: UnixMs) -> Result<()> {
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(url).await.context("the database to be filled")?;
    let sqlite = url.starts_with("sqlite:");
    let faster = if sqlite {
        "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000"
    } else {
        "SET session_replication_role = replica; SET synchronous_commit = off"
    };
    sqlx::raw_sql(faster).execute(&mut conn).await?;
    let mut tx = conn.begin().await?;
    for text in tables(size, now, sqlite)? {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *tx).await?;
    }
    events(&mut tx, size, now).await?;
    tx.commit().await?;
    sqlx::raw_sql(if sqlite { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "VACUUM ANALYZE" }).execute(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

/// When the `i`th ticket opened: spread over two years, those that are not closed five minutes ago. As SQL.
fn opened(size: Size, now: UnixMs) -> String {
    let closed = size.tickets - size.live();
    let (begin, end) = (now.0 - 2 * YEAR, now.0 - 60 * MIN);
    let step = (end - begin) / closed.max(1);
    format!("(CASE WHEN i > {closed} THEN {} ELSE {begin} + i * {step} END)", now.0 - 5 * MIN)
}

fn opened_at(size: Size, now: UnixMs, i: i64) -> i64 {
    let closed = size.tickets - size.live();
    let (begin, end) = (now.0 - 2 * YEAR, now.0 - 60 * MIN);
    if i > closed { now.0 - 5 * MIN } else { begin + i * ((end - begin) / closed.max(1)) }
}

/// Everything but the chain of events, as statements that count rows up inside the database.
fn tables(size: Size, now: UnixMs, sqlite: bool) -> Result<Vec<String>> {
    let Size { appliances, tickets } = size;
    let (customers, closed, now_ms) = (size.customers(), size.tickets - size.live(), now.0);
    let n =
        |count: i64| format!("WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let opened = opened(size, now);
    let customer = format!("'g-' || CAST(100000 + i % {customers} AS TEXT)");
    let box_of = format!("'abcdefabcdefabcd' || CAST(1000000000000000 + (i % {appliances}) + 1 AS TEXT)");
    // Tickets follow the customer of their appliance.
    let whose = format!("'g-' || CAST(100000 + ((i % {appliances}) + 1) % {customers} AS TEXT)");
    let over = |then: &str, otherwise: &str| format!("(CASE WHEN i <= {closed} THEN {then} ELSE {otherwise} END)");
    let name = "'T-' || CASE WHEN i < 10 THEN '00000' WHEN i < 100 THEN '0000' WHEN i < 1000 THEN '000' WHEN i < 10000 THEN '00'
        WHEN i < 100000 THEN '0' ELSE '' END || CAST(i AS TEXT)";
    let grounds = serde_json::json!({ "about": "machine", "appliance_id": appliance_id(1), "component": "disk:/var", "code": "disk_space_low",
        "level": "serious", "seen": { "value": 96.5, "unit": "percent", "threshold": 95.0, "lasted_ms": 300_000 }, "dependents": [], "services": [] });
    let mut all = vec![
        format!("{} INSERT INTO customers (tenant_id, name, language, created_at) SELECT 'g-' || CAST(99999 + i AS TEXT), 'Customer ' || CAST(i AS TEXT), 'en', 0 FROM n", n(customers)),
        format!("{} INSERT INTO sites (tenant_id, site_id, name, city, time_zone) SELECT 'g-' || CAST(99999 + i AS TEXT), 'hq', 'HQ', 'Chongqing', 'Asia/Shanghai' FROM n", n(customers)),
        format!("{} INSERT INTO contacts (tenant_id, contact_id, site_id, name, email, phone, language) SELECT 'g-' || CAST(99999 + i AS TEXT), 'c1', 'hq', 'Wang', 'w@g.invalid', '+86 23 5555 0100', 'zh' FROM n", n(customers)),
        format!("{} INSERT INTO appliances (tenant_id, appliance_id, site_id, name, product, vendor, model, serial, duty, parts, agent_version, platform, state,
             held_reason, enrol_attempt, expected_hours, enrolled_at)
             SELECT {customer}, 'abcdefabcdefabcd' || CAST(1000000000000000 + i AS TEXT), 'hq', 'gw-' || CAST(i AS TEXT), 'gateway', 'Example', 'G-2000',
             'SN-' || CAST(i AS TEXT), 'single', '[]', '0.1.0', 'Linux 6.1', 'active', '', 'e' || CAST(i AS TEXT), '', {} FROM n", n(appliances), now_ms - 2 * YEAR),
        format!("{} INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before, clock_offset_ms, backlog, present_values,
             services, goodbye_reason) SELECT {customer}, 'abcdefabcdefabcd' || CAST(1000000000000000 + i AS TEXT), {}, 'seeded', 1, '', '', 0, 0,
             '{{\"cpu.busy_percent\":31.5,\"disk./.used_percent\":48.1,\"load.avg1\":0.4,\"memory.used_percent\":61.2}}', '{{\"vpn\":\"up\"}}', '' FROM n",
             n(appliances), now_ms + 3600 * 1000),
        format!("{} INSERT INTO declared_services (tenant_id, appliance_id, service, title, depends_on, interval_s, declared_at)
             SELECT {customer}, 'abcdefabcdefabcd' || CAST(1000000000000000 + i AS TEXT), 'vpn', 'VPN', '[]', 60, 0 FROM n", n(appliances)),
        format!("{} INSERT INTO certificates (fingerprint, tenant_id, appliance_id, public_key, pem, not_after_at, issued_at)
             SELECT 'f' || CAST(i AS TEXT), {customer}, 'abcdefabcdefabcd' || CAST(1000000000000000 + i AS TEXT), '', '', {now_ms}, 0 FROM n", n(appliances)),
    ];
    if tickets > 0 {
        all.extend([
            format!("{} INSERT INTO tickets (tenant_id, ticket_id, number, source, state, cause, open_cause, site_id, appliance_id, component, code, summary, impact,
                severity, presumed, reason, grounds, attribution, taken_by, responded_by, opened_at, fault_at, responded_at, recovered_at, closed_at, changed_at)
                SELECT {whose}, {name}, i, 'agent', {}, 'fault:' || CAST(i AS TEXT), {}, 'hq', {box_of}, 'disk:/var', 'disk_space_low', '96.5 % used',
                'slight', 'general', 1, 'services_up', '{grounds}', 'unknown', NULL, NULL, {opened}, {opened} - 300000, {}, {}, {}, {opened} FROM n",
                n(tickets), over("'closed'", "'open'"), over("NULL", "'fault:' || CAST(i AS TEXT)"), over(&format!("{opened} + 420000"), "NULL"),
                over(&format!("{opened} + 1200000"), "NULL"), over(&format!("{opened} + 2400000"), "NULL")),
            format!("{} INSERT INTO episodes (tenant_id, appliance_id, component, code, episode, state, level, summary, grounds, ticket_id, raised_at, received_at, cleared_at)
                SELECT {whose}, {box_of}, 'disk:/var', 'disk_space_low', 'seeded:fault:' || CAST(i AS TEXT), {}, 'serious', '96.5 % used',
                '{{\"value\":96.5,\"unit\":\"percent\",\"threshold\":95.0,\"lasted_ms\":300000}}', {name}, {opened} - 300000, {opened}, {} FROM n",
                n(tickets), over("'cleared'", "'open'"), over(&format!("{opened} + 1200000"), "NULL")),
            format!("{} INSERT INTO clocks (tenant_id, ticket_id, clock_no, kind, policy_version, state, started_at, warn_at, due_at, stopped_at, next_at)
                SELECT {whose}, {name}, 1, 'response', 1, {}, {opened}, {opened} + 1200000, {opened} + 1800000, {}, {} FROM n",
                n(tickets), over("'met'", "'running'"), over(&format!("{opened} + 420000"), "NULL"), over("NULL", &format!("{opened} + 1200000"))),
            format!("{} INSERT INTO outbox (tenant_id, notice_id, subject_id, kind, channel, recipient, message_id, title, body, in_reply_to, state, tries,
                last_error, created_at, next_try_at, sent_at) SELECT {whose}, 'n' || CAST(i AS TEXT), {name}, 'opened', 'mail', 'w@g.invalid',
                '<n' || CAST(i AS TEXT) || '@test.invalid>', 'Disk space is low', 'The disk of the appliance gw is nearly full. An engineer will answer within 30 minutes.',
                '', 'sent', 1, '', {opened}, NULL, {opened} + 1000 FROM n", n(tickets)),
            format!("INSERT INTO counters (name, value) VALUES ('ticket', {tickets})"),
        ]);
    }
    all.extend(samples(size, now, sqlite)?);
    Ok(all)
}

/// A quarter of samples for a few appliances, an hour for a thousand others.
fn samples(size: Size, now: UnixMs, sqlite: bool) -> Result<Vec<String>> {
    let folded =
        |n: usize| Folded { min: n as f64 + 0.13, avg: n as f64 + 1.724, max: n as f64 * 9.31 + 3.9, last: n as f64 + 2.41 };
    let metrics: std::collections::BTreeMap<_, _> = METRICS.iter().enumerate().map(|(n, name)| (*name, folded(n))).collect();
    let packed = hex::encode(zstd::bulk::compress(&serde_json::to_vec(&metrics)?, 3)?);
    let blob = if sqlite { format!("X'{packed}'") } else { format!("'\\x{packed}'::bytea") };
    let customers = size.customers();
    let rows = |boxes: i64, each: i64| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {}) INSERT INTO samples (tenant_id, appliance_id, from_at, to_at, metrics)
             SELECT 'g-' || CAST(100000 + (i % {boxes} + 1) % {customers} AS TEXT), 'abcdefabcdefabcd' || CAST(1000000000000001 + i % {boxes} AS TEXT),
             {} - (i / {boxes} + 2) * 300000, {} - (i / {boxes} + 1) * 300000, {blob} FROM n WHERE true ON CONFLICT DO NOTHING",
            boxes * each - 1, now.0, now.0
        )
    };
    Ok(vec![rows(SAMPLED.min(size.appliances), QUARTER), rows(size.appliances.min(1000), 12)])
}

/// One link of a customer's chain, as the collector makes it.
struct Link<'a> {
    tenant: &'a str,
    at: i64,
    subject: &'a str,
    kind: &'a str,
    body: String,
}

/// Appends to `rows` and gives the hash: SHA-256 over length-prefixed fields.
fn link(rows: &mut String, (seq, before): (i64, &str), link: &Link<'_>) -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (seq_text, at_text) = (seq.to_string(), link.at.to_string());
    for field in [before, link.tenant, &seq_text, &at_text, "system", link.subject, link.kind, &link.body] {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    let hash = hex::encode(context.finish());
    let Link { tenant, at, subject, kind, body } = link;
    let comma = if rows.is_empty() { "" } else { "," };
    write!(rows, "{comma}('{tenant}',{seq},{at},'system','{subject}','{kind}','{body}','{before}','{hash}')")?;
    Ok(hash)
}

/// The events of every ticket, customer by customer in one chain each.
async fn events(tx: &mut AnyConnection, size: Size, now: UnixMs) -> Result<()> {
    let closed = size.tickets - size.live();
    let mut heads = vec![(0_i64, "0".repeat(64)); usize::try_from(size.customers())?];
    let (mut rows, mut count) = (String::new(), 0);
    for i in 1..=size.tickets {
        let customer = (i % size.appliances + 1) % size.customers();
        let (tenant, subject, at) = (format!("g-{}", 100_000 + customer), format!("ticket:T-{i:06}"), opened_at(size, now, i));
        let (warn_at, due_at) = (at + 20 * MIN, at + 30 * MIN);
        let mut story = vec![
            ("opened", at, r#"{"already_recovered":false,"impact":"slight","presumed":true,"reason":"services_up","summary":"96.5 % used","type":"opened"}"#.to_owned()),
            ("clock_started", at, format!(r#"{{"clock_no":1,"due_at":{due_at},"kind":"response","policy_version":1,"type":"clock_started","warn_at":{warn_at}}}"#)),
        ];
        if i <= closed {
            story.push((
                "responded",
                at + 7 * MIN,
                r#"{"name":"Li","note":"called","staff_id":"li","type":"responded","way":"phone"}"#.to_owned(),
            ));
            story.push(("closed", at + 40 * MIN, r#"{"type":"closed","why":"cleaned up"}"#.to_owned()));
        }
        for (kind, at, body) in story {
            let head = &mut heads[usize::try_from(customer)?];
            head.0 += 1;
            head.1 = link(&mut rows, (head.0, &head.1), &Link { tenant: &tenant, at, subject: &subject, kind, body })?;
            count += 1;
        }
        if count >= AT_ONCE || i == size.tickets {
            let text =
                format!("INSERT INTO events (tenant_id, seq, at, actor, subject, kind, body, previous_hash, hash) VALUES {rows}");
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *tx).await?;
            (rows, count) = (String::new(), 0);
        }
    }
    Ok(())
}
