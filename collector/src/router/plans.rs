//! No page, list, period or arriving fault reads a whole table that grows: everything of that kind is run on a seeded database, every
//! statement that it sent is taken from the log, and the database is asked how it would carry it out.
//!
//! SQLite is asked as it is in service, without statistics; PostgreSQL with them, for the plan that fits any value. Test code only.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{Epoch, Lane, RecordId};
use ring::rand::SystemRandom;
use sqlx::{AssertSqlSafe, Row as _};
use tower::ServiceExt as _;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::Registry;

use crate::customers::Role;
use crate::db::testing::both_databases;
use crate::db::{Conn, Db, Engine, Turn, transact};
use crate::flow::faults_arrive::{ArrivedChange, ArrivedFrom, faults_arrive};
use crate::flow::file_is_offered::{self, Wish};
use crate::flow::testing::staff;
use crate::flow::time_passes::{self, LastLook};
use crate::flow::{World, changes, daily_mail, link_is_used, repository_is_read};
use crate::web::sample;

both_databases!(nothing_that_recurs_reads_a_growing_table_whole);

/// What grows with time or with the fleet.
const GROWING: [&str; 17] = [
    "tickets",
    "episodes",
    "events",
    "clocks",
    "outbox",
    "samples",
    "links",
    "fault_records",
    "appliances",
    "directives",
    "offers",
    "patch_reports",
    "offer_links",
    "installed",
    "sites",
    "declared_services",
    "service_group_members",
];

/// Indexes of what is not settled: reading one whole reads what is open, waits or is due, however long the history is. Who asks for
/// rows by their keys (`IN (VALUES ..)`) needs not even that.
const UNSETTLED: [&str; 15] = [
    "offers_living",
    "offers_by_expiry",
    "tickets_live_by_appliance",
    "tickets_live",
    "tickets_live_by_customer",
    "tickets_live_counts",
    "tickets_live_by_rank",
    "tickets_recovered",
    "episodes_open",
    "clocks_due",
    "clocks_unanswered",
    "outbox_due",
    "outbox_unsent",
    "directives_open",
    "links_silent",
];

/// Statements that may: the beginning of their text, and why.
const EXCUSED: [(&str, &str); 9] = [
    (
        "SELECT CAST(json_agg(json_build_array(appliance_id, name)) AS TEXT) FROM appliances",
        "so small a table PostgreSQL reads whole for many keys",
    ),
    ("SELECT CAST(json_agg(json_build_array(tenant_id, site_id, name, time_zone)) AS TEXT) FROM sites", "likewise"),
    ("SELECT * FROM sites WHERE (tenant_id) IN", "likewise: ten of forty customers"),
    (
        "SELECT CAST(json_agg(json_build_array(g.tenant_id, g.group_id, g.name, g.needs, m.appliance_id, m.service)) AS TEXT) \
      FROM service_groups g JOIN service_group_members m ON m.tenant_id = g.tenant_id AND m.group_id = g.group_id WHERE (g.tenant_id) IN",
        "likewise: ten of forty customers",
    ),
    (
        "SELECT product, version, COUNT(*) AS n FROM installed",
        "the versions of the fleet are counted from their small index alone",
    ),
    ("SELECT appliance_id, name FROM appliances WHERE (appliance_id)", "so small a table PostgreSQL reads whole for many keys"),
    (
        "SELECT l.tenant_id, l.appliance_id, a.site_id, l.last_seen_at",
        "silence looks at all links sixty times in the time after which it counts",
    ),
    ("SELECT tenant_id, appliance_id FROM appliances", "once a night, for the samples of each"),
    ("SELECT state AS label, COUNT(*) AS n FROM appliances", "the fleet is counted once a minute"),
];

/// The statements that the database layer logged.
static SENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

struct Listener;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut found = Statement::default();
            event.record(&mut found);
            let text = if found.whole.is_empty() { found.summary } else { found.whole };
            SENT.lock().unwrap_or_else(PoisonError::into_inner).insert(text.trim().to_owned());
        }
    }
}

