//! The story itself: a queue of due things, from one to the next, so that years pass in seconds. While something happens, agents
//! poll every minute and the collector looks at the time a little oftener; when all has settled and nothing is due, time jumps.
//!
//! Test code only. Whatever is decided by chance comes from the seed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mainstay_agent::restate_if_new;
use mainstay_shared::check::ServiceState;
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::report::ReportRequest;
use mainstay_shared::time_source::UnixMs;

use super::fleet::Fleet;
use super::incidents::{self, Deed};
use super::knowledge::Knowledge;
use super::machine::{Machine, Weather};
use super::office::Office;
use super::rng::Rng;
use super::trace::Trace;
use super::watcher::Watcher;
use crate::db::testing::TestDb;
use crate::flow::batch::{Answer, Message};
use crate::flow::report_arrives::Outcome;
use crate::intake::ready::ready;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
/// How often the collector looks at the time while something happens; out of step with the agents' minutes.
const LOOK_EVERY: i64 = 50 * SECOND;
/// After a deed everything has shown within so long: checks, silence, the collector's own grace, the flap window.
const SETTLED_AFTER: i64 = 22 * MINUTE;

/// Something due.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Deed(Deed),
    /// A round of a service's checks begins.
    Round(usize, u64, usize),
    /// The next try of it.
    Ask(usize, u64, usize),
    Measure(usize, u64),
    Report(usize, u64),
    GiveUp(usize, u64, u64),
    Arrive(Box<Letter>),
    Off(usize, u64),
    Poll,
    Look,
    Staff(String, StaffDoes),
    /// Something of the collector's own is due.
    Due,
    /// A manager clears up what only a person can end.
    ClearUp,
}

/// What a member of the staff is about to do to a ticket.
#[derive(Debug, Clone, Copy)]
pub(super) enum StaffDoes {
    Respond,
    LowerImpact,
    Confirm,
    CloseAnyway,
}

/// A report on its way.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) run: u64,
    pub(super) request: ReportRequest,
    /// Its answer will reach the agent.
    pub(super) answered: bool,
}

/// What was sent into a collector whose power failed.
#[derive(Debug)]
pub(super) enum Unsure {
    Report(ReportRequest),
    Heartbeat(PollRequest),
}

/// One simulated story.
pub(super) struct Story {
    pub(super) rng: Rng,
    pub(super) now: UnixMs,
    pub(super) fleet: Fleet,
    pub(super) machines: Vec<Machine>,
    pub(super) office: Office,
    pub(super) knowledge: Knowledge,
    pub(super) watcher: Watcher,
    pub(super) trace: Trace,
    pub(super) home: PathBuf,
    queue: BTreeMap<(i64, u64), Event>,
    serial: u64,
    awake_until: i64,
    awake: bool,
    /// Until when each machine's services and disk are looked at.
    pub(super) watched_until: Vec<i64>,
    pub(super) measured_until: Vec<i64>,
    pub(super) snapshot_at: Vec<Option<UnixMs>>,
    /// Sent into a collector whose power failed: committed or not, its database will tell.
    pub(super) uncertain: Vec<(usize, Unsure, UnixMs)>,
    pub(super) on_postgres: bool,
}

impl Story {
    pub(super) async fn begin(seed: u64, database: TestDb, home: PathBuf, incidents: usize, on_postgres: bool) -> Self {
        let mut rng = Rng::new(seed);
        let fleet = Fleet::draw(&mut rng);
        let now = UnixMs(1_767_600_000_000);
        let office = Office::new(database, &home, fleet.sql()).await;
        let machines: Vec<Machine> = fleet.places.iter().map(|place| Machine::new(place.clone(), &home)).collect();
        let count = machines.len();
        let mut story = Self {
            knowledge: Knowledge::new(&fleet),
            watcher: Watcher::default(),
            trace: Trace::new(),
            queue: BTreeMap::new(),
            serial: 0,
            awake_until: now.0,
            awake: false,
            watched_until: vec![0; count],
            measured_until: vec![0; count],
            snapshot_at: vec![None; count],
            uncertain: Vec::new(),
            rng,
            now,
            fleet,
            machines,
            office,
            home,
            on_postgres,
        };
        let (deeds, end) = incidents::draw(&mut story.rng, &story.fleet, now.0 + 30 * MINUTE, incidents);
        story.at(now.0, Event::Deed(Deed::CollectorStart));
        for m in 0..count {
            story.at(now.0 + SECOND, Event::Deed(Deed::Boot(m, 0)));
        }
        for (at, deed) in deeds {
            story.at(at, Event::Deed(deed));
        }
        story.heal(end + MINUTE);
        story
    }

