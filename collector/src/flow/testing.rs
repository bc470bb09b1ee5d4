//! A small vendor with customers for the stories' tests: real database, a clock moved by hand. Test code only.

use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{Epoch, Lane, RecordId};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use super::World;
use super::faults_arrive::{ArrivedChange, ArrivedFrom, faults_arrive};
use crate::config::Config;
use crate::customers::{Language, Role};
use crate::db::{Db, Turn, transact};
use crate::tickets::acts::By;
use crate::tickets::{Ticket, TicketEvent, store as tickets};

/// When the tests begin: 2026-01-05 08:00 UTC, a Monday.
pub(crate) const START: UnixMs = UnixMs(1_767_600_000_000);

/// The vendor, with a hand on its clock.
pub(crate) struct Stage {
    pub(crate) world: World,
    epoch: Epoch,
    seq: std::sync::atomic::AtomicU64,
}

/// The settings of a collector under test.
pub(crate) fn config() -> Config {
    Config {
        service_name: "Mainstay".into(),
        language: Language::Zh,
        data_dir: "/nowhere".into(),
        database_url: "sqlite:nowhere".into(),
        agents_listen: "127.0.0.1:0".parse().expect("an address"),
        agents_addresses: vec!["https://127.0.0.1:1".into()],
        web_listen: "127.0.0.1:0".parse().expect("an address"),
        web_public_url: "http://127.0.0.1:2".into(),
        web_tls: None,
        mail: None,
        watch: None,
        releases: None,
        silence_after: Duration::from_secs(300),
        flap_window: Duration::from_secs(900),
        close_recovered_after: Duration::from_secs(24 * 3600),
        log_json: false,
    }
}

impl Stage {
    /// A collector that started long enough ago.
    pub(crate) async fn new(db: Db) -> Self {
        let stage = Self::on(db);
        stage.run("INSERT INTO customers (tenant_id, name, language, created_at) VALUES ('vendor', 'Vendor', 'zh', 0)").await;
        stage.run("INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, 'e', 0, 0)").await;
        stage
    }

    /// Another node on the same database.
    pub(crate) fn on(db: Db) -> Self {
        let (_, changes) = watch::channel(0);
        let rng = SystemRandom::new();
        let epoch = Epoch::random(&rng);
        let world = World {
            config: Arc::new(config()),
            db,
            time: TimeSource::manual(START),
            rng,
            changes,
            look_now: Arc::new(Notify::new()),
            repository: None,
        };
        Self { world, epoch, seq: 0.into() }
    }

