//! A small, whole world for tests of pages and routes: two customers, a pair that failed, a quiet box, staff, a session and tokens.
//! Test code only; every name and value in it is made up. Rows are written as the stories would leave them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::record::Folded;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::api::sessions::store::{NewSession, insert};
use crate::api::sessions::{Stage, hash_of, tokens};
use crate::audit;
use crate::config::Config;
use crate::customers::store::{Secrets, add_contact, add_customer, add_site, add_staff};
use crate::customers::{Contact, Customer, Language, Role, Site, Staff, VENDOR_TENANT, credentials};
use crate::db::{Conn, Db, Turn, transact};
use crate::flow::World;
use crate::tickets::subject;

/// When the sample's clock stands: 2026-11-22 08:00 UTC.
pub(crate) const NOW: UnixMs = UnixMs(1_795_334_400_000);
/// The console's address in the sample.
pub(crate) const ADDRESS: &str = "https://support.example";
/// The password and TOTP secret of every account.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// RFC 6238's.
pub(crate) const TOTP: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
/// The appliance with faults.
pub(crate) const BOX_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The other customer's.
pub(crate) const BOX_OTHER: &str = "cccccccccccccccccccccccccccccccc";

const MIN: i64 = 60_000;

/// A world on `db` at [`NOW`], whose changes nobody announces. `address` is the console's.
pub(crate) fn world(db: &Db, address: &str) -> (World, watch::Sender<i64>) {
    let (announce, changes) = watch::channel(0);
    let here = "127.0.0.1:0".parse().expect("an address");
    let config = Config {
        service_name: "Mainstay".into(),
        language: Language::Zh,
        data_dir: "/nonexistent".into(),
        database_url: String::new(),
        agents_listen: here,
        agents_addresses: vec![],
        web_listen: here,
        web_public_url: address.into(),
        web_tls: None,
        mail: None,
        watch: None,
        silence_after: Duration::from_secs(300),
        flap_window: Duration::from_secs(900),
        close_recovered_after: Duration::from_secs(86_400),
        log_json: false,
    };
    let world = World {
        config: Arc::new(config),
        db: db.clone(),
        time: TimeSource::manual(NOW),
        rng: SystemRandom::new(),
        changes,
        look_now: Arc::new(Notify::new()),
    };
    (world, announce)
}

/// A signed-in session of `username`; its cookie's value is `cookie`.
pub(crate) async fn session(world: &World, username: &str, cookie: &str) -> anyhow::Result<()> {
    let hash = hash_of(cookie);
    let now = world.time.now();
    transact!(world.db, Turn::Console, |tx| {
        let new = NewSession {
            session_hash: &hash,
            staff_id: username,
            stage: Stage::Full,
            csrf_token: "form-token",
            now,
            expires_at: now.plus(Duration::from_secs(36_000)),
        };
        Ok(insert(tx, new).await?)
    });
    Ok(())
}

/// A bearer token `mst_NAME` of `username`.
pub(crate) async fn token(world: &World, username: &str, role: Role, tenant: Option<&str>) -> anyhow::Result<String> {
    let secret = format!("{}{username}-{}", tokens::PREFIX, tenant.unwrap_or("all"));
    let token = tokens::Token {
        token_id: format!("id-{username}-{}", tenant.unwrap_or("all")),
        name: "probe".into(),
        staff_id: username.into(),
        role,
        tenant_id: tenant.map(str::to_owned),
        created_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(86_400)),
        revoked_at: None,
        maker_role: role,
        maker_name: String::new(),
        maker_disabled_at: None,
    };
    transact!(world.db, Turn::Console, |tx| { Ok(tokens::insert(tx, &token, &hash_of(&secret)).await?) });
    Ok(secret)
}

/// Writes the whole sample. `hostile` goes into every text that an agent or a customer can send.
pub(crate) async fn seed(world: &World, hostile: &str) -> anyhow::Result<()> {
    transact!(world.db, Turn::Console, |tx| {
        people(tx).await?;
        boxes(tx, hostile).await?;
        samples(tx).await?;
        for n in 1..=4 {
            ticket(tx, n, hostile).await?;
        }
        Ok(())
    });
    Ok(())
}

