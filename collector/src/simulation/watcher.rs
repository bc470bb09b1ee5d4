//! The oracle while the story runs: every decision that the collector commits is compared with what it could know, every silence
//! with what was heard, and, whenever all has settled, what it holds with what is so.
//!
//! Test code only. It reads the event log and the tables; it asks no rule of the product.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::check::ServiceState;
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::deeds::millis;
use super::fleet::Fleet;
use super::knowledge::{Knowledge, Verdict, View};
use super::machine::Weather;
use super::office::SILENCE_AFTER;
use super::story::{Event, StaffDoes, Story};
use crate::customers::VENDOR_TENANT;

const MINUTE: i64 = 60_000;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    pub(super) problems: Vec<String>,
    /// The last event read of each tenant's chain.
    read_to: BTreeMap<String, i64>,
    change: i64,
    silences: BTreeSet<(String, String)>,
    /// Tickets that a person graded.
    graded: BTreeSet<String>,
    /// Machines that were put back to a snapshot, or copied: what was told meanwhile has no one left who could end it.
    pub(super) rewound: BTreeSet<usize>,
    kept: Option<(Knowledge, BTreeMap<String, i64>)>,
    /// What a restore took out of the collector's memory.
    pub(super) forgotten: Vec<(UnixMs, UnixMs)>,
    /// When the collector was down.
    downs: Vec<(UnixMs, UnixMs)>,
    down_since: Option<UnixMs>,
    pub(super) ended_at: UnixMs,
    /// How much was judged, so that a silent oracle is seen.
    pub(super) decisions: usize,
    pub(super) settlings: usize,
}

impl Watcher {
    pub(super) fn end(&mut self, now: UnixMs) {
        self.ended_at = now;
    }

    pub(super) fn went_down(&mut self, now: UnixMs) {
        self.down_since.get_or_insert(now);
    }

    pub(super) fn came_up(&mut self, now: UnixMs) {
        self.downs.extend(self.down_since.take().map(|since| (since, now)));
    }

    /// Whether the collector was down at any time between.
    pub(super) fn was_away(&self, from: UnixMs, to: UnixMs) -> bool {
        self.downs.iter().any(|(since, until)| *since <= to && *until >= from)
    }

    /// A backup is made.
    pub(super) fn remember(&mut self, knowledge: &Knowledge) {
        self.kept = Some((knowledge.clone(), self.read_to.clone()));
    }

    /// The backup comes back.
    pub(super) fn recall(&mut self, made_at: UnixMs, now: UnixMs) -> Knowledge {
        let (knowledge, read_to) = self.kept.take().expect("a backup was made");
        self.read_to = read_to;
        self.change = 0;
        self.forgotten.push((made_at, now));
        knowledge
    }
}

impl Story {
    pub(super) fn problem(&mut self, about: &str, what: String) {
        self.trace.note(self.now, format_args!("PROBLEM {about} {what}"));
        let tail = self.trace.tail(about, 40);
        self.watcher.problems.push(format!("{} {about} {what}\n{tail}", self.now));
    }

