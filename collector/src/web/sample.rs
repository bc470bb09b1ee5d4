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
use crate::config::Config;
use crate::customers::store::{Secrets, add_contact, add_customer, add_site, add_staff};
use crate::customers::{Contact, Customer, Language, Role, Site, Staff, VENDOR_TENANT, credentials};
use crate::db::{Conn, Db, Turn, transact};
use crate::flow::World;

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

mod tickets;

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
        releases: None,
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
        repository: None,
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
            tickets::ticket(tx, n, hostile).await?;
        }
        Ok(())
    });
    Ok(())
}

/// A verified file in the repository, that fits [`BOX_A`].
pub(crate) async fn release(world: &World) -> anyhow::Result<()> {
    let file = crate::releases::rules::tests::sample_file("2.1.0");
    let told = mainstay_shared::patch::Installed {
        product: "acme-gateway".into(),
        version: "2.0.0".into(),
        hardware: "gw-2000".into(),
        patch_consent: "local".into(),
        action_consent: "local".into(),
    };
    transact!(world.db, Turn::Console, |tx| {
        crate::releases::files::put(tx, &file, NOW).await?;
        let (what, why) = (crate::releases::problems::What::MetadataRefused, "not signed as it must be: 1 of 2");
        let problem = crate::releases::problems::Problem::new(what, "7.targets.json", why);
        crate::releases::problems::put(tx, &problem, NOW).await?;
        crate::releases::reports::set_installed(tx, ("bank", BOX_A), &told, NOW).await?;
        Ok(())
    });
    Ok(())
}

/// The file offered to [`BOX_A`], which told of it in these words.
pub(crate) async fn patched(world: &World, words: &str) -> anyhow::Result<()> {
    use crate::flow::{faults_arrive::ArrivedFrom, file_is_offered, patch_is_reported::patch_is_reported};
    release(world).await?;
    let wish = file_is_offered::Wish {
        file: "acme-gateway-2.1.0.mpatch".into(),
        appliances: vec![BOX_A.into()],
        ticket_id: "T-000001".into(),
        ..Default::default()
    };
    let li = crate::flow::testing::staff("li", Role::SystemEngineer);
    file_is_offered::offer(world, &li, None, &wish).await?.map_err(anyhow::Error::from)?;
    let who = ArrivedFrom { tenant_id: "bank".into(), appliance_id: BOX_A.into(), site_id: "main".into() };
    let report = mainstay_shared::patch::PatchReport {
        number: 1,
        offer_id: None,
        sha256: "5".repeat(64),
        kind: mainstay_shared::patch::PatchKind::Patch,
        product: "acme-gateway".into(),
        from_version: Some("2.0.0".into()),
        to_version: "2.1.0".into(),
        step: mainstay_shared::patch::PatchStep::Refused,
        reason: "unhealthy_before".into(),
        detail: words.into(),
        output: words.into(),
    };
    transact!(world.db, Turn::Intake, |tx| {
        let way = crate::releases::reports::Way::Receipt;
        patch_is_reported(tx, &world.config, &who, &report, way, (NOW, NOW)).await
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