    /// In the end all is well: everything on, reachable, up.
    fn heal(&mut self, at: i64) {
        self.at(at, Event::Deed(Deed::CollectorStart));
        self.at(at, Event::Deed(Deed::MailServer { away: false }));
        for m in 0..self.machines.len() {
            for service in 0..self.machines[m].states.len() {
                self.at(at + SECOND, Event::Deed(Deed::Service(m, service, ServiceState::Up)));
            }
            self.at(at + SECOND, Event::Deed(Deed::Disk(m, 40.0)));
            self.at(at + SECOND, Event::Deed(Deed::Way(m, Weather::Good)));
            self.at(at + 2 * SECOND, Event::Deed(Deed::Boot(m, 0)));
            self.at(at + 2 * SECOND, Event::Deed(Deed::AgentStart(m)));
            self.at(at + 3 * SECOND, Event::Deed(Deed::Jump(m, 0)));
            self.at(at + 40 * MINUTE, Event::Deed(Deed::Release(m)));
        }
        self.at(at + 180 * MINUTE, Event::ClearUp);
    }

    pub(super) fn at(&mut self, at: i64, event: Event) {
        self.serial += 1;
        self.queue.insert((at.max(self.now.0), self.serial), event);
    }

    pub(super) fn after(&mut self, ms: i64, event: Event) {
        self.at(self.now.0 + ms, event);
    }