#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Some thousands of settled rows beside the sample's open ones: enough for statistics to mean something.
async fn history(db: &Db) -> anyhow::Result<()> {
    const N: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)";
    let rows = [
        "INSERT INTO counters SELECT 'ticket', 200000 FROM n WHERE i = 1",
        "INSERT INTO customers SELECT 'c' || CAST(i AS TEXT), 'Customer', 'en', 0 FROM n WHERE i <= 40",
        "INSERT INTO sites SELECT 'c' || CAST(i AS TEXT), 'main', 'Main', 'City', 'UTC' FROM n WHERE i <= 40",
        "INSERT INTO appliances SELECT 'c' || CAST(i % 40 + 1 AS TEXT), 'a' || CAST(i AS TEXT), 'main', 'box', 'p', 'v', 'm', 's', 'single',
           '[]', '0', 'Linux', 'active', '', 'e' || CAST(i AS TEXT), '', 0 FROM n",
        "INSERT INTO sites SELECT 'c' || CAST(i % 40 + 1 AS TEXT), 's' || CAST(i AS TEXT), 'Branch', 'City', 'UTC' FROM n",
        "INSERT INTO declared_services SELECT tenant_id, appliance_id, 'web', 'Web', '[]', 60, 0 FROM appliances WHERE name = 'box'",
        "INSERT INTO service_groups SELECT tenant_id, appliance_id, 'Web', 1 FROM appliances WHERE name = 'box'",
        "INSERT INTO service_group_members SELECT tenant_id, appliance_id, appliance_id, 'web' FROM appliances WHERE name = 'box'",
        "INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before, clock_offset_ms, backlog, present_values,
           services, goodbye_reason) SELECT tenant_id, appliance_id, 1795334390000, 'e', 1, '', '', 0, 0, '{}', '{}', '' FROM appliances
           WHERE name = 'box'",
        "INSERT INTO tickets SELECT 'c' || CAST(i % 40 + 1 AS TEXT), 'T-' || CAST(100000 + i AS TEXT), 100000 + i, 'agent', 'closed', 'cause', NULL,
           'main', 'a' || CAST(i AS TEXT), 'memory', 'memory_low', '', 'slight', 'general', 0, 'services_up', '{}', 'unknown', NULL, NULL, NULL,
           1000 * i, 1000 * i, 1000 * i, 1000 * i, 1000 * i, 1000 * i FROM n",
        "INSERT INTO episodes SELECT tenant_id, appliance_id, component, code, ticket_id, 'cleared', 'serious', '', '{}', ticket_id, opened_at,
           opened_at, opened_at + 500 FROM tickets WHERE state = 'closed'",
        "INSERT INTO clocks SELECT tenant_id, ticket_id, 1, 'response', 1, 'met', opened_at, opened_at, opened_at, opened_at, NULL FROM tickets
           WHERE state = 'closed'",
        "INSERT INTO events SELECT tenant_id, number, opened_at, 'system', 'ticket:' || ticket_id, 'closed', '{\"type\":\"closed\",\"why\":\"\"}',
           '', '' FROM tickets WHERE state = 'closed'",
        "INSERT INTO outbox SELECT tenant_id, ticket_id, ticket_id, 'opened', 'mail', 'a@b.invalid', ticket_id, '', '', '', 'sent', 1, '',
           opened_at, NULL, opened_at FROM tickets WHERE state = 'closed'",
        "INSERT INTO samples SELECT tenant_id, appliance_id, 1000, 2000, 'x' FROM appliances WHERE name = 'box'",
        "INSERT INTO offers SELECT tenant_id, appliance_id, appliance_id, appliance_id, 'f-' || appliance_id, appliance_id, 1, 'patch', 'p', '1.0.0',
           '', 'free_warranty', 'done', 100, '', '', 1, '', NULL, 'x', 0, 0, 0, 1 FROM appliances WHERE name = 'box'",
        "INSERT INTO patch_reports SELECT tenant_id, appliance_id, 1, appliance_id, 'done', '', 'patch', 'p', '1.0.0', '1.0.1', '', '', '', 'online',
           0, 0 FROM appliances WHERE name = 'box'",
        "INSERT INTO installed SELECT tenant_id, appliance_id, 'p', '1.0.' || substr(appliance_id, 4, 1), 'm', 'local', 'local', 0, 0 FROM appliances
           WHERE name = 'box'",
        "INSERT INTO offer_links SELECT appliance_id, tenant_id, appliance_id, '', '', 'zh', 0, 1795334390000, 0, 0 FROM appliances
           WHERE name = 'box'",
        "INSERT INTO directives SELECT tenant_id, appliance_id, appliance_id, '{}', 'x', 0, 1795334390000, 0 FROM appliances WHERE name = 'box'",
    ];
    transact!(db, Turn::Console, |tx| {
        for row in rows {
            let row = if db.engine() == Engine::Postgres { row.replace("2000, 'x'", "2000, 'x'::bytea") } else { row.to_owned() };
            sqlx::query(AssertSqlSafe(format!("{N} {row}"))).execute(&mut *tx).await?;
        }
        Ok(())
    });
    if db.engine() == Engine::Postgres {
        sqlx::raw_sql("ANALYZE").execute(&mut *db.read().await?).await?;
    }
    Ok(())
}

