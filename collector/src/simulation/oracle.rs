//! The oracle at the end of a story (TRUST): every accepted fault exactly one event and one ticket, joined only by a documented
//! cause; clocks as the log proves them and told once, in time; one notice per change and person; chains whole; losses counted.
//!
//! Test code only.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::fleet::Fleet;
use super::story::Story;
use crate::audit::{self, Verdict};
use crate::customers::VENDOR_TENANT;
use crate::flow::explain;
use crate::tickets::{Ticket, TicketEvent, TicketState, store as tickets};

const MINUTE: i64 = 60_000;

/// From when to when a ticket was open.
type Life = (UnixMs, UnixMs, String);

/// An episode's row.
struct Row {
    m: Option<usize>,
    component: String,
    code: String,
    episode: String,
    open: bool,
    ticket: (String, String),
    told_at: UnixMs,
}

impl Story {
    /// All that is wrong is noted as problems. Answers how many faults were accepted and judged.
    pub(super) async fn check_end(&mut self) -> usize {
        let rows = self.rows().await;
        let judged = self.every_accepted_fault_is_one_event(&rows);
        self.joined_only_by_documented_causes(&rows).await;
        let tickets = self.all_tickets().await;
        for ticket in &tickets {
            self.clocks_are_right(ticket).await;
            if ticket.state != TicketState::Closed {
                self.problem(&ticket.ticket_id, format!("{} is {:?} though all is well", ticket.ticket_id, ticket.state));
            }
        }
        self.no_two_lived_for_one_cause(&tickets).await;
        self.notices_were_sent_once().await;
        self.chains_are_whole().await;
        self.losses_are_counted().await;
        judged
    }

    async fn rows(&self) -> Vec<Row> {
        let running = self.office.running.as_ref().expect("the collector runs in the end");
        let mut conn = running.world.db.read().await.expect("reads");
        let rows = sqlx::query("SELECT * FROM episodes ORDER BY received_at, appliance_id, component, code, episode")
            .fetch_all(&mut *conn)
            .await
            .expect("reads");
        rows.iter()
            .map(|row| {
                let grounds: serde_json::Value = serde_json::from_str(row.get::<String, _>("grounds").as_str()).expect("JSON");
                let lasted_ms = grounds["lasted_ms"].as_i64().unwrap_or_default();
                Row {
                    m: self.fleet.position(row.get::<String, _>("appliance_id").as_str()),
                    component: row.get("component"),
                    code: row.get("code"),
                    episode: row.get("episode"),
                    open: row.get::<String, _>("state") == "open",
                    ticket: (row.get("tenant_id"), row.get("ticket_id")),
                    told_at: UnixMs(row.get::<i64, _>("raised_at") + lasted_ms),
                }
            })
            .collect()
    }

    async fn all_tickets(&self) -> Vec<Ticket> {
        let running = self.office.running.as_ref().expect("runs");
        let mut conn = running.world.db.read().await.expect("reads");
        tickets::list(&mut conn, &tickets::Filter::default(), None, 100_000).await.expect("lists")
    }