    /// Until nothing is due any more.
    pub(super) async fn run(&mut self) {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(UnixMs(at));
            if !self.awake {
                self.wake().await;
            }
            self.happens(event).await;
        }
        self.watcher.end(self.now);
    }

    async fn wake(&mut self) {
        self.awake = true;
        self.awake_until = self.awake_until.max(self.now.0 + MINUTE);
        self.poll(true).await;
        self.look(true).await;
        self.after(MINUTE, Event::Poll);
        self.after(LOOK_EVERY, Event::Look);
    }

    pub(super) fn stay_awake(&mut self, ms: i64) {
        self.awake_until = self.awake_until.max(self.now.0 + ms);
    }

    async fn happens(&mut self, event: Event) {
        match event {
            Event::Deed(deed) => {
                self.trace.note(self.now, format_args!("deed {deed:?}"));
                self.stay_awake(SETTLED_AFTER);
                self.perform(deed).await;
            }
            Event::Round(m, run, service) => {
                if self.is_run(m, run) && self.now.0 < self.watched_until[m] {
                    self.ask(m, run, service).await;
                    self.after(MINUTE, Event::Round(m, run, service));
                } else if let Some(run) = self.machines[m].run.as_mut().filter(|one| one.no == run) {
                    run.rounds_under_way = false;
                }
            }
            Event::Ask(m, run, service) if self.is_run(m, run) => self.ask(m, run, service).await,
            Event::Measure(m, run) => {
                if self.is_run(m, run) && self.now.0 < self.measured_until[m] {
                    self.machines[m].measure(self.now).await;
                    self.after(10 * SECOND, Event::Measure(m, run));
                    self.report_soon(m);
                } else if let Some(run) = self.machines[m].run.as_mut().filter(|one| one.no == run) {
                    run.measures_under_way = false;
                }
            }
            Event::Report(m, run) if self.is_run(m, run) => self.send(m).await,
            Event::GiveUp(m, run, attempt) if self.is_run(m, run) => self.give_up(m, attempt),
            Event::Arrive(letter) => self.arrive(*letter).await,
            Event::Off(m, run) if self.is_run(m, run) => self.machines[m].kill(),
            Event::Ask(..) | Event::Report(..) | Event::GiveUp(..) | Event::Off(..) => {}
            Event::Poll => {
                if self.awake {
                    self.poll(false).await;
                    self.after(MINUTE, Event::Poll);
                }
            }
            Event::Look => {
                if self.awake {
                    self.look(false).await;
                    self.after(LOOK_EVERY, Event::Look);
                    self.rest_if_settled().await;
                }
            }
            Event::Staff(ticket, does) => self.staff(&ticket, does).await,
            Event::ClearUp => self.clear_up().await,
            Event::Due => self.stay_awake(MINUTE),
        }
    }

    fn is_run(&self, m: usize, run: u64) -> bool {
        self.machines[m].run.as_ref().is_some_and(|one| one.no == run)
    }

    async fn ask(&mut self, m: usize, run: u64, service: usize) {
        if self.machines[m].ask(self.now, service).await {
            self.after(10 * SECOND, Event::Ask(m, run, service));
        }
        self.report_soon(m);
    }

    /// What is found together is sent together.
    pub(super) fn report_soon(&mut self, m: usize) {
        if self.machines[m].waits()
            && let Some(run) = &self.machines[m].run
            && run.under_way.is_none()
        {
            let no = run.no;
            self.after(100, Event::Report(m, no));
        }
    }

    async fn send(&mut self, m: usize) {
        let Some(request) = self.machines[m].report(self.now).await else { return };
        let (run, attempt) = (self.machines[m].run.as_ref().map_or(0, |run| run.no), request.attempt);
        let letter = |answered: bool| Event::Arrive(Box::new(Letter { from: m, run, request: request.clone(), answered }));
        let fate = match self.machines[m].weather {
            Weather::Good => 99,
            Weather::Away => 0,
            Weather::Bad => self.rng.between(0, 99),
        };
        let late = self.rng.between(65 * SECOND, 600 * SECOND);
        let again = self.rng.between(SECOND, 300 * SECOND);
        match fate {
            0..=24 => {}
            25..=44 => self.after(200, letter(false)),
            45..=59 => self.after(late, letter(false)),
            60..=74 => {
                self.after(200, letter(true));
                self.after(again, letter(false));
            }
            _ => self.after(50, letter(true)),
        }
        self.after(MINUTE, Event::GiveUp(m, run, attempt));
    }

    /// No answer, or none that helps: later.
    pub(super) fn give_up(&mut self, m: usize, attempt: u64) {
        let Some(run) = self.machines[m].run.as_mut().filter(|run| run.under_way == Some(attempt)) else { return };
        run.under_way = None;
        run.failures += 1;
        let (no, wait) = (run.no, (SECOND << run.failures.min(6)).min(MINUTE));
        if self.machines[m].weather != Weather::Away && self.office.running.is_some() {
            self.after(wait, Event::Report(m, no));
        }
    }

    /// Letters of the same moment are handed over together.
    async fn arrive(&mut self, first: Letter) {
        let mut letters = vec![first];
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now.0
            && matches!(entry.get(), Event::Arrive(_))
        {
            if let Event::Arrive(letter) = entry.remove() {
                letters.push(*letter);
            }
        }
        let messages: Vec<_> = letters
            .iter()
            .map(|letter| (&self.fleet.places[letter.from], Message::Report(ready(letter.request.clone()).expect("JSON"))))
            .collect();
        let answers = self.office.take(self.now, messages).await;
        for (letter, answer) in letters.iter().zip(&answers) {
            match answer {
                Ok(Answer::Report(Outcome::Taken(taken), _)) => {
                    self.knowledge.report_taken(&self.fleet, letter.from, &letter.request, self.now, taken.held);
                }
                Err(_) => self.uncertain.push((letter.from, Unsure::Report(letter.request.clone()), self.now)),
                Ok(_) => {}
            }
        }
        self.after_office().await;
        for (letter, answer) in letters.into_iter().zip(answers) {
            if letter.answered && self.is_run(letter.from, letter.run) {
                self.answered(letter, answer.ok()).await;
            }
        }
    }

    async fn answered(&mut self, letter: Letter, answer: Option<Answer>) {
        let m = letter.from;
        let epoch = self.office.running.as_ref().map(super::office::Running::epoch);
        let now = self.now;
        let Some(run) = self.machines[m].run.as_mut() else { return };
        if run.under_way != Some(letter.request.attempt) {
            return;
        }
        match (answer, epoch) {
            (Some(Answer::Report(Outcome::Taken(taken), _)), Some(epoch)) => {
                run.advance(now);
                run.clock.tell(now, &run.time);
                restate_if_new(&run.spool, &epoch, &run.time).await.expect("accepted");
                run.spool.ack(taken.acks.clone(), taken.nonce.clone(), Some(epoch)).await.expect("durable");
                (run.under_way, run.failures) = (None, 0);
                self.machines[m].log(now);
                self.report_soon(m);
            }
            (Some(Answer::Report(Outcome::Stale(_), _)), _) => {
                self.trace.note(now, format_args!("{} is told that it is stale", self.machines[m].place.name));
                self.machines[m].say_goodbye(now, "stop", Some(MINUTE)).await;
                self.start_agent(m).await;
            }
            _ => self.give_up(m, letter.request.attempt),
        }
    }

    /// Everybody polls. `rested`: as they all did all the time that was jumped over.
    async fn poll(&mut self, rested: bool) {
        let mut polls = Vec::new();
        for m in 0..self.machines.len() {
            let lost = match self.machines[m].weather {
                Weather::Good => false,
                Weather::Bad => !rested && self.rng.chance(30),
                Weather::Away => true,
            };
            if lost || self.office.running.is_none() {
                continue;
            }
            if let Some(request) = self.machines[m].poll(self.now) {
                polls.push((m, request));
            }
        }
        let messages =
            polls.iter().map(|(m, request)| (&self.fleet.places[*m], Message::Heartbeat(request.clone()))).collect::<Vec<_>>();
        if messages.is_empty() {
            return;
        }
        let answers = self.office.take(self.now, messages).await;
        let epoch = self.office.running.as_ref().map(super::office::Running::epoch);
        for ((m, request), answer) in polls.into_iter().zip(answers) {
            let (Ok(Answer::Heartbeat(_)), Some(epoch)) = (answer, &epoch) else {
                self.uncertain.push((m, Unsure::Heartbeat(request), self.now));
                continue;
            };
            self.knowledge.heartbeat_taken(m, &request, self.now);
            if let Some(run) = self.machines[m].run.as_mut() {
                run.clock.tell(self.now, &run.time);
                restate_if_new(&run.spool, epoch, &run.time).await.expect("accepted");
            }
            self.machines[m].log(self.now);
            self.report_soon(m);
        }
        self.after_office().await;
    }

    /// All has shown, nothing is under way: time may jump.
    async fn rest_if_settled(&mut self) {
        let in_flight = self.queue.values().any(|event| matches!(event, Event::Arrive(_) | Event::Ask(..) | Event::Off(..)));
        let waits = self.office.running.is_some()
            && self.machines.iter().any(|machine| machine.weather != Weather::Away && machine.waits());
        if self.now.0 < self.awake_until || in_flight || waits {
            return;
        }
        self.check_settled().await;
        self.awake = false;
        self.queue.retain(|_, event| !matches!(event, Event::Poll | Event::Look));
        if let Some(due) = self.next_due().await {
            let due = if due < self.now.0 { self.now.0 + 30 * MINUTE } else { due + SECOND };
            self.at(due, Event::Due);
        }
    }
}