async fn people(tx: &mut Conn) -> anyhow::Result<()> {
    for (tenant, name) in [(VENDOR_TENANT, "Vendor"), ("bank", "渝江银行"), ("city", "Riverside City Council")] {
        let customer = Customer { tenant_id: tenant.into(), name: name.into(), language: Language::Zh, created_at: NOW };
        add_customer(tx, &customer).await?;
        let site = Site {
            tenant_id: tenant.into(),
            site_id: "main".into(),
            name: if tenant == "bank" { "数据中心一号" } else { "Town Hall" }.into(),
            city: "Chongqing".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        add_site(tx, &site).await?;
    }
    let contact = Contact {
        tenant_id: "bank".into(),
        contact_id: "zhao".into(),
        site_id: Some("main".into()),
        name: "赵敏".into(),
        email: "zhao@bank.example".into(),
        phone: "+86 23 5555 0100".into(),
        language: Language::Zh,
    };
    add_contact(tx, &contact).await?;
    let hash = credentials::hash_password(PASSWORD)?;
    for (username, name, role, language) in [
        ("li", "李伟", Role::SystemEngineer, Language::Zh),
        ("mia", "Mia Chen", Role::SupportManager, Language::En),
        ("otto", "Otto Berg", Role::Operator, Language::En),
        ("ann", "Ann Lee", Role::AccountManager, Language::En),
    ] {
        let staff = Staff {
            staff_id: username.into(),
            username: username.into(),
            name: name.into(),
            email: format!("{username}@vendor.example"),
            phone: String::new(),
            role,
            language,
            created_at: NOW,
            disabled_at: None,
        };
        let secrets = Secrets {
            password_hash: hash.clone(),
            totp_secret: TOTP.into(),
            totp_last_step: 0,
            failed_count: 0,
            locked_until_at: None,
        };
        add_staff(tx, &staff, &secrets).await?;
    }
    Ok(())
}

async fn boxes(tx: &mut Conn, hostile: &str) -> anyhow::Result<()> {
    let b = "b".repeat(32);
    let rows = [
        (BOX_A, "bank", "vpn-gw-01", "primary", "active", 12_000_i64),
        (b.as_str(), "bank", "vpn-gw-02", "standby", "active", 640_000),
        (BOX_OTHER, "city", "mail-filter", "single", "held", 30_000),
    ];
    for (id, tenant, name, duty, state, silent_for) in rows {
        sqlx::query(
            "INSERT INTO appliances (tenant_id, appliance_id, site_id, name, product, vendor, model, serial, duty, parts, agent_version,
               platform, state, held_reason, enrol_attempt, expected_hours, enrolled_at)
             VALUES ($1, $2, 'main', $3, 'Guard', 'Example', 'G-2000', $4, $5, '[]', '0.1.0', 'Linux 6.1', $6, $7, $2, '', $8)",
        )
        .bind(tenant)
        .bind(id)
        .bind(format!("{name}{hostile}"))
        .bind(format!("SN-{name}{hostile}"))
        .bind(duty)
        .bind(state)
        .bind(if state == "held" { hostile } else { "" })
        .bind(NOW.0 - 40 * 86_400_000)
        .execute(&mut *tx)
        .await?;
        let down = id == BOX_A;
        let services = json!({ "vpn": if down { "down" } else { "up" }, "portal": "up" });
        let values = json!({ "cpu.busy_percent": 71.0, "memory.used_percent": 63.0, "disk./.used_percent": 48.0,
            "disk./var.used_percent": 91.5, format!("net.eth0{hostile}.rx_bytes_per_s"): 1_250_000.0, "load.avg1": 3.2 });
        sqlx::query(
            "INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before,
               clock_offset_ms, backlog, present_values, services, goodbye_reason, silent_since_at)
             VALUES ($1, $2, $3, '', 1, '', '', 12, 0, $4, $5, '', $6)",
        )
        .bind(tenant)
        .bind(id)
        .bind(NOW.0 - silent_for)
        .bind(values.to_string())
        .bind(services.to_string())
        .bind((silent_for > 300_000).then_some(NOW.0 - silent_for + 300_000))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO certificates (fingerprint, tenant_id, appliance_id, public_key, pem, not_after_at, issued_at)
             VALUES ($1, $2, $1, '', '', $3, $4)",
        )
        .bind(id)
        .bind(tenant)
        .bind(NOW.0 + 50 * 86_400_000)
        .bind(NOW.0 - 40 * 86_400_000)
        .execute(&mut *tx)
        .await?;
        if tenant == "bank" {
            for (service, title) in [("vpn", "远程接入"), ("portal", "")] {
                sqlx::query(
                    "INSERT INTO declared_services (tenant_id, appliance_id, service, title, depends_on, interval_s, declared_at)
                     VALUES ($1, $2, $3, $4, '[]', 10, 0)",
                )
                .bind(tenant)
                .bind(id)
                .bind(service)
                .bind(format!("{title}{hostile}"))
                .execute(&mut *tx)
                .await?;
            }
        }
    }
    let group = crate::faults::groups::Group {
        tenant_id: "bank".into(),
        group_id: "vpn".into(),
        name: "VPN".into(),
        needs: 1,
        members: [BOX_A, b.as_str()]
            .map(|id| crate::faults::groups::GroupMember { appliance_id: id.into(), service: "vpn".into() })
            .into(),
    };
    crate::faults::groups::upsert_group(tx, &group).await
}