    fn every_accepted_fault_is_one_event(&mut self, rows: &[Row]) -> usize {
        let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            *by_id.entry(row.episode.as_str()).or_default() += 1;
        }
        let (mut judged, mut wrong) = (0, Vec::new());
        for (m, machine) in self.machines.iter().enumerate() {
            for accepted in machine.accepted.iter().filter(|accepted| !accepted.rewound) {
                let forgotten = self.watcher.forgotten.iter().any(|(from, to)| {
                    let delivered_from = from.plus_ms(-4 * 86_400_000);
                    let over_before = accepted.cleared_at.is_some_and(|at| at <= *to);
                    over_before && accepted.cleared_at.is_some_and(|at| at >= delivered_from)
                });
                let id = accepted.episode.to_string();
                let count = by_id.get(id.as_str()).copied().unwrap_or_default();
                judged += 1;
                if count > 1 || count == 0 && !forgotten {
                    wrong.push((m, format!("{:?} accepted at {} has {count} events", accepted.key, accepted.raised_at)));
                }
                let open = rows.iter().any(|row| row.episode == id && row.open);
                if open && accepted.cleared_at.is_some() && !self.watcher.rewound.contains(&m) {
                    wrong.push((m, format!("{:?} was cleared, and its event is still open", accepted.key)));
                }
            }
        }
        for (m, what) in wrong {
            let name = self.fleet.places[m].name.clone();
            self.problem(&name, what);
        }
        judged
    }

    /// Same service group; same appliance within five minutes with a declared dependency; same site silent; nothing else.
    async fn joined_only_by_documented_causes(&mut self, rows: &[Row]) {
        let mut by_ticket: BTreeMap<&(String, String), Vec<&Row>> = BTreeMap::new();
        for row in rows {
            by_ticket.entry(&row.ticket).or_default().push(row);
        }
        let mut wrong = Vec::new();
        for (ticket, episodes) in by_ticket {
            for (at, episode) in episodes.iter().enumerate().skip(1) {
                let others = episodes.iter().enumerate().filter(|(other, _)| *other != at);
                if !others.map(|(_, other)| other).any(|other| one_cause(&self.fleet, episode, other)) {
                    let name = episode.m.map_or("vendor", |m| self.fleet.places[m].name.as_str());
                    wrong.push((
                        ticket.1.clone(),
                        format!("{} {} of {name} stands in {ticket:?} without a common cause", episode.component, episode.code),
                    ));
                }
            }
        }
        for (about, what) in wrong {
            self.problem(&about, what);
        }
    }

    /// Clocks: rows as the log proves them; started at each opening; warned and missed once, in time, unless answered before.
    async fn clocks_are_right(&mut self, ticket: &Ticket) {
        let running = self.office.running.as_ref().expect("runs");
        let mut conn = running.world.db.read().await.expect("reads");
        let told = explain::explain(&mut conn, &ticket.ticket_id).await.expect("explains").expect("a ticket");
        let timeline = tickets::timeline(&mut conn, &ticket.tenant_id, &ticket.ticket_id).await.expect("reads");
        drop(conn);
        let mut wrong = Vec::new();
        if !told.rows_agree {
            wrong.push("its clock rows disagree with its log".to_owned());
        }
        let starts: Vec<UnixMs> = timeline
            .iter()
            .filter(|entry| {
                matches!(entry.event, TicketEvent::Opened { already_recovered: false, .. } | TicketEvent::Reopened { .. })
            })
            .map(|entry| entry.at)
            .collect();
        let answers: Vec<UnixMs> =
            timeline.iter().filter(|entry| matches!(entry.event, TicketEvent::Responded { .. })).map(|entry| entry.at).collect();
        let (mut warned, mut missed, mut started) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &timeline {
            match &entry.event {
                TicketEvent::ClockStarted { clock_no, .. } => started.push((*clock_no, entry.at)),
                TicketEvent::ClockWarned { clock_no, .. } => warned.push((*clock_no, entry.at)),
                TicketEvent::ClockMissed { clock_no, .. } => missed.push((*clock_no, entry.at)),
                _ => {}
            }
        }
        if started.iter().map(|(_, at)| *at).collect::<Vec<_>>() != starts {
            wrong.push(format!("clocks started at {started:?}, openings were at {starts:?}"));
        }
        for (clock_no, start) in &started {
            let answered_after = answers.iter().filter(|at| *at >= start).min().map(|at| at.since_ms(*start));
            let late = answered_after.is_none_or(|ms| ms > 30 * MINUTE);
            let of = |told: &[(i64, UnixMs)]| {
                told.iter().filter(|(no, _)| no == clock_no).map(|(_, at)| at.since_ms(*start)).collect::<Vec<_>>()
            };
            let (warnings, misses) = (of(&warned), of(&missed));
            if warnings.len() > 1 || warnings.iter().any(|ms| *ms <= 20 * MINUTE) {
                wrong.push(format!("clock {clock_no} warned {warnings:?} ms after its start"));
            }
            if misses.len() != usize::from(late) || misses.iter().any(|ms| *ms <= 30 * MINUTE) {
                wrong.push(format!("clock {clock_no}: answered {answered_after:?} ms after its start, missed {misses:?}"));
            }
            for ms in warnings.iter().map(|ms| ms - 20 * MINUTE).chain(misses.iter().map(|ms| ms - 30 * MINUTE)) {
                if ms > MINUTE
                    && !self.watcher.was_away(start.plus_ms(20 * MINUTE), start.plus_ms(30 * MINUTE + ms))
                    && answered_after.is_none_or(|at| at != ms + 30 * MINUTE)
                {
                    wrong.push(format!("clock {clock_no} was told of {ms} ms late"));
                }
            }
        }
        for what in wrong {
            self.problem(&ticket.ticket_id, format!("{} of {}: {what}", ticket.ticket_id, ticket.tenant_id));
        }
    }

    /// Of one cause there is one ticket at a time.
    async fn no_two_lived_for_one_cause(&mut self, all: &[Ticket]) {
        let running = self.office.running.as_ref().expect("runs");
        let mut lives: BTreeMap<(String, String), Vec<Life>> = BTreeMap::new();
        for ticket in all {
            let mut conn = running.world.db.read().await.expect("reads");
            let timeline = tickets::timeline(&mut conn, &ticket.tenant_id, &ticket.ticket_id).await.expect("reads");
            let lives = lives.entry((ticket.tenant_id.clone(), ticket.cause.clone())).or_default();
            let mut since = None;
            for entry in timeline {
                match entry.event {
                    TicketEvent::Opened { already_recovered: false, .. } | TicketEvent::Reopened { .. } => {
                        since.get_or_insert(entry.at);
                    }
                    TicketEvent::Recovered | TicketEvent::Closed { .. } => {
                        if let Some(since) = since.take() {
                            lives.push((since, entry.at, ticket.ticket_id.clone()));
                        }
                    }
                    _ => {}
                }
            }
        }
        let mut wrong = Vec::new();
        for ((tenant, cause), mut lives) in lives {
            lives.sort();
            for pair in lives.windows(2) {
                if pair[1].0 < pair[0].1 && pair[0].2 != pair[1].2 {
                    wrong.push((pair[1].2.clone(), format!("{tenant} {cause}: {:?} and {:?} lived at once", pair[0], pair[1])));
                }
            }
        }
        for (about, what) in wrong {
            self.problem(&about, what);
        }
    }

    async fn notices_were_sent_once(&mut self) {
        let running = self.office.running.as_ref().expect("runs");
        let mut conn = running.world.db.read().await.expect("reads");
        let rows = sqlx::query("SELECT subject_id, kind, recipient, message_id, state FROM outbox").fetch_all(&mut *conn).await;
        let rows = rows.expect("reads");
        drop(conn);
        // A restored collector tells again what it told after the backup, under the same Message-ID.
        let again = u32::try_from(self.watcher.forgotten.len()).expect("few");
        let mut told: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for row in rows {
            let (subject, kind, recipient): (String, String, String) =
                (row.get("subject_id"), row.get("kind"), row.get("recipient"));
            let (id, state): (String, String) = (row.get("message_id"), row.get("state"));
            let (copies, lost) = self.office.mails.taken.get(&id).copied().unwrap_or_default();
            if state == "waiting" || state == "sent" && (copies == 0 || copies > lost + 1 + again) {
                wrong.push((
                    subject.clone(),
                    format!("{subject}: the notice {kind} to {recipient} is {state}; {copies} copies, {lost} answers lost"),
                ));
            }
            *told.entry((subject, kind, recipient)).or_default() += 1;
        }
        for ((subject, kind, recipient), count) in told {
            if count > 1 && kind == "opened" {
                wrong.push((subject.clone(), format!("{subject}: {recipient} was told {count} times that it opened")));
            }
        }
        for (about, what) in wrong {
            self.problem(&about, what);
        }
    }

    async fn chains_are_whole(&mut self) {
        let db = self.office.running.as_ref().expect("runs").world.db.clone();
        for tenant in self.fleet.tenants.clone().iter().map(String::as_str).chain([VENDOR_TENANT]) {
            if let Verdict::Broken { seq, why } = audit::verify(&db, tenant).await.expect("verifies") {
                self.problem(tenant, format!("the chain is broken at {seq}: {why}"));
            }
        }
    }

    /// Nothing is missing that a gap record does not account for; a gap in the fault lane needs a restore or a rewind.
    async fn losses_are_counted(&mut self) {
        let running = self.office.running.as_ref().expect("runs");
        let mut conn = running.world.db.read().await.expect("reads");
        let rows =
            sqlx::query("SELECT appliance_id, lane, why, lost_count FROM gaps").fetch_all(&mut *conn).await.expect("reads");
        drop(conn);
        for row in rows {
            let (appliance, why): (String, String) = (row.get("appliance_id"), row.get("why"));
            let m = self.fleet.position(&appliance).expect("known");
            if self.watcher.forgotten.is_empty() && !self.watcher.rewound.contains(&m) {
                let name = self.fleet.places[m].name.clone();
                self.problem(
                    &name,
                    format!("{} records are said to be lost ({why}), and none was", row.get::<i64, _>("lost_count")),
                );
            }
        }
        let waiting: BTreeSet<String> =
            self.machines.iter().filter(|machine| machine.waits()).map(|machine| machine.place.name.clone()).collect();
        if !waiting.is_empty() {
            self.problem("", format!("records still wait on {waiting:?}"));
        }
    }
}

