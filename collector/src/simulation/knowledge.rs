//! What the collector could know at any moment, kept by the simulation itself from the letters that were committed; and severity
//! recomputed from it, naively: how many members are healthy, how many are needed, what is not known.
//!
//! Test code only. It shares no code with `faults::landscape`, `tickets::grounds` or `tickets::severity`: it judges them.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::check::ServiceState;
use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::record::Payload;
use mainstay_shared::report::ReportRequest;
use mainstay_shared::time_source::UnixMs;

use super::fleet::Fleet;
use super::office::SILENCE_AFTER;

/// The state of every service of every machine, as known.
pub(super) type View = Vec<Vec<ServiceState>>;

/// What was told of one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Open faults by component and code: the episode's id, and the state known before.
    told: BTreeMap<(String, String), (String, Option<ServiceState>)>,
    over: BTreeSet<String>,
    records: BTreeSet<String>,
    pub(super) last_heard: Option<UnixMs>,
    epoch: String,
    /// It said goodbye; until when it is expected back, if it said that.
    pub(super) goodbye: Option<Option<UnixMs>>,
    declared: bool,
    unknown_by_heartbeat: BTreeSet<String>,
}

/// What was told of all machines.
#[derive(Debug, Clone)]
pub(super) struct Knowledge {
    pub(super) machines: Vec<Known>,
    /// The worst that each service was told to be since the last [`Knowledge::settle`]: a report may tell of more than its end.
    worst: View,
}

/// Whether business is interrupted, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    GoesOn,
    Presumed,
    Certain,
}

impl Knowledge {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let worst = fleet.places.iter().map(|place| vec![ServiceState::Unknown; place.services.len()]).collect();
        Self { machines: vec![Known::default(); fleet.places.len()], worst }
    }

    /// A report was committed at `now`.
    pub(super) fn report_taken(&mut self, fleet: &Fleet, m: usize, request: &ReportRequest, now: UnixMs, held: bool) {
        let known = &mut self.machines[m];
        let mut says_goodbye = false;
        let cleared: BTreeSet<String> = request
            .records
            .iter()
            .filter_map(|record| match &record.payload {
                Payload::Fault(change) if change.kind == FaultChangeKind::Cleared => {
                    change.episode.as_ref().map(ToString::to_string)
                }
                _ => None,
            })
            .collect();
        for record in &request.records {
            if !known.records.insert(record.id.to_string()) {
                continue;
            }
            match &record.payload {
                Payload::Fault(change) => {
                    let own = record.id.to_string();
                    known.take(change, &own, &cleared);
                    if let Some(service) = change.key.service()
                        && let Some(at) = fleet.places[m].services.iter().position(|name| *name == service)
                    {
                        let worst = &mut self.worst[m][at];
                        *worst = (*worst).max(state_of(&change.key.code));
                    }
                }
                Payload::OpenFaults(open) if record.id.epoch == request.epoch && !held => {
                    let open: BTreeSet<String> = open.episodes.iter().map(ToString::to_string).collect();
                    known.told.retain(|_, (episode, _)| open.contains(episode));
                }
                Payload::Started(started) if record.id.epoch == request.epoch => known.declared = !started.services.is_empty(),
                Payload::Goodbye(goodbye) if record.id.epoch == request.epoch => {
                    let age = request.sent_mono_ms.saturating_sub(record.mono_ms);
                    let said_at = now.plus_ms(-i64::try_from(age).expect("small"));
                    known.goodbye = Some(goodbye.expected_return_at.map(|back| said_at.plus_ms(back.since_ms(record.at).max(0))));
                    says_goodbye = true;
                }
                _ => {}
            }
        }
        if known.epoch != request.epoch.as_str() && !says_goodbye {
            known.goodbye = None;
        }
        known.epoch = request.epoch.to_string();
        known.last_heard = Some(now);
    }

    /// A heartbeat was committed at `now`.
    pub(super) fn heartbeat_taken(&mut self, m: usize, request: &PollRequest, now: UnixMs) {
        let known = &mut self.machines[m];
        known.unknown_by_heartbeat =
            request.services.iter().filter(|(_, state)| **state == ServiceState::Unknown).map(|(name, _)| name.clone()).collect();
        known.last_heard = Some(now);
        if known.epoch != request.epoch.as_str() {
            known.goodbye = None;
        }
    }

    /// Nothing is known of the machine's services: unheard for too long, or it said goodbye, or its silence is marked.
    pub(super) fn is_unheard(&self, m: usize, now: UnixMs, started_at: UnixMs, marked: &BTreeSet<usize>) -> bool {
        let known = &self.machines[m];
        let since = known.last_heard.map_or(UnixMs(0), |at| at.max(started_at));
        known.goodbye.is_some() || marked.contains(&m) || now > since.plus(SILENCE_AFTER)
    }

    /// All services as known now.
    pub(super) fn view(&self, fleet: &Fleet, now: UnixMs, started_at: UnixMs, marked: &BTreeSet<usize>) -> View {
        let state = |m: usize, service: &str| {
            let known = &self.machines[m];
            let component = format!("service:{service}");
            let told = known.told.keys().filter(|(c, _)| *c == component).map(|(_, code)| state_of(code)).max();
            match told {
                Some(ServiceState::Down) => ServiceState::Down,
                _ if self.is_unheard(m, now, started_at, marked) || !known.declared => ServiceState::Unknown,
                Some(told) => told,
                None if known.unknown_by_heartbeat.contains(service) => ServiceState::Unknown,
                None => ServiceState::Up,
            }
        };
        let places = fleet.places.iter().enumerate();
        places.map(|(m, place)| place.services.iter().map(|service| state(m, service)).collect()).collect()
    }

    /// The worst of what was so at the last settling, what was told since, and what is so now; and begins anew from `now`.
    pub(super) fn settle(&mut self, now: &View) -> View {
        let worst = self.worst.iter().zip(now).map(|(a, b)| a.iter().zip(b).map(|(a, b)| *a.max(b)).collect()).collect();
        self.worst.clone_from(now);
        worst
    }

    /// What is told of a service of a machine now, beside its reachability.
    pub(super) fn told_state(&self, m: usize, service: &str) -> ServiceState {
        let component = format!("service:{service}");
        let told = self.machines[m].told.keys().filter(|(c, _)| *c == component).map(|(_, code)| state_of(code)).max();
        told.unwrap_or(ServiceState::Up)
    }

    fn last_known(&self, m: usize, component: &str, code: &str) -> Option<ServiceState> {
        self.machines[m].told.get(&(component.to_owned(), code.to_owned())).and_then(|(_, last)| *last)
    }

    /// Whether a fault of a machine interrupts business under `view`.
    pub(super) fn judge(&self, fleet: &Fleet, view: &View, m: usize, component: &str, code: &str) -> Verdict {
        let place = &fleet.places[m];
        if component == "link" && code == "silent" {
            let uncovered = place.services.iter().any(|service| Count::of(fleet, view, m, service).healthy_too_few());
            return if uncovered { Verdict::Presumed } else { Verdict::GoesOn };
        }
        if let Some(service) = component.strip_prefix("service:") {
            let count = Count::of(fleet, view, m, service);
            let was_down = self.last_known(m, component, code) == Some(ServiceState::Down);
            let unsure = match state_of(code) {
                ServiceState::Down => true,
                ServiceState::Unknown => count.down > 0 || was_down,
                ServiceState::Up | ServiceState::Degraded => count.down > 0,
            };
            return count.verdict(unsure);
        }
        if component == "disk:/var" && place.depends && !place.services.is_empty() {
            let count = Count::of(fleet, view, m, place.services[0]);
            return count.verdict(count.down > 0);
        }
        Verdict::GoesOn
    }
}

