//! Readings and rounds of checks become faults that are raised, worsened and cleared. Pure: moments are arguments, nothing is sent.
//!
//! ```text
//! readings ─▶ rules ─▶ state ┐
//!                            ├─▶ proposed changes ─▶ (spool accepts) ─▶ confirm
//! rounds   ─▶ services ──────┘
//! ```
//! A change is only proposed until [`Detector::confirm`] says that the spool has it: whatever was not accepted is proposed again
//! at the next observation, so that a full disk loses nothing. The table of codes for people is docs/faults.md.

mod rules;
mod state;
mod services;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_shared::fault::{CODE_AGENT_SAFE_MODE, FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{EpisodeId, RecordId};
use mainstay_shared::time_source::UnixMs;

use crate::checks::ServiceRound;
use crate::config::Config;
use crate::probes::{HUNG, Reading};
pub(crate) use refusals::Refusals;
use rules::Rule;
use services::ServiceFaults;
use state::{Condition, Proposal};

/// A condition that is measured no more for so long is over, as far as anyone can tell.
const UNMEASURED_AFTER: Duration = Duration::from_secs(120);

/// A moment on both clocks: wall time for stamps, monotonic time for spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Wall time.
    pub(crate) at: UnixMs,
    /// Monotonic time.
    pub(crate) mono: Duration,
}

impl Moment {
    fn since(self, earlier: Self) -> Duration {
        self.mono.saturating_sub(earlier.mono)
    }
}

/// Decides what is wrong with the machine and its services.
#[derive(Debug)]
pub(crate) struct Detector {
    rules: Vec<Rule>,
    flap_window: Duration,
    conditions: BTreeMap<FaultKey, Condition>,
    services: ServiceFaults,
    /// Open since before this start, with no rule or declaration that could ever close them.
    orphans: BTreeMap<FaultKey, FaultChange>,
    safe_mode: bool,
}

impl Detector {
    /// A detector that goes on with the episodes `open` from before. In safe mode the machine is not judged.
    pub(crate) fn new(config: &Config, open: impl IntoIterator<Item = (EpisodeId, FaultChange)>, safe_mode: bool) -> Self {
        let rules = rules::all(&config.probes);
        let mut services = ServiceFaults::new(&config.services);
        let (mut conditions, mut orphans) = (BTreeMap::new(), BTreeMap::new());
        for (episode, last) in open {
            let key = last.key.clone();
            if key.service().is_some_and(|name| services.declared(name)) {
                services.seed(episode, &last);
            } else if rules.iter().any(|rule| rule.code == key.code) {
                conditions.insert(key, Condition::seeded(episode, last.level));
            } else {
                orphans.insert(key, FaultChange { episode: Some(episode), ..last });
            }
        }
        Self { rules, flap_window: config.probes.flap_window, conditions, services, orphans, safe_mode }
    }

    /// Judges a round of readings; the changes proposed, worst news first in the order of the rules.
    pub(crate) fn observe_readings(&mut self, now: Moment, readings: &[Reading]) -> Vec<FaultChange> {
        let hung: BTreeSet<&str> =
            readings.iter().filter(|r| r.metric == HUNG && r.value >= 1.0).map(|r| r.component.as_str()).collect();
        let mut changes = Vec::new();
        let mut measured = BTreeSet::new();
        for (rule, reading) in rules::matching(&self.rules, readings) {
            let key = FaultKey::new(&reading.component, rule.code);
            let condition = self.conditions.entry(key.clone()).or_insert_with(|| Condition::new(now));
            let judged = rule.judge(reading.value, condition.level());
            let proposal = condition.observe(judged, now, &rule.timing(self.flap_window), rule.only_after_good);
            changes.extend(proposal.map(|proposal| machine_change(rule, reading, proposal, now)));
            measured.insert(key);
        }
        for (key, condition) in &mut self.conditions {
            let hangs = hung.contains(key.component.as_str());
            if measured.contains(key) || hangs {
                condition.measured(now);
            } else if let Some((episode, level)) = condition.unmeasured(now, UNMEASURED_AFTER) {
                changes.push(unmeasured_change(key.clone(), episode, level, now));
            }
        }
        self.conditions.retain(|_, condition| condition.is_worth_keeping(now, UNMEASURED_AFTER));
        changes.extend(self.observe_orphans(now));
        changes
    }