    /// After anything that the collector did: what it wrote is read and judged.
    pub(super) async fn after_office(&mut self) {
        if self.office.has_crashed() {
            self.trace.note(self.now, "the collector's power failed");
            self.watcher.went_down(self.now);
            return;
        }
        let Some(running) = &self.office.running else { return };
        if let Some((m, _, _)) = self.uncertain.first() {
            let name = self.fleet.places[*m].name.clone();
            self.uncertain.clear();
            self.problem(&name, "a message was not taken, though the power is on".into());
            return;
        }
        let started_at = running.started_at;
        let mut conn = running.world.db.read().await.expect("reads");
        let change: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(value), 0) FROM counters WHERE name = 'change'")
            .fetch_one(&mut *conn)
            .await
            .expect("reads");
        if change == self.watcher.change {
            return;
        }
        self.watcher.change = change;
        let mut events = Vec::new();
        for tenant in self.fleet.tenants.iter().map(String::as_str).chain([VENDOR_TENANT]) {
            let from = self.watcher.read_to.get(tenant).copied().unwrap_or_default();
            let rows = sqlx::query("SELECT seq, subject, kind, body FROM events WHERE tenant_id = $1 AND seq > $2 ORDER BY seq")
                .bind(tenant)
                .bind(from)
                .fetch_all(&mut *conn)
                .await
                .expect("reads");
            for row in rows {
                self.watcher.read_to.insert(tenant.to_owned(), row.get("seq"));
                let body: serde_json::Value = serde_json::from_str(row.get::<String, _>("body").as_str()).expect("JSON");
                events.push((tenant.to_owned(), row.get::<String, _>("subject"), row.get::<String, _>("kind"), body));
            }
        }
        drop(conn);
        let marked = self.marked().await;
        let view = self.knowledge.view(&self.fleet, self.now, self.heard_from().await, &marked);
        let worst = self.knowledge.settle(&view);
        for (tenant, subject, kind, body) in events {
            self.read(&tenant, &subject, &kind, &body, &worst).await;
        }
        self.judge_silences(started_at).await;
    }

    /// Since when silence counts: the collector's start, or the end of an outage that was its own.
    async fn heard_from(&self) -> UnixMs {
        let running = self.office.running.as_ref().expect("runs");
        let mut conn = running.world.db.read().await.expect("reads");
        UnixMs(sqlx::query_scalar("SELECT started_at FROM collector").fetch_one(&mut *conn).await.expect("reads"))
    }

    /// The machines whose silence a ticket holds.
    pub(super) async fn marked(&self) -> BTreeSet<usize> {
        let Some(running) = &self.office.running else { return BTreeSet::new() };
        let mut conn = running.world.db.read().await.expect("reads");
        let silent: Vec<String> =
            sqlx::query_scalar("SELECT appliance_id FROM episodes WHERE code = 'silent' AND state = 'open'")
                .fetch_all(&mut *conn)
                .await
                .expect("reads");
        silent.iter().filter_map(|id| self.fleet.position(id)).collect()
    }

    async fn read(&mut self, tenant: &str, subject: &str, kind: &str, body: &serde_json::Value, worst: &View) {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let line =
            ["impact", "to", "reason", "component", "code", "why", "in_time", "recipient"].map(|field| match &body[field] {
                serde_json::Value::Null => String::new(),
                value => format!(" {value}"),
            });
        if kind != "notice_sent" {
            self.trace.note(self.now, format_args!("{tenant} {subject} {kind}{}", line.concat()));
        }
        let Some(ticket) = subject.strip_prefix("ticket:").map(str::to_owned) else { return };
        let already_recovered = body["already_recovered"].as_bool().unwrap_or_default();
        match kind {
            "opened" | "reopened" if !already_recovered => {
                self.stay_awake(2 * MINUTE);
                let (respond, lower) = (self.rng.between(MINUTE, 50 * MINUTE), self.rng.between(5 * MINUTE, 60 * MINUTE));
                let late = self.rng.between(2 * 60 * MINUTE, 30 * 60 * MINUTE);
                let respond = if self.rng.chance(12) { late } else { respond };
                self.after(respond, Event::Staff(ticket.clone(), StaffDoes::Respond));
                if self.rng.chance(8) {
                    self.after(lower, Event::Staff(ticket.clone(), StaffDoes::LowerImpact));
                }
            }
            "recovered" if self.rng.chance(30) => {
                let confirm = self.rng.between(5 * MINUTE, 600 * MINUTE);
                self.after(confirm, Event::Staff(ticket.clone(), StaffDoes::Confirm));
            }
            "impact_changed" if text("reason") == "human_answer" => drop(self.watcher.graded.insert(ticket.clone())),
            _ => {}
        }
        let impact = if kind == "opened" { text("impact") } else { text("to") };
        let is_decision = matches!(kind, "opened" | "impact_changed") && text("reason") != "human_answer";
        if is_decision && impact == "interrupted" {
            let presumed = body["presumed"].as_bool().unwrap_or_default();
            self.justify(tenant, &ticket, presumed, worst).await;
        }
    }

    /// A ticket became critical: something known at that time must say so, and for certain if it was not presumed.
    async fn justify(&mut self, tenant: &str, ticket: &str, presumed: bool, worst: &View) {
        self.watcher.decisions += 1;
        let episodes = self.episodes(tenant, ticket, false).await;
        let verdict = episodes
            .iter()
            .map(|(m, component, code)| self.knowledge.judge(&self.fleet, worst, *m, component, code))
            .max()
            .unwrap_or(Verdict::GoesOn);
        let needed = if presumed { Verdict::Presumed } else { Verdict::Certain };
        if verdict < needed {
            let name = format!("{ticket} of {tenant}");
            self.problem(
                ticket,
                format!("{name} is critical (presumed: {presumed}), but what was known says {verdict:?}: {episodes:?} {worst:?}"),
            );
        }
    }

    /// A ticket's episodes: machine, component, code.
    async fn episodes(&self, tenant: &str, ticket: &str, only_open: bool) -> Vec<(usize, String, String)> {
        let Some(running) = &self.office.running else { return Vec::new() };
        let mut conn = running.world.db.read().await.expect("reads");
        let rows = sqlx::query(
            "SELECT appliance_id, component, code, state FROM episodes WHERE tenant_id = $1 AND ticket_id = $2
             ORDER BY received_at, appliance_id, component, code",
        )
        .bind(tenant)
        .bind(ticket)
        .fetch_all(&mut *conn)
        .await
        .expect("reads");
        rows.iter()
            .filter(|row| !only_open || row.get::<String, _>("state") == "open")
            .filter_map(|row| {
                Some((self.fleet.position(row.get::<String, _>("appliance_id").as_str())?, row.get("component"), row.get("code")))
            })
            .collect()
    }

    /// Hours after all is well: only what a machine that was put back cannot end may still be open, and a manager closes it.
    pub(super) async fn clear_up(&mut self) {
        let Some(running) = &self.office.running else { return };
        let mut conn = running.world.db.read().await.expect("reads");
        let rows = sqlx::query("SELECT tenant_id, ticket_id, source FROM tickets WHERE state = 'open' ORDER BY number")
            .fetch_all(&mut *conn)
            .await
            .expect("reads");
        drop(conn);
        for row in rows {
            let (tenant, ticket, source): (String, String, String) =
                (row.get("tenant_id"), row.get("ticket_id"), row.get("source"));
            let open = self.episodes(&tenant, &ticket, true).await;
            if source != "human" && !open.iter().any(|(m, _, _)| self.watcher.rewound.contains(m)) {
                self.problem(&ticket, format!("{ticket} of {tenant} is open three hours after all is well: {open:?}"));
            }
            self.after(MINUTE, Event::Staff(ticket, StaffDoes::CloseAnyway));
        }
    }

    /// Nobody is called silent who was heard lately, said goodbye, or is off by its hours; nor soon after the collector's start.
    async fn judge_silences(&mut self, started_at: UnixMs) {
        let Some(running) = &self.office.running else { return };
        let mut conn = running.world.db.read().await.expect("reads");
        let rows =
            sqlx::query("SELECT appliance_id, episode, received_at FROM episodes WHERE code = 'silent' AND state = 'open'")
                .fetch_all(&mut *conn)
                .await
                .expect("reads");
        drop(conn);
        for row in rows {
            let (appliance, episode): (String, String) = (row.get("appliance_id"), row.get("episode"));
            if !self.watcher.silences.insert((appliance.clone(), episode)) {
                continue;
            }
            let m = self.fleet.position(&appliance).expect("a known appliance");
            let name = self.fleet.places[m].name.clone();
            // Written just before a power failure, it is read only after the next start.
            let said_at = UnixMs(row.get("received_at"));
            if said_at >= started_at && said_at.since_ms(started_at) < 2 * millis(SILENCE_AFTER) {
                self.problem(&name, "called silent soon after the collector's own start".into());
            }
            let known = &self.knowledge.machines[m];
            let unheard_ms = said_at.since_ms(known.last_heard.unwrap_or_default());
            let excused = match known.goodbye {
                None => false,
                Some(None) => true,
                Some(Some(back_at)) => said_at <= back_at.plus(SILENCE_AFTER),
            };
            if unheard_ms <= millis(SILENCE_AFTER) / 2 {
                self.problem(&name, format!("called silent, but heard {unheard_ms} ms ago"));
            }
            if excused || is_off_hours(&self.fleet, m, said_at) {
                self.problem(&name, "called silent, though it said goodbye or is off by its hours".into());
            }
        }
    }

    /// All has settled: what the collector holds is what is so.
    pub(super) async fn check_settled(&mut self) {
        let Some(running) = &self.office.running else { return };
        let (world, started_at) = (running.world.clone(), running.started_at);
        if self.now.since_ms(started_at) < 18 * MINUTE {
            return;
        }
        self.watcher.settlings += 1;
        let marked = self.marked().await;
        let mut conn = world.db.read().await.expect("reads");
        // After a silence that was ours everybody has the time that they have after a start.
        let recently = self.now.plus_ms(-18 * MINUTE).0;
        let ours = "SELECT COUNT(*) FROM episodes WHERE code = 'mass_silence' AND (state = 'open' OR cleared_at > $1)";
        let ours: i64 = sqlx::query_scalar(ours).bind(recently).fetch_one(&mut *conn).await.expect("reads");
        let open = sqlx::query(
            "SELECT tenant_id, ticket_id, severity FROM tickets WHERE state = 'open' AND source <> 'human' ORDER BY number",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("reads");
        drop(conn);
        for m in 0..self.fleet.places.len() {
            self.check_machine(m, ours > 0, &marked);
        }
        let view = self.knowledge.view(&self.fleet, self.now, self.heard_from().await, &marked);
        for row in open {
            let (tenant, ticket, severity): (String, String, String) =
                (row.get("tenant_id"), row.get("ticket_id"), row.get("severity"));
            if severity == "critical" || self.watcher.graded.contains(&ticket) || ours > 0 {
                continue;
            }
            for (m, component, code) in self.episodes(&tenant, &ticket, true).await {
                let verdict = self.knowledge.judge(&self.fleet, &view, m, &component, &code);
                if verdict > Verdict::GoesOn {
                    let of = &self.fleet.places[m].name;
                    let what = format!(
                        "{ticket} is general, but {component} {code} of {of} interrupts business ({verdict:?}): {view:?}"
                    );
                    self.problem(&tenant, what);
                }
            }
        }
    }

    fn check_machine(&mut self, m: usize, ours: bool, marked: &BTreeSet<usize>) {
        let (name, known) = (self.fleet.places[m].name.clone(), self.knowledge.machines[m].clone());
        let heard_ago = self.now.since_ms(known.last_heard.unwrap_or_default());
        if self.machines[m].run.is_some() && self.machines[m].weather == Weather::Good {
            if heard_ago > 2 * MINUTE {
                self.problem(&name, format!("speaks, and was last heard {heard_ago} ms ago"));
            }
            if marked.contains(&m) {
                self.problem(&name, "is heard, and a ticket still calls it silent".into());
            }
            let states: Vec<ServiceState> = self.machines[m].states.clone();
            for (at, service) in self.fleet.places[m].services.clone().iter().enumerate() {
                let told = self.knowledge.told_state(m, service);
                if told != states[at] && !self.watcher.rewound.contains(&m) {
                    self.problem(&name, format!("{service} is {:?}, and the collector was told {told:?}", states[at]));
                }
            }
            return;
        }
        let overdue = match known.goodbye {
            None => true,
            Some(None) => false,
            Some(Some(back_at)) => self.now > back_at.plus(SILENCE_AFTER).plus_ms(MINUTE),
        };
        let expected = known.last_heard.is_some() && heard_ago > 16 * MINUTE && overdue && !self.fleet.places[m].hours;
        if expected && !ours && !marked.contains(&m) {
            self.problem(&name, format!("was last heard {heard_ago} ms ago, and no ticket says so"));
        }
    }
}

fn is_off_hours(fleet: &Fleet, m: usize, now: UnixMs) -> bool {
    // Shanghai is UTC+8 all year; on from 07:00 to 20:00.
    let minute = (now.0 / MINUTE + 8 * 60).rem_euclid(24 * 60);
    fleet.places[m].hours && !(7 * 60..20 * 60).contains(&minute)
}