/// Everything that recurs: pages, API, figures, a pass of time with its night's work, the day's mail, a fault.
async fn recur(world: &World) -> anyhow::Result<()> {
    sample::session(world, "li", "cookie").await?;
    let token = sample::token(world, "otto", Role::Operator, None).await?;
    let app = super::web(world, crate::metrics::watched(crate::intake::counts::Counts::default()));
    let (a, ticket) = (sample::BOX_A, "T-000001");
    let appliance = format!("/appliances/{a}");
    let pages = [
        "/",
        "/?show=closed",
        "/?customer=bank",
        "/?show=closed&customer=bank&below=100050",
        "/appliances",
        "/appliances?customer=bank",
    ];
    let more = [
        "/releases",
        "/releases/acme-gateway-2.1.0.mpatch",
        "/appliances?after=a1",
        "/customers",
        "/account",
        "/tickets/open",
        "/tickets/open?customer=bank",
        &appliance,
    ];
    let api = [
        "/tickets".to_owned(),
        "/tickets?state=closed&customer=bank".to_owned(),
        "/tickets?severity=critical".to_owned(),
        "/tickets?state=open&severity=critical".to_owned(),
        format!("/tickets?appliance={a}"),
        format!("/tickets/{ticket}"),
        format!("/tickets/{ticket}/notices"),
        "/appliances".to_owned(),
        "/appliances?customer=bank".to_owned(),
        appliance.clone(),
        format!("{appliance}/health"),
        format!("{appliance}/patches"),
        "/releases".to_owned(),
        "/releases/acme-gateway-2.1.0.mpatch".to_owned(),
        "/customers".to_owned(),
        "/customers/bank/groups".to_owned(),
        "/tokens".to_owned(),
    ];
    let paths = pages.iter().chain(&more).map(ToString::to_string).chain([format!("/tickets/{ticket}"), "/metrics".to_owned()]);
    for path in paths.chain(api.iter().map(|path| format!("/api/v1{path}"))) {
        let request = match path.starts_with("/api") {
            true => Request::get(&path).header("authorization", format!("Bearer {token}")),
            false => Request::get(&path).header("cookie", "__Host-mainstay-session=cookie"),
        };
        let mut request = request.body(Body::empty())?;
        request.extensions_mut().insert(axum::extract::ConnectInfo(std::net::SocketAddr::from(([127, 0, 0, 1], 9))));
        let status = app.clone().oneshot(request).await?.status();
        anyhow::ensure!(status == StatusCode::OK, "{path}: {status}");
    }
    let wish =
        Wish { file: "acme-gateway-2.1.0.mpatch".into(), appliances: vec![a.to_owned()], by_mail: true, ..Wish::default() };
    let li = staff("li", Role::SystemEngineer);
    let offered = file_is_offered::offer(world, &li, None, &wish).await?.map_err(anyhow::Error::from)?;
    anyhow::ensure!(offered.iter().all(|offered| offered.outcome.is_ok()), "{offered:?}");
    link_is_used::look(world, "no such token").await?;
    repository_is_read::end_overdue(world).await?;
    changes::once(world).await?;
    daily_mail::once(world).await?;
    fault(world).await?;
    time_passes::once(world, &LastLook::default()).await
}