fn one_cause(fleet: &Fleet, one: &Row, other: &Row) -> bool {
    let (Some(a), Some(b)) = (one.m, other.m) else { return one.code == other.code };
    let (pa, pb) = (&fleet.places[a], &fleet.places[b]);
    let services = |m: usize, row: &Row| -> Vec<String> {
        match row.component.strip_prefix("service:") {
            Some(service) => vec![service.to_owned()],
            None if row.code == "silent" => fleet.places[m].services.iter().map(|s| (*s).to_owned()).collect(),
            None => Vec::new(),
        }
    };
    let (sa, sb) = (services(a, one), services(b, other));
    let same_service = a == b && sa.iter().any(|service| sb.contains(service));
    let same_group = sa.iter().any(|x| sb.iter().any(|y| {
        matches!((fleet.group_of(a, x), fleet.group_of(b, y)), (Some(g), Some(h)) if (&g.tenant, &g.group) == (&h.tenant, &h.group))
    }));
    let same_fault = a == b && one.component == other.component && one.code == other.code;
    let same_site = one.code == "silent" && other.code == "silent" && pa.tenant == pb.tenant && pa.site == pb.site;
    let depends = |x: &Row, y: &Row| {
        x.component == "disk:/var" && pa.depends && y.component.strip_prefix("service:") == pa.services.first().copied()
    };
    let near = one.told_at.since_ms(other.told_at).abs() <= 5 * MINUTE;
    same_service || same_group || same_fault || same_site || a == b && near && (depends(one, other) || depends(other, one))
}