async fn samples(tx: &mut Conn) -> anyhow::Result<()> {
    for n in 0_i64..288 {
        if (100..112).contains(&n) {
            continue;
        }
        let to = NOW.0 - (288 - n) * 5 * MIN;
        let wave = (n as f64 / 23.0).sin() * 18.0 + (n as f64 / 3.0).sin() * 5.0;
        let fold = |mid: f64, spread: f64| Folded { min: mid - spread, avg: mid, max: mid + spread, last: mid };
        let late = if n > 270 { 30.0 } else { 0.0 };
        let metrics = BTreeMap::from([
            ("cpu.busy_percent", fold(38.0 + wave + late, 9.0)),
            ("memory.used_percent", fold(61.0 + wave / 6.0, 1.5)),
            ("disk./.used_percent", fold(48.0, 0.2)),
            ("disk./var.used_percent", fold(70.0 + n as f64 / 13.5, 0.4)),
        ]);
        let packed = zstd::bulk::compress(&serde_json::to_vec(&metrics)?, 3)?;
        sqlx::query("INSERT INTO samples (tenant_id, appliance_id, from_at, to_at, metrics) VALUES ('bank', $1, $2, $3, $4)")
            .bind(BOX_A)
            .bind(to - 5 * MIN)
            .bind(to)
            .bind(packed)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

fn other_node() -> String {
    "b".repeat(32)
}

/// The first ticket's are a service's, the others' a machine's.
fn grounds(n: i64, (appliance, component, code): (&str, &str, &str), opened: i64, hostile: &str) -> serde_json::Value {
    let check = |attempt: u8, after: i64| {
        json!({ "check": "tcp-443", "kind": "tcp", "state": "down", "reason": "refused", "text": format!("connection refused 127.0.0.1:443{hostile}"),
                "took_ms": 3, "attempt": attempt, "at": opened - 21_000 + after })
    };
    let member = |id: &str, name: &str, state: &str, silent: bool| json!({ "appliance_id": id, "appliance_name": format!("{name}{hostile}"), "service": "vpn", "state": state, "silent": silent });
    match n {
        1 => json!({ "about": "service", "appliance_id": appliance, "service": "vpn", "found": "down",
            "seen": { "checks": [check(1, 0), check(2, 10_000), check(3, 20_000)], "last_known": "up", "lasted_ms": 20_000 },
            "group": { "name": "VPN", "needs": 1, "members": [member(BOX_A, "vpn-gw-01", "down", false), member(&other_node(), "vpn-gw-02", "unknown", true)] } }),
        _ => json!({ "about": "machine", "appliance_id": appliance, "component": component, "code": code, "level": "warning",
            "seen": { "value": 91.5, "unit": "percent", "threshold": 90.0, "lasted_ms": 300_000 }, "dependents": [], "services": [] }),
    }
}

/// 1: the pair down, critical, unanswered. 2: disk nearly full, answered. 3: the other customer's, overdue. 4: recovered.
async fn ticket(tx: &mut Conn, n: i64, hostile: &str) -> anyhow::Result<()> {
    let b = other_node();
    let (tenant, appliance, component, code, state, impact, reason, age) = match n {
        1 => ("bank", BOX_A, "service:vpn", "service_down", "open", "interrupted", "group_unsure", 12 * MIN),
        2 => ("bank", BOX_A, "disk:/var", "disk_space_low", "open", "slight", "services_up", 200 * MIN),
        3 => ("city", BOX_OTHER, "memory", "memory_low", "open", "slight", "no_service_declared", 41 * MIN),
        _ => ("bank", b.as_str(), "net:eth1", "link_down", "recovered", "slight", "services_up", 700 * MIN),
    };
    let (id, opened) = (format!("T-{n:06}"), NOW.0 - age);
    let grounds = grounds(n, (appliance, component, code), opened, hostile);
    let answered = (n == 2 || n == 4).then_some(opened + 7 * MIN);
    sqlx::query(
        "INSERT INTO tickets (tenant_id, ticket_id, number, source, state, cause, open_cause, site_id, appliance_id, component, code, summary,
           impact, severity, presumed, reason, grounds, attribution, taken_by, responded_by, opened_at, fault_at, responded_at, recovered_at, changed_at)
         VALUES ($1, $2, $3, 'agent', $4, $2, $2, 'main', $5, $6, $7, $8, $9, $10, $11, $12, $13, 'unknown', $14, $14, $15, $16, $17, $18, $15)",
    )
    .bind(tenant)
    .bind(&id)
    .bind(n)
    .bind(state)
    .bind(appliance)
    .bind(component)
    .bind(code)
    .bind(format!("service {component} is down: 127.0.0.1:443 refused the connection{hostile}"))
    .bind(impact)
    .bind(if impact == "interrupted" { "critical" } else { "general" })
    .bind(i64::from(n == 1 || n == 3))
    .bind(reason)
    .bind(grounds.to_string())
    .bind(answered.map(|_| "li"))
    .bind(opened)
    .bind(opened - 40_000)
    .bind(answered)
    .bind((n == 4).then_some(opened + 90 * MIN))
    .execute(&mut *tx)
    .await?;
    let (clock, due) = (
        if answered.is_some() {
            "met"
        } else if age > 30 * MIN {
            "missed"
        } else {
            "running"
        },
        opened + 30 * MIN,
    );
    sqlx::query(
        "INSERT INTO clocks (tenant_id, ticket_id, clock_no, kind, policy_version, state, started_at, warn_at, due_at, stopped_at)
         VALUES ($1, $2, 1, 'response', 1, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(&id)
    .bind(clock)
    .bind(opened)
    .bind(opened + 20 * MIN)
    .bind(due)
    .bind(answered)
    .execute(&mut *tx)
    .await?;
    episode(tx, n, (tenant, appliance), (component, code), (&id, opened), hostile).await?;
    story(tx, n, (tenant, &id), (impact, reason), (opened, due), answered, hostile).await
}

async fn episode(
    tx: &mut Conn,
    n: i64,
    (tenant, appliance): (&str, &str),
    (component, code): (&str, &str),
    (id, opened): (&str, i64),
    hostile: &str,
) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO episodes (tenant_id, appliance_id, component, code, episode, state, level, summary, grounds, ticket_id, raised_at,
           received_at, cleared_at) VALUES ($1, $2, $3, $4, $5, $6, 'serious', $7, '{}', $5, $8, $9, $10)",
    )
    .bind(tenant)
    .bind(appliance)
    .bind(component)
    .bind(code)
    .bind(id)
    .bind(if n == 4 { "cleared" } else { "open" })
    .bind(format!("127.0.0.1:443 refused the connection{hostile}"))
    .bind(opened - 40_000)
    .bind(opened)
    .bind((n == 4).then_some(opened + 90 * MIN))
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn story(
    tx: &mut Conn,
    n: i64,
    (tenant, id): (&str, &str),
    (impact, reason): (&str, &str),
    (opened, due): (i64, i64),
    answered: Option<i64>,
    hostile: &str,
) -> anyhow::Result<()> {
    let mut events = vec![
        (
            0,
            "system",
            json!({ "type": "opened", "impact": impact, "presumed": n == 1, "reason": reason, "summary": format!("127.0.0.1:443 refused the connection{hostile}"), "already_recovered": false }),
        ),
        (
            0,
            "system",
            json!({ "type": "clock_started", "clock_no": 1, "kind": "response", "policy_version": 1, "warn_at": opened + 20 * MIN, "due_at": due }),
        ),
        (4_000, "system", json!({ "type": "notice_sent", "kind": "opened", "recipient": format!("zhao@bank.example{hostile}") })),
    ];
    if n == 3 {
        events.push((30 * MIN, "system", json!({ "type": "clock_missed", "clock_no": 1, "kind": "response", "due_at": due })));
    }
    if let Some(at) = answered {
        events.push((5 * MIN, "staff:li", json!({ "type": "taken", "staff_id": "li", "name": "李伟" })));
        events.push((at - opened, "staff:li", json!({ "type": "responded", "staff_id": "li", "name": "李伟", "way": "phone", "note": format!("已电话联系赵敏。{hostile}") })));
        events.push((
            at - opened,
            "system",
            json!({ "type": "clock_stopped", "clock_no": 1, "kind": "response", "in_time": true, "took_ms": at - opened }),
        ));
    }
    for (after, actor, body) in events {
        audit::append(tx, tenant, UnixMs(opened + after), actor, &subject(id), &body).await?;
    }
    for (k, state, recipient) in
        [(1, "sent", "zhao@bank.example"), (2, "refused", "old@bank.example"), (3, "waiting", "li@vendor.example")]
    {
        sqlx::query(
            "INSERT INTO outbox (tenant_id, notice_id, subject_id, kind, channel, recipient, message_id, title, body, in_reply_to, state, tries,
               last_error, created_at, next_try_at, sent_at) VALUES ($1, $2, $3, 'opened', 'mail', $4, $2, '', '', '', $5, 1, $6, $7, NULL, $8)",
        )
        .bind(tenant)
        .bind(format!("{id}-{k}"))
        .bind(id)
        .bind(recipient)
        .bind(state)
        .bind(if state == "refused" { format!("550 no such user{hostile}") } else { String::new() })
        .bind(opened)
        .bind((state == "sent").then_some(opened + 4_000))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