async fn fault(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    let who = ArrivedFrom { tenant_id: "bank".into(), appliance_id: sample::BOX_A.into(), site_id: "main".into() };
    let change = ArrivedChange {
        record: RecordId { epoch: Epoch::random(&SystemRandom::new()), lane: Lane::Fault, seq: 1 },
        occurred_at: now,
        change: FaultChange {
            kind: FaultChangeKind::Raised,
            key: FaultKey::new("disk:/srv", "disk_space_low"),
            episode: None,
            level: Level::Serious,
            summary: "full".into(),
            grounds: FaultGrounds::default(),
            at: now,
            present_at_start: false,
        },
    };
    transact!(world.db, Turn::Intake, |tx| { faults_arrive(tx, &world.config, now, &who, vec![change.clone()]).await });
    Ok(())
}

/// The parts of a statement's plan that read a growing table whole.
async fn whole_reads(conn: &mut Conn, engine: Engine, text: &str) -> anyhow::Result<Vec<String>> {
    let plan = match engine {
        Engine::Sqlite => {
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).fetch_all(conn).await?;
            rows.iter().map(|row| row.try_get::<String, _>("detail")).collect::<Result<Vec<_>, _>>()?
        }
        Engine::Postgres => {
            let values = (1..2000).take_while(|n| text.contains(&format!("${n}"))).map(|_| "NULL").collect::<Vec<_>>();
            let given = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
            let ask = format!("PREPARE asked AS {text}; SET plan_cache_mode = force_generic_plan");
            sqlx::raw_sql(AssertSqlSafe(ask)).execute(&mut *conn).await?;
            let rows = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE asked{given}"))).fetch_all(&mut *conn).await?;
            sqlx::raw_sql("DEALLOCATE asked").execute(conn).await?;
            rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let reads_whole = |line: &String| {
        GROWING.iter().any(|table| {
            let names = words.windows(2).filter(|pair| pair[0] == *table).map(|pair| pair[1]).chain([*table]);
            names.into_iter().any(|name| match engine {
                Engine::Sqlite => {
                    line.starts_with(&format!("SCAN {name}"))
                        && line.split_whitespace().nth(1) == Some(name)
                        && (text.contains("IN (VALUES") || !UNSETTLED.iter().any(|index| line.ends_with(index)))
                }
                Engine::Postgres => line.contains(&format!("Seq Scan on {table} ")),
            })
        })
    };
    Ok(plan.into_iter().filter(reads_whole).collect())
}

async fn nothing_that_recurs_reads_a_growing_table_whole(db: Db) {
    // The other half of the test, if it runs in this process, listens already.
    drop(tracing::subscriber::set_global_default(Registry::default().with(Listener)));
    let (world, _announce) = sample::world(&db, sample::ADDRESS);
    sample::seed(&world, "").await.expect("the sample");
    found_collector(&db).await.expect("a collector");
    sample::release(&world).await.expect("a file");
    history(&db).await.expect("a history");
    SENT.lock().unwrap_or_else(PoisonError::into_inner).clear();
    recur(&world).await.expect("everything runs");
    let sent: Vec<String> = SENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    let asked: Vec<&String> = sent
        .iter()
        .filter(|text| ["SELECT", "UPDATE", "DELETE", "WITH"].iter().any(|verb| text.starts_with(verb)))
        .filter(|text| GROWING.iter().any(|table| text.contains(table)))
        .filter(|text| !EXCUSED.iter().any(|(begin, _)| text.starts_with(begin)))
        .collect();
    assert!(asked.len() > 30, "the log of statements was heard: {}", sent.len());
    let mut conn = db.read().await.expect("reads");
    let mut found = Vec::new();
    for text in asked {
        let reads = whole_reads(&mut conn, db.engine(), text).await.unwrap_or_else(|error| panic!("{text}: {error:#}"));
        if !reads.is_empty() {
            found.push(format!("{text}\n    {}", reads.join("\n    ")));
        }
    }
    assert!(found.is_empty(), "{} statements read a growing table whole:\n{}", found.len(), found.join("\n"));
}

async fn found_collector(db: &Db) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        sqlx::query("INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, 'e', 0, 0)")
            .execute(&mut *tx)
            .await?;
        Ok(())
    });
    Ok(())
}