    async fn try_run(&self, sql: String) -> anyhow::Result<()> {
        transact!(self.world.db, Turn::Console, |tx| {
            sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *tx).await?;
            Ok(())
        });
        Ok(())
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) {
        self.try_run(sql.into()).await.expect("runs");
    }

    /// A customer with a site and these appliances, each heard now and carrying these services.
    pub(crate) async fn customer(&self, tenant: &str, appliances: &[(&str, &[&str])]) {
        let now = self.world.time.now().0;
        self.run(format!(
            "INSERT INTO customers (tenant_id, name, language, created_at) VALUES ('{tenant}', '{tenant}', 'zh', 0)"
        ))
        .await;
        self.run(format!(
            "INSERT INTO sites (tenant_id, site_id, name, city, time_zone) VALUES ('{tenant}', 'hall', 'Hall', '重庆', 'Asia/Shanghai')"
        ))
        .await;
        for (appliance, services) in appliances {
            self.run(format!(
                "INSERT INTO appliances (tenant_id, appliance_id, site_id, name, product, vendor, model, serial, duty, parts,
                   agent_version, platform, state, held_reason, enrol_attempt, expected_hours, enrolled_at)
                 VALUES ('{tenant}', '{appliance}', 'hall', '{appliance}', 'fw', '', '', '', 'primary', '[]', '', '', 'active', '', '', '', 0)"
            ))
            .await;
            self.run(format!(
                "INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before,
                   clock_offset_ms, backlog, present_values, services, goodbye_reason)
                 VALUES ('{tenant}', '{appliance}', {now}, 'e', 0, '', '', 0, 0, '', '', '')"
            ))
            .await;
            for service in *services {
                self.run(format!(
                    "INSERT INTO declared_services (tenant_id, appliance_id, service, title, depends_on, interval_s, declared_at)
                     VALUES ('{tenant}', '{appliance}', '{service}', '', '[\"disk:/var\"]', 60, 0)"
                ))
                .await;
            }
        }
    }

    /// "Needs k of these", all carrying `service`.
    pub(crate) async fn group(&self, tenant: &str, needs: u32, service: &str, appliances: &[&str]) {
        self.run(format!(
            "INSERT INTO service_groups (tenant_id, group_id, name, needs) VALUES ('{tenant}', 'pair', 'Pair', {needs})"
        ))
        .await;
        for appliance in appliances {
            self.run(format!(
                "INSERT INTO service_group_members (tenant_id, group_id, appliance_id, service) VALUES ('{tenant}', 'pair', '{appliance}', '{service}')"
            ))
            .await;
        }
    }

    /// Every appliance was heard just now, but those named.
    pub(crate) async fn heard_but(&self, silent: &[&str]) {
        let names = silent.iter().map(|name| format!("'{name}'")).chain(["''".to_owned()]).collect::<Vec<_>>().join(", ");
        self.run(format!("UPDATE links SET last_seen_at = {} WHERE appliance_id NOT IN ({names})", self.world.time.now().0))
            .await;
    }

    pub(crate) fn later(&self, seconds: u64) {
        self.world.time.advance(Duration::from_secs(seconds));
    }

    /// A record of a fault that begins.
    pub(crate) fn raised(&self, component: &str, code: &str) -> ArrivedChange {
        self.change(FaultChangeKind::Raised, component, code, None)
    }

    /// The record of its end.
    pub(crate) fn cleared(&self, raise: &ArrivedChange) -> ArrivedChange {
        let key = &raise.change.key;
        self.change(FaultChangeKind::Cleared, &key.component, &key.code, Some(raise.record.clone()))
    }

    /// Any record.
    pub(crate) fn change(&self, kind: FaultChangeKind, component: &str, code: &str, episode: Option<RecordId>) -> ArrivedChange {
        let seq = self.seq.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let now = self.world.time.now();
        ArrivedChange {
            record: RecordId { epoch: self.epoch.clone(), lane: Lane::Fault, seq },
            occurred_at: now,
            change: FaultChange {
                kind,
                key: FaultKey::new(component, code),
                episode,
                level: Level::Serious,
                summary: format!("{component} {code}"),
                grounds: FaultGrounds::default(),
                at: now,
                present_at_start: false,
            },
        }
    }

    /// A report arrives.
    pub(crate) async fn arrive(&self, tenant: &str, appliance: &str, changes: &[ArrivedChange]) {
        self.try_arrive(tenant, appliance, changes).await.expect("arrives");
    }

    pub(crate) async fn try_arrive(&self, tenant: &str, appliance: &str, changes: &[ArrivedChange]) -> anyhow::Result<()> {
        let who = ArrivedFrom { tenant_id: tenant.into(), appliance_id: appliance.into(), site_id: "hall".into() };
        let now = self.world.time.now();
        transact!(self.world.db, Turn::Intake, |tx| { faults_arrive(tx, &self.world.config, now, &who, changes.to_vec()).await });
        Ok(())
    }

    /// A customer's tickets, oldest first.
    pub(crate) async fn tickets(&self, tenant: &str) -> Vec<Ticket> {
        let filter = tickets::Filter { tenant_id: Some(tenant.into()), ..tickets::Filter::default() };
        let mut conn = self.world.db.read().await.expect("reads");
        let mut found = tickets::list(&mut conn, &filter, None, 100).await.expect("lists");
        found.reverse();
        found
    }

    /// The kinds of a ticket's events, in order.
    pub(crate) async fn story(&self, ticket: &Ticket) -> Vec<String> {
        let mut conn = self.world.db.read().await.expect("reads");
        let timeline = tickets::timeline(&mut conn, &ticket.tenant_id, &ticket.ticket_id).await.expect("reads");
        timeline.iter().map(|entry| kind(&entry.event)).collect()
    }
}

fn kind(event: &TicketEvent) -> String {
    let json = serde_json::to_value(event).expect("serialises");
    json["type"].as_str().expect("a type").to_owned()
}

/// Somebody of the staff.
pub(crate) fn staff(name: &str, role: Role) -> By {
    By { actor: format!("staff:{name}"), staff_id: name.into(), name: name.into(), role }
}
