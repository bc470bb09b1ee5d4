//! What goes wrong, drawn from the seed: one incident after the other, hours to weeks apart, some of them together; each ends.
//!
//! Test code only. It says what happens to machines, ways and the collector; never what the product should make of it.

use mainstay_shared::check::ServiceState;

use super::fleet::Fleet;
use super::machine::Weather;
use super::rng::Rng;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Something that is done to the world.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    /// A service of a machine is so from now on.
    Service(usize, usize, ServiceState),
    /// The disk is so full.
    Disk(usize, f64),
    Way(usize, Weather),
    /// The agent says goodbye with the reason, and is gone seconds later; so is the machine, unless it is `stop`.
    Goodbye(usize, &'static str),
    /// The machine's power, or the agent alone, is gone.
    PowerLoss(usize),
    AgentCrash(usize),
    /// The machine comes up; its clock is off by so much.
    Boot(usize, i64),
    AgentStart(usize),
    /// The wall clock jumps.
    Jump(usize, i64),
    Snapshot(usize),
    /// The machine is put back to its snapshot, and boots.
    Rewind(usize),
    /// An operator releases a held appliance.
    Release(usize),
    CollectorCrash,
    /// The power fails at a commit to come.
    CollectorCrashAt(i64),
    CollectorStart,
    Backup,
    Restore,
    MailServer {
        away: bool,
    },
    /// A customer calls.
    Call(usize),
}

/// All of a story's deeds, in order of time, from `begin_ms` on; and when the last of them is done.
pub(super) fn draw(rng: &mut Rng, fleet: &Fleet, begin_ms: i64, count: usize) -> (Vec<(i64, Deed)>, i64) {
    let mut deeds = Vec::new();
    let mut at = begin_ms;
    for _ in 0..count {
        at += match rng.between(0, 9) {
            0..=3 => rng.between(10 * MINUTE, 3 * HOUR),
            4..=7 => rng.between(3 * HOUR, 4 * DAY),
            _ => rng.between(4 * DAY, 60 * DAY),
        };
        let mut end = at;
        // What happens together mostly happens at one customer, so that troubles meet.
        let focus = rng.chance(75).then(|| fleet.places[rng.index(fleet.places.len())].tenant.clone());
        for _ in 0..rng.pick(&[1, 2, 2, 3, 4]) {
            let focus = focus.as_deref();
            let mut one = Incident { rng: &mut *rng, fleet, deeds: &mut deeds, at, focus };
            one.at += one.rng.between(0, 5 * MINUTE);
            end = end.max(one.happens());
        }
        at = end;
    }
    deeds.sort_by_key(|(at, _)| *at);
    (deeds, at)
}

struct Incident<'a> {
    rng: &'a mut Rng,
    fleet: &'a Fleet,
    deeds: &'a mut Vec<(i64, Deed)>,
    at: i64,
    focus: Option<&'a str>,
}

