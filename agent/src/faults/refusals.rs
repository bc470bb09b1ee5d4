//! What the spool refused (disk full, read-only, broken; lane full): which changes of faults came and went without ever being
//! accepted (R31). Pure.
//!
//! A refused change is proposed again as long as it is so, and leaves this list once it is accepted. What is left when the spool
//! takes records again was never told: it is counted and named in a fault of the agent's own, so that the collector hears of it.

use std::collections::BTreeMap;

use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::limits::clean_text;
use mainstay_shared::time_source::UnixMs;

use super::Moment;

/// The spool took nothing for a while.
const CODE_COULD_NOT_RECORD: &str = "agent_could_not_record";
/// After so many looks without a refusal everything that still is so has been proposed again.
const QUIET_LOOKS: u32 = 2;
/// More are counted, not named.
const NAMED: usize = 200;
const MAX_SUMMARY_CHARS: usize = 300;

/// The refusals of one bad time of the spool.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    since: Option<Moment>,
    untold: BTreeMap<(FaultKey, &'static str), UnixMs>,
    uncounted: u64,
    quiet_looks: u32,
}

impl Refusals {
    /// Something that is kept for the next try was not accepted.
    pub(crate) fn refused(&mut self, now: Moment) {
        self.since.get_or_insert(now);
        self.quiet_looks = 0;
    }

    /// A change of a fault was not accepted.
    pub(crate) fn refused_change(&mut self, now: Moment, change: &FaultChange) {
        self.refused(now);
        let what = (change.key.clone(), change.kind.as_str());
        if self.untold.len() < NAMED || self.untold.contains_key(&what) {
            self.untold.entry(what).or_insert(change.at);
        } else {
            self.uncounted += 1;
        }
    }

    /// A change of a fault was accepted.
    pub(crate) fn accepted(&mut self, change: &FaultChange) {
        if self.since.is_some() {
            self.untold.remove(&(change.key.clone(), change.kind.as_str()));
        }
    }

    /// One look later: the fault to raise when the bad time seems to be over.
    pub(crate) fn look(&mut self, now: Moment) -> Option<FaultChange> {
        let since = self.since?;
        self.quiet_looks += 1;
        (self.quiet_looks >= QUIET_LOOKS).then(|| self.report(since, now))
    }

    /// The fault was accepted: the bad time is over and accounted for.
    pub(crate) fn told(&mut self) {
        *self = Self::default();
    }

    fn report(&self, since: Moment, now: Moment) -> FaultChange {
        let count = self.untold.len() as u64 + self.uncounted;
        let lasted = now.since(since);
        let names: Vec<String> =
            self.untold.iter().map(|((key, kind), at)| format!("{} {} {kind} {at}", key.component, key.code)).collect();
        let lost = if count == 0 {
            "nothing was lost by it".to_owned()
        } else {
            format!("{count} changes were never recorded: {}", names.join(", "))
        };
        let summary = format!("agent: its disk or full queue took no records for {} s; {lost}", lasted.as_secs());
        FaultChange {
            kind: FaultChangeKind::Raised,
            key: FaultKey::new("agent", CODE_COULD_NOT_RECORD),
            episode: None,
            level: if count == 0 { Level::Warning } else { Level::Serious },
            summary: clean_text(&summary, MAX_SUMMARY_CHARS),
            grounds: FaultGrounds {
                value: Some(count as f64),
                unit: "count".to_owned(),
                lasted_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                ..FaultGrounds::default()
            },
            at: since.at,
            present_at_start: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Moment {
        Moment { at: UnixMs(i64::try_from(second).unwrap() * 1000), mono: Duration::from_secs(second) }
    }

    fn change(component: &str, kind: FaultChangeKind) -> FaultChange {
        let key = FaultKey::new(component, "service_down");
        let nothing = Refusals::default().report(at(0), at(0));
        FaultChange { kind, key, ..nothing }
    }

    #[test]
    fn what_came_and_went_while_nothing_could_be_recorded_is_counted_and_named_afterwards() {
        let (shop, till) = (change("service:shop", FaultChangeKind::Raised), change("service:till", FaultChangeKind::Raised));
        let mut refusals = Refusals::default();
        assert_eq!(refusals.look(at(1)), None, "nothing was refused");
        for second in 10..13 {
            refusals.refused_change(at(second), &shop);
            refusals.refused_change(at(second), &till);
        }
        assert_eq!(refusals.look(at(20)), None, "too early to tell");
        refusals.refused_change(at(25), &till);
        assert_eq!(refusals.look(at(30)), None, "it refused again");
        refusals.accepted(&till);
        let told = refusals.look(at(40)).expect("the bad time is over");
        assert_eq!((told.grounds.value, told.level, told.at), (Some(1.0), Level::Serious, UnixMs(10_000)));
        assert!(told.summary.contains("30 s") && told.summary.contains("service:shop"), "{}", told.summary);
        assert!(!told.summary.contains("service:till"), "{}", told.summary);
        assert!(refusals.look(at(50)).is_some(), "told again until it is accepted");
        refusals.told();
        assert_eq!(refusals.look(at(60)), None);
    }

    #[test]
    fn a_bad_time_that_cost_nothing_is_told_as_a_warning() {
        let mut refusals = Refusals::default();
        refusals.refused(at(10));
        refusals.look(at(20));
        let told = refusals.look(at(30)).expect("it is over");
        assert_eq!((told.grounds.value, told.level), (Some(0.0), Level::Warning));
    }
}
