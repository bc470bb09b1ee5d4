//! Deeds done to the world, acts of the staff, looks at the time: what a story's events mean.
//!
//! Test code only. The stories of the product are called as the program's listeners and periods call them.

use std::time::Duration;

use mainstay_shared::severity::BusinessImpact;
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::incidents::Deed;
use super::machine::Weather;
use super::office::CLOSE_AFTER;
use super::story::{Event, StaffDoes, Story, Unsure};
use crate::customers::Role;
use crate::db::testing::TestDb;
use crate::flow::appliance_acts::{self, ApplianceAct};
use crate::flow::staff_acts::{CustomerRequest, act, open_for_customer};
use crate::flow::testing::staff;
use crate::tickets::ResponseWay;
use crate::tickets::acts::{Act, By};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

impl Story {
    pub(super) async fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Service(m, service, state) => {
                self.machines[m].states[service] = state;
                self.watch(m);
            }
            Deed::Disk(m, percent) => {
                self.machines[m].disk_percent = percent;
                self.measure(m);
            }
            Deed::Way(m, weather) => {
                self.machines[m].weather = weather;
                self.report_soon(m);
            }
            Deed::Goodbye(m, reason) => self.goodbye(m, reason).await,
            Deed::PowerLoss(m) => {
                self.machines[m].kill();
                self.machines[m].powered = false;
            }
            Deed::AgentCrash(m) => self.machines[m].kill(),
            Deed::Boot(m, error_ms) if !self.machines[m].powered => {
                self.machines[m].wall_error_ms = self.error(error_ms);
                let kind = self.machines[m].boot(self.now).await;
                self.trace.note(self.now, format_args!("{} boots: {kind:?}", self.machines[m].place.name));
                self.has_started(m);
            }
            Deed::AgentStart(m) if self.machines[m].powered && self.machines[m].run.is_none() => self.start_agent(m).await,
            Deed::Boot(..) | Deed::AgentStart(_) => {}
            Deed::Jump(m, error_ms) => {
                let (now, error_ms) = (self.now, self.error(error_ms));
                self.machines[m].wall_error_ms = error_ms;
                if let Some(run) = self.machines[m].run.as_mut() {
                    run.advance(now);
                    run.time.set_wall(now.plus_ms(error_ms));
                }
                self.measure(m);
            }
            Deed::Snapshot(m) => {
                self.machines[m].snapshot();
                self.snapshot_at[m] = Some(self.now);
            }
            Deed::Rewind(m) => {
                if let Some(taken_at) = self.snapshot_at[m].take() {
                    self.machines[m].rewind(taken_at);
                    self.machines[m].boot(self.now).await;
                    self.watcher.rewound.insert(m);
                    self.has_started(m);
                }
            }
            Deed::Release(m) => self.release(m).await,
            Deed::CollectorCrash => {
                self.office.kill();
                self.watcher.went_down(self.now);
            }
            Deed::CollectorCrashAt(half_commit) => self.office.will_crash_at(half_commit),
            Deed::CollectorStart => self.collector_starts().await,
            Deed::Backup => {
                self.office.back_up(self.now).await;
                self.watcher.remember(&self.knowledge);
            }
            Deed::Restore => self.restore().await,
            Deed::MailServer { away } => self.office.mails.away = away,
            Deed::Call(m) => self.customer_calls(m).await,
        }
    }

    /// The wall clock's error; the smallest number stands for a clock that begins at 1970.
    fn error(&self, error_ms: i64) -> i64 {
        if error_ms == i64::MIN { -self.now.0 } else { error_ms }
    }

    fn watch(&mut self, m: usize) {
        self.watched_until[m] = self.now.0 + 21 * MINUTE;
        let Some(run) = self.machines[m].run.as_mut().filter(|run| !run.rounds_under_way) else { return };
        run.rounds_under_way = true;
        let no = run.no;
        for service in 0..self.machines[m].states.len() {
            let phase = self.rng.between(0, MINUTE);
            self.after(phase, Event::Round(m, no, service));
        }
    }

    fn measure(&mut self, m: usize) {
        self.measured_until[m] = self.now.0 + 7 * MINUTE;
        let Some(run) = self.machines[m].run.as_mut().filter(|run| !run.measures_under_way) else { return };
        run.measures_under_way = true;
        let no = run.no;
        self.after(SECOND, Event::Measure(m, no));
    }

    fn has_started(&mut self, m: usize) {
        self.watch(m);
        self.measure(m);
        self.report_soon(m);
    }

    pub(super) async fn start_agent(&mut self, m: usize) {
        let kind = self.machines[m].start(self.now).await;
        self.trace.note(self.now, format_args!("{} agent starts: {kind:?}", self.machines[m].place.name));
        self.has_started(m);
    }

    async fn goodbye(&mut self, m: usize, reason: &str) {
        let Some(run) = self.machines[m].run.as_ref().map(|run| run.no) else { return };
        self.machines[m].say_goodbye(self.now, reason, (reason == "reboot").then_some(10 * MINUTE)).await;
        if reason != "stop" {
            self.machines[m].powered = false;
        }
        self.report_soon(m);
        self.after(3 * SECOND, Event::Off(m, run));
    }

    async fn release(&mut self, m: usize) {
        let (place, now) = (self.fleet.places[m].clone(), self.now);
        let Some(running) = &self.office.running else { return };
        running.advance(now);
        let release = ApplianceAct::Release { why: "one machine".into() };
        let acted = appliance_acts::act(&running.world, "staff:op", (&place.tenant, place.appliance.as_str()), &release).await;
        self.trace.note(now, format_args!("release of {}: {:?}", place.name, acted.ok()));
        self.after_office().await;
    }

    async fn collector_starts(&mut self) {
        if self.office.running.is_some() {
            self.office.will_crash_at(0);
            return;
        }
        self.office.start(self.now).await;
        self.watcher.came_up(self.now);
        for (m, message, at) in std::mem::take(&mut self.uncertain) {
            self.was_it_committed(m, &message, at).await;
        }
        self.after_office().await;
        for m in 0..self.machines.len() {
            if self.machines[m].weather != Weather::Away {
                self.report_soon(m);
            }
        }
    }

    /// The power failed around a commit; only the database knows on which side.
    async fn was_it_committed(&mut self, m: usize, message: &Unsure, at: UnixMs) {
        let Some(running) = &self.office.running else { return };
        let mut conn = running.world.db.read().await.expect("reads");
        let row = sqlx::query(
            "SELECT l.epoch, l.attempt, l.last_seen_at, a.state FROM links l
             JOIN appliances a ON a.appliance_id = l.appliance_id WHERE l.appliance_id = $1",
        )
        .bind(self.fleet.places[m].appliance.as_str())
        .fetch_one(&mut *conn)
        .await
        .expect("a link");
        let (epoch, attempt, seen_at): (String, i64, i64) = (row.get("epoch"), row.get("attempt"), row.get("last_seen_at"));
        let held = row.get::<String, _>("state") == "held";
        drop(conn);
        match message {
            Unsure::Report(request) => {
                if epoch == request.epoch.as_str()
                    && u64::try_from(attempt).expect("positive") == request.attempt
                    && seen_at == at.0
                {
                    self.knowledge.report_taken(&self.fleet, m, request, at, held);
                }
            }
            Unsure::Heartbeat(request) => {
                if seen_at == at.0 {
                    self.knowledge.heartbeat_taken(m, request, at);
                }
            }
        }
    }

    async fn restore(&mut self) {
        let Some(made_at) = self.office.backup_at.take() else { return };
        let fresh = if self.on_postgres { TestDb::postgres().await } else { TestDb::sqlite_in(&self.home).await };
        self.office.restore(self.now, fresh).await;
        self.watcher.went_down(self.now);
        self.knowledge = self.watcher.recall(made_at, self.now);
        self.uncertain.clear();
    }

    async fn customer_calls(&mut self, m: usize) {
        let (place, now) = (self.fleet.places[m].clone(), self.now);
        let impact = self.rng.pick(&[BusinessImpact::Slight, BusinessImpact::Severe, BusinessImpact::Interrupted]);
        let Some(running) = &self.office.running else { return };
        running.advance(now);
        let request = CustomerRequest {
            tenant_id: place.tenant.clone(),
            site_id: place.site.clone(),
            appliance_id: place.appliance.to_string(),
            summary: "the counter hall is slow".into(),
            impact,
        };
        let opened = open_for_customer(&running.world, &staff("wang", Role::SystemEngineer), request).await;
        self.check_error("a call", opened.map(drop));
        self.after_office().await;
    }

    pub(super) async fn staff(&mut self, ticket: &str, does: StaffDoes) {
        let now = self.now;
        let respond = Act::Respond { way: ResponseWay::Phone, note: "called".into() };
        let acts: Vec<(By, Act)> = match does {
            StaffDoes::Respond => vec![(staff("wang", Role::SystemEngineer), respond)],
            StaffDoes::LowerImpact => {
                let lower = Act::ChangeImpact {
                    to: BusinessImpact::Slight,
                    why: "a test system".into(),
                    customer_word: "Mr Li: fine".into(),
                };
                vec![(staff("zhao", Role::SupportManager), lower)]
            }
            StaffDoes::Confirm => vec![(staff("wang", Role::SystemEngineer), Act::Close { why: "confirmed".into() })],
            StaffDoes::CloseAnyway => vec![
                (staff("qian", Role::ServiceManager), respond),
                (staff("qian", Role::ServiceManager), Act::Close { why: "the machine was put back".into() }),
            ],
        };
        for (by, one) in acts {
            let Some(running) = &self.office.running else {
                self.after(HOUR, Event::Staff(ticket.to_owned(), does));
                return;
            };
            running.advance(now);
            let acted = act(&running.world, &by, ticket, one).await;
            let told = acted.as_ref().map(|inner| inner.as_ref().map(drop).map_err(crate::tickets::acts::Refused::word));
            self.trace.note(now, format_args!("{ticket} staff {does:?}: {:?}", told.ok()));
            self.check_error("an act", acted.map(drop));
            self.after_office().await;
        }
    }

    /// The collector looks at the time, and its notices go out.
    pub(super) async fn look(&mut self, rested: bool) {
        let looked = self.office.look(self.now, rested).await;
        self.check_error("a look at the time", looked);
        let sent = self.office.send_mail(self.now, &mut self.rng).await;
        self.check_error("sending mail", sent);
        self.after_office().await;
    }

    /// An error is right only where the power failed.
    pub(super) fn check_error(&mut self, what: &str, outcome: anyhow::Result<()>) {
        let off = self.office.running.as_ref().is_none_or(|running| running.world.db.power.is_off());
        if let (Err(error), false) = (outcome, off) {
            self.problem("", format!("{what} failed: {error:#}"));
        }
    }

    /// When the collector itself next has something to do.
    pub(super) async fn next_due(&self) -> Option<i64> {
        let running = self.office.running.as_ref()?;
        let mut conn = running.world.db.read().await.expect("reads");
        let mut due: Vec<Option<i64>> = Vec::new();
        for sql in [
            "SELECT MIN(next_at) FROM clocks WHERE state = 'running'",
            "SELECT MIN(next_try_at) FROM outbox WHERE state = 'waiting'",
        ] {
            due.push(sqlx::query_scalar(sql).fetch_one(&mut *conn).await.expect("reads"));
        }
        let recovered: Option<i64> = sqlx::query_scalar("SELECT MIN(recovered_at) FROM tickets WHERE state = 'recovered'")
            .fetch_one(&mut *conn)
            .await
            .expect("reads");
        due.push(recovered.map(|at| at + millis(CLOSE_AFTER)));
        due.into_iter().flatten().min()
    }
}

pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).expect("a short span")
}