    /// Judges a round of a service's checks: what is raised comes before what is cleared.
    pub(crate) fn observe_round(&mut self, now: Moment, round: &ServiceRound) -> Vec<FaultChange> {
        self.services.observe(now, round)
    }

    /// Clears what was open before this start and can't be judged any more: a service declared no longer, a probe switched off,
    /// the safe mode that was left. In safe mode only services are looked at.
    pub(crate) fn observe_orphans(&self, now: Moment) -> Vec<FaultChange> {
        let closing = self.orphans.values().filter(|last| !self.safe_mode || last.key.service().is_some());
        closing
            .map(|last| FaultChange { kind: FaultChangeKind::Cleared, summary: farewell(&last.key), at: now.at, ..last.clone() })
            .collect()
    }

    /// The spool has `change` as record `id`: from now on it is so.
    pub(crate) fn confirm(&mut self, now: Moment, change: &FaultChange, id: RecordId) {
        if self.orphans.contains_key(&change.key) {
            self.orphans.remove(&change.key);
        } else if change.key.service().is_some() {
            self.services.confirm(now, change, id);
        } else if let Some(condition) = self.conditions.get_mut(&change.key) {
            condition.confirm(now, change.kind, change.level, id);
        }
    }
}

/// The fault that a start in safe mode raises, once; the detector clears it at the next start that is none.
pub(crate) fn safe_mode_raised(at: UnixMs) -> FaultChange {
    FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new("agent", CODE_AGENT_SAFE_MODE),
        episode: None,
        level: Level::Serious,
        summary: "agent: safe mode after three crashes within five minutes; the machine is not measured".to_owned(),
        grounds: FaultGrounds { value: Some(3.0), unit: "count".to_owned(), threshold: Some(3.0), ..FaultGrounds::default() },
        at,
        present_at_start: true,
    }
}

fn farewell(key: &FaultKey) -> String {
    if key.code == CODE_AGENT_SAFE_MODE {
        return "agent: safe mode was left".to_owned();
    }
    match key.service() {
        Some(name) => format!("service {name}: declared on this appliance no longer"),
        None => format!("{}: not measured any more", key.component),
    }
}

fn machine_change(rule: &Rule, reading: &Reading, proposal: Proposal, now: Moment) -> FaultChange {
    let (kind, episode, level, since, present_at_start) = match proposal {
        Proposal::Raise { level, since, present_at_start } => (FaultChangeKind::Raised, None, level, since, present_at_start),
        Proposal::Change { episode, level, since } => (FaultChangeKind::Worsened, Some(episode), level, since, false),
        Proposal::Clear { episode, level, since } => (FaultChangeKind::Cleared, Some(episode), level, since, false),
    };
    let threshold = rule.threshold(level);
    FaultChange {
        kind,
        key: FaultKey::new(&reading.component, rule.code),
        episode,
        level,
        summary: rule.summary(&reading.component, reading.value, threshold),
        grounds: FaultGrounds {
            value: Some(reading.value),
            unit: rule.unit.to_owned(),
            threshold: Some(threshold),
            lasted_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
            ..FaultGrounds::default()
        },
        at: since.at,
        present_at_start,
    }
}

fn unmeasured_change(key: FaultKey, episode: EpisodeId, level: Level, now: Moment) -> FaultChange {
    let summary = farewell(&key);
    let grounds = FaultGrounds::default();
    FaultChange {
        kind: FaultChangeKind::Cleared,
        key,
        episode: Some(episode),
        level,
        summary,
        grounds,
        at: now.at,
        present_at_start: false,
    }
}

#[cfg(test)]
mod tests;
