//! Rounds of checks become faults of business services: `service_down`, `service_degraded`, `check_unknown`.
//!
//! A service has one of them open at a time. When its state changes from one to another, the new one is raised before the old
//! one is cleared, so that nobody sees a moment in which all was well. Retries have been made: a round counts at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::fault::{
    CODE_CHECK_UNKNOWN, CODE_SERVICE_DEGRADED, CODE_SERVICE_DOWN, FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level,
};
use mainstay_shared::ids::{EpisodeId, RecordId};
use mainstay_shared::limits::clean_text;

use super::Moment;
use super::state::{FLAPPING_RAISES, is_flapping};
use crate::checks::ServiceRound;
use crate::config::Service;

/// Characters that the texts of all tries of a round may have together: a record holds 64 KiB.
const MAX_GROUNDS_CHARS: usize = 12_000;

/// The faults of all declared services.
#[derive(Debug)]
pub(crate) struct ServiceFaults {
    services: BTreeMap<String, Life>,
}

/// One service's faults.
#[derive(Debug, Default)]
struct Life {
    flap_window: Duration,
    /// By code; more than one only between a raise and the clear that follows it.
    open: BTreeMap<String, EpisodeId>,
    /// The last state that was not unknown.
    last_known: Option<ServiceState>,
    /// When the first round of this run began.
    first: Option<Moment>,
    /// When the condition in the last round's state began.
    since: Option<(ServiceState, Moment)>,
    /// When it went from well to not well, lately.
    raises: VecDeque<Duration>,
}

impl ServiceFaults {
    /// Nothing known of any of `services` yet.
    pub(crate) fn new(services: &[Service]) -> Self {
        let life = |service: &Service| (service.name.clone(), Life { flap_window: service.flap_window, ..Life::default() });
        Self { services: services.iter().map(life).collect() }
    }

    /// Whether the service is declared.
    pub(crate) fn declared(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }

    /// Takes in an episode that was open before this start.
    pub(crate) fn seed(&mut self, episode: EpisodeId, last: &FaultChange) {
        let Some(life) = last.key.service().and_then(|name| self.services.get_mut(name)) else { return };
        life.last_known = match last.key.code.as_str() {
            CODE_SERVICE_DOWN => Some(ServiceState::Down),
            CODE_SERVICE_DEGRADED => Some(ServiceState::Degraded),
            _ => life.last_known.or(last.grounds.last_known),
        };
        life.open.insert(last.key.code.clone(), episode);
    }

    /// What ought to be told after `round`.
    pub(crate) fn observe(&mut self, now: Moment, round: &ServiceRound) -> Vec<FaultChange> {
        let Some(life) = self.services.get_mut(&round.service) else { return Vec::new() };
        let began = Moment { at: round.began_at, mono: round.began_mono };
        life.first.get_or_insert(began);
        let since = match life.since {
            Some((state, since)) if state == round.state => since,
            Some(_) | None => began,
        };
        life.since = Some((round.state, since));
        let wanted = fault_of(round.state);
        let mut changes = Vec::new();
        if let Some((code, level)) = wanted.filter(|(code, _)| !life.open.contains_key(*code)) {
            changes.push(change(FaultChangeKind::Raised, round, code, level, (life, since, now)));
        }
        let held_by_flapping =
            wanted.is_none() && is_flapping(&life.raises, life.flap_window) && now.since(since) < life.flap_window;
        if !held_by_flapping {
            let over = life.open.keys().filter(|code| wanted.is_none_or(|(wanted, _)| wanted != *code));
            changes.extend(over.map(|code| change(FaultChangeKind::Cleared, round, code, level_of(code), (life, since, now))));
        }
        if round.state != ServiceState::Unknown && changes.is_empty() {
            life.last_known = Some(round.state);
        }
        changes
    }

    /// The spool has `change` as record `id`.
    pub(crate) fn confirm(&mut self, now: Moment, change: &FaultChange, id: RecordId) {
        let Some(life) = change.key.service().and_then(|name| self.services.get_mut(name)) else { return };
        if change.kind == FaultChangeKind::Cleared {
            life.open.remove(&change.key.code);
        } else if change.kind == FaultChangeKind::Raised {
            if life.open.is_empty() {
                life.raises.push_back(now.mono);
                life.raises.drain(..life.raises.len().saturating_sub(FLAPPING_RAISES));
            }
            life.open.insert(change.key.code.clone(), id);
        }
        // Only once a change is told may the state behind it become the one "known before".
        if let Some((state, _)) = life.since.filter(|(state, _)| *state != ServiceState::Unknown) {
            life.last_known = Some(state);
        }
    }
}

/// The fault of a service in this state.
fn fault_of(state: ServiceState) -> Option<(&'static str, Level)> {
    match state {
        ServiceState::Up => None,
        ServiceState::Degraded => Some((CODE_SERVICE_DEGRADED, Level::Warning)),
        ServiceState::Unknown => Some((CODE_CHECK_UNKNOWN, Level::Warning)),
        ServiceState::Down => Some((CODE_SERVICE_DOWN, Level::Serious)),
    }
}

fn level_of(code: &str) -> Level {
    if code == CODE_SERVICE_DOWN { Level::Serious } else { Level::Warning }
}

fn change(kind: FaultChangeKind, round: &ServiceRound, code: &str, level: Level, of: (&Life, Moment, Moment)) -> FaultChange {
    let (life, since, now) = of;
    let episode = if kind == FaultChangeKind::Cleared { life.open.get(code).cloned() } else { None };
    FaultChange {
        kind,
        key: FaultKey::new(format!("service:{}", round.service), code),
        episode,
        level,
        summary: summary(round),
        grounds: FaultGrounds {
            checks: fitting(&round.tries),
            last_known: life.last_known,
            lasted_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
            ..FaultGrounds::default()
        },
        at: since.at,
        present_at_start: kind == FaultChangeKind::Raised && life.first == Some(since),
    }
}

/// The service, its state, and what the check that decided it saw.
fn summary(round: &ServiceRound) -> String {
    let decisive = round.tries.iter().rev().find(|result| result.state == round.state);
    let seen = decisive.map_or(String::new(), |result| format!(": {} ({}) {}", result.check, result.reason, result.text));
    clean_text(&format!("service {} is {}{seen}", round.service, round.state.as_str()), 300)
}

/// The tries with their texts cut so that they fit a record together.
fn fitting(tries: &[CheckResult]) -> Vec<CheckResult> {
    let each = MAX_GROUNDS_CHARS / (2 * tries.len().max(1));
    let cut = |result: &CheckResult| CheckResult {
        text: clean_text(&result.text, each),
        perf_data: clean_text(&result.perf_data, each),
        ..result.clone()
    };
    tries.iter().map(cut).collect()
}