impl Known {
    fn take(&mut self, change: &FaultChange, own: &str, cleared: &BTreeSet<String>) {
        let key = (change.key.component.clone(), change.key.code.clone());
        let episode = match (change.kind, &change.episode) {
            (FaultChangeKind::Raised, _) | (_, None) => own.to_owned(),
            (_, Some(episode)) => episode.to_string(),
        };
        match change.kind {
            FaultChangeKind::Cleared => {
                if self.told.get(&key).is_some_and(|(open, _)| *open == episode) {
                    self.told.remove(&key);
                }
                self.over.insert(episode);
            }
            FaultChangeKind::Restated if !cleared.contains(&episode) => {
                self.over.remove(&episode);
                self.told.insert(key, (episode, change.grounds.last_known));
            }
            _ if self.over.contains(&episode) || cleared.contains(&episode) && !self.told.contains_key(&key) => {}
            _ => drop(self.told.insert(key, (episode, change.grounds.last_known))),
        }
    }
}

/// How a service's members stand.
struct Count {
    needs: usize,
    healthy: usize,
    unknown: usize,
    down: usize,
}

impl Count {
    fn of(fleet: &Fleet, view: &View, m: usize, service: &str) -> Self {
        let (needs, members) = match fleet.group_of(m, service) {
            Some(group) => (group.needs, group.members.clone()),
            None => (1, vec![m]),
        };
        let mut count = Self { needs, healthy: 0, unknown: 0, down: 0 };
        for member in members {
            let at = fleet.places[member].services.iter().position(|name| *name == service).expect("a member has the service");
            match view[member][at] {
                ServiceState::Up | ServiceState::Degraded => count.healthy += 1,
                ServiceState::Unknown => count.unknown += 1,
                ServiceState::Down => count.down += 1,
            }
        }
        count
    }

    fn healthy_too_few(&self) -> bool {
        self.healthy < self.needs
    }

    fn verdict(&self, presumed_if_unsure: bool) -> Verdict {
        if self.healthy >= self.needs {
            Verdict::GoesOn
        } else if self.healthy + self.unknown < self.needs {
            Verdict::Certain
        } else if presumed_if_unsure {
            Verdict::Presumed
        } else {
            Verdict::GoesOn
        }
    }
}

fn state_of(code: &str) -> ServiceState {
    match code {
        "service_down" => ServiceState::Down,
        "check_unknown" => ServiceState::Unknown,
        _ => ServiceState::Degraded,
    }
}