impl Incident<'_> {
    fn then(&mut self, after_ms: i64, deed: Deed) {
        self.at += after_ms;
        self.deeds.push((self.at, deed));
    }

    /// From a minute to three days, mostly short.
    fn a_while(&mut self) -> i64 {
        match self.rng.between(0, 9) {
            0..=4 => self.rng.between(MINUTE, 12 * MINUTE),
            5..=8 => self.rng.between(12 * MINUTE, 3 * HOUR),
            _ => self.rng.between(3 * HOUR, 72 * HOUR),
        }
    }

    fn some_machine(&mut self) -> usize {
        let near = |place: &&usize| self.focus.is_none_or(|tenant| self.fleet.places[**place].tenant == tenant);
        let all: Vec<usize> = (0..self.fleet.places.len()).collect();
        let near: Vec<usize> = all.iter().filter(near).copied().collect();
        self.rng.pick(&near)
    }

    /// Its end.
    fn happens(mut self) -> i64 {
        let m = self.some_machine();
        match self.rng.between(0, 20) {
            0..=4 => self.services_fail(m),
            5 => self.flaps(m),
            6 | 7 => self.disk_fills(m),
            8 | 9 => self.way_is_lost(m),
            10 => self.bad_way(m),
            11 => self.reboots(m),
            12 => self.power_is_lost(m),
            13 => self.agent_crashes(m),
            14 => self.clock_is_wrong(m),
            15 => self.machine_is_rewound(m),
            16 | 17 => self.collector_fails(),
            18 => self.everybody_is_away(),
            19 => self.the_others_leave(m),
            _ => self.small_things(m),
        }
        self.at
    }

    fn services_fail(&mut self, m: usize) {
        let group = self.fleet.groups.iter().find(|group| group.members.contains(&m)).cloned();
        let members = match group {
            Some(group) if self.rng.chance(60) => group.members,
            _ => vec![m],
        };
        let how_many = 1 + self.rng.index(members.len());
        let mut failed = Vec::new();
        for member in members.into_iter().take(how_many) {
            let services = self.fleet.places[member].services.len();
            if services == 0 {
                continue;
            }
            let service = self.rng.index(services);
            let state = self.rng.pick(&[
                ServiceState::Down,
                ServiceState::Down,
                ServiceState::Down,
                ServiceState::Degraded,
                ServiceState::Unknown,
            ]);
            let pause = self.rng.between(0, 3 * MINUTE);
            self.then(pause, Deed::Service(member, service, state));
            failed.push((member, service));
        }
        if let Some((member, service)) = failed.first().copied()
            && self.rng.chance(30)
        {
            let pause = self.a_while();
            self.then(pause, Deed::Service(member, service, ServiceState::Down));
        }
        for (member, service) in failed {
            let pause = self.a_while();
            self.then(pause, Deed::Service(member, service, ServiceState::Up));
        }
    }

    fn flaps(&mut self, m: usize) {
        if self.fleet.places[m].services.is_empty() {
            return;
        }
        for _ in 0..self.rng.between(2, 6) {
            for state in [ServiceState::Down, ServiceState::Up] {
                let pause = self.rng.between(30 * SECOND, 6 * MINUTE);
                self.then(pause, Deed::Service(m, 0, state));
            }
        }
    }

    fn disk_fills(&mut self, m: usize) {
        let percent = self.rng.pick(&[92.0, 98.0]);
        self.then(0, Deed::Disk(m, percent));
        let with_service = !self.fleet.places[m].services.is_empty() && self.rng.chance(60);
        if with_service {
            let pause = self.rng.between(0, 8 * MINUTE);
            self.then(pause, Deed::Service(m, 0, ServiceState::Down));
        }
        let pause = self.a_while();
        self.then(pause, Deed::Disk(m, 40.0));
        if with_service {
            let pause = self.rng.between(0, 8 * MINUTE);
            self.then(pause, Deed::Service(m, 0, ServiceState::Up));
        }
    }

    fn way_is_lost(&mut self, m: usize) {
        let place = self.fleet.places[m].clone();
        let whole_site = self.rng.chance(40);
        let away: Vec<usize> = (0..self.fleet.places.len())
            .filter(|p| {
                *p == m || whole_site && self.fleet.places[*p].tenant == place.tenant && self.fleet.places[*p].site == place.site
            })
            .collect();
        for p in &away {
            let pause = self.rng.between(0, 20 * SECOND);
            self.then(pause, Deed::Way(*p, Weather::Away));
        }
        let back = self.at + self.a_while();
        if !place.services.is_empty() && self.rng.chance(60) {
            let pause = self.rng.between(0, 10 * MINUTE);
            self.then(pause, Deed::Service(m, 0, ServiceState::Down));
            let pause = self.a_while();
            self.then(pause, Deed::Service(m, 0, ServiceState::Up));
        }
        self.at = self.at.max(back);
        for p in away {
            let pause = self.rng.between(0, 3 * MINUTE);
            self.then(pause, Deed::Way(p, Weather::Good));
        }
    }

    fn bad_way(&mut self, m: usize) {
        self.then(0, Deed::Way(m, Weather::Bad));
        self.services_fail(m);
        let pause = self.rng.between(MINUTE, HOUR);
        self.then(pause, Deed::Way(m, Weather::Good));
    }

    fn reboots(&mut self, m: usize) {
        let reason = self.rng.pick(&["reboot", "reboot", "shutdown", "stop"]);
        self.then(0, Deed::Goodbye(m, reason));
        if reason == "stop" {
            let pause = self.a_while().max(10 * SECOND);
            self.then(pause, Deed::AgentStart(m));
        } else {
            let pause =
                if reason == "reboot" && self.rng.chance(75) { self.rng.between(MINUTE, 9 * MINUTE) } else { self.a_while() };
            self.then(pause.max(10 * SECOND), Deed::Boot(m, 0));
        }
    }

    fn power_is_lost(&mut self, m: usize) {
        self.then(0, Deed::PowerLoss(m));
        let pause = self.a_while();
        self.then(pause, Deed::Boot(m, 0));
    }

    fn agent_crashes(&mut self, m: usize) {
        for _ in 0..self.rng.between(1, 5) {
            let pause = self.rng.between(0, 4 * MINUTE);
            self.then(pause, Deed::AgentCrash(m));
            let pause = self.rng.between(SECOND, 30 * SECOND);
            self.then(pause, Deed::AgentStart(m));
        }
        let pause = self.a_while();
        self.then(pause, Deed::Goodbye(m, "stop"));
        self.then(20 * SECOND, Deed::AgentStart(m));
    }

    fn clock_is_wrong(&mut self, m: usize) {
        let error = self.rng.pick(&[i64::MIN, 10 * 365 * DAY, -HOUR, 3 * HOUR]);
        if self.rng.chance(60) {
            self.then(0, Deed::PowerLoss(m));
            let pause = self.a_while();
            self.then(pause, Deed::Boot(m, error));
        } else {
            self.then(0, Deed::Jump(m, error));
        }
        self.services_fail(m);
        let pause = self.a_while();
        self.then(pause, Deed::Jump(m, 0));
    }

    fn machine_is_rewound(&mut self, m: usize) {
        self.then(0, Deed::Snapshot(m));
        if self.rng.chance(50) {
            self.services_fail(m);
        }
        let pause = self.a_while();
        self.then(pause, Deed::Rewind(m));
        let pause = self.rng.between(30 * MINUTE, 5 * HOUR);
        self.then(pause, Deed::Release(m));
    }

    fn collector_fails(&mut self) {
        match self.rng.between(0, 5) {
            0 => {
                self.then(0, Deed::Backup);
                let m = self.some_machine();
                self.services_fail(m);
                let pause = self.a_while();
                self.then(pause, Deed::Restore);
                let pause = self.rng.between(SECOND, HOUR);
                self.then(pause, Deed::CollectorStart);
            }
            1 | 2 => {
                let m = self.some_machine();
                for _ in 0..self.rng.between(1, 4) {
                    let half_commit = self.rng.between(1, 12);
                    self.then(SECOND, Deed::CollectorCrashAt(half_commit));
                    let begin = self.at;
                    self.services_fail(m);
                    self.at = begin;
                    let pause = self.rng.between(2 * MINUTE, 20 * MINUTE);
                    self.then(pause, Deed::CollectorStart);
                }
            }
            _ => {
                self.then(0, Deed::CollectorCrash);
                let begin = self.at;
                let m = self.some_machine();
                self.services_fail(m);
                let end = self.at;
                let pause = self.rng.pick(&[30 * SECOND, 5 * MINUTE, 2 * HOUR, 7 * HOUR]);
                self.at = begin;
                self.then(pause, Deed::CollectorStart);
                self.at = self.at.max(end);
            }
        }
    }

    /// One member of a group fails, and others are taken down on purpose meanwhile.
    fn the_others_leave(&mut self, m: usize) {
        let Some(group) = self.fleet.groups.iter().find(|group| group.members.contains(&m)).cloned() else { return };
        let service = self.fleet.places[m].services.iter().position(|name| *name == group.service).expect("a member has it");
        self.then(0, Deed::Service(m, service, ServiceState::Down));
        let others: Vec<usize> = group.members.iter().copied().filter(|other| *other != m).collect();
        for other in &others {
            let (pause, reason) = (self.rng.between(SECOND, 10 * MINUTE), self.rng.pick(&["shutdown", "reboot", "stop"]));
            self.then(pause, Deed::Goodbye(*other, reason));
        }
        let pause = self.a_while();
        self.then(pause, Deed::Service(m, service, ServiceState::Up));
        for other in others {
            let pause = self.rng.between(SECOND, 10 * MINUTE);
            self.then(pause, Deed::Boot(other, 0));
            self.then(SECOND, Deed::AgentStart(other));
        }
    }

    fn everybody_is_away(&mut self) {
        for p in 0..self.fleet.places.len() {
            self.deeds.push((self.at, Deed::Way(p, Weather::Away)));
        }
        let pause = self.rng.between(MINUTE, 40 * MINUTE);
        self.at += pause;
        for p in 0..self.fleet.places.len() {
            let pause = self.rng.between(0, 20 * SECOND);
            self.then(pause, Deed::Way(p, Weather::Good));
        }
    }

    fn small_things(&mut self, m: usize) {
        if self.rng.chance(50) {
            self.then(0, Deed::Call(m));
            return;
        }
        self.then(0, Deed::MailServer { away: true });
        self.services_fail(m);
        let pause = self.a_while();
        self.then(pause, Deed::MailServer { away: false });
    }
}
