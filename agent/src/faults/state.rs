//! The life of one condition of the machine.
//!
//! ```text
//!  Quiet ──bad──▶ Rising ──lasting, confirmed──▶ Open ◀──────────┐
//!    ▲    ◀─good──┘                               │ other level  │ same level
//!    └────────── settled, confirmed ◀── Moving ◀──┘──────────────┘
//! ```
//! Pure: what was observed is an argument, and so is now. A proposal changes nothing; only `confirm` does.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_shared::fault::{FaultChangeKind, Level};
use mainstay_shared::ids::{EpisodeId, RecordId};

use super::Moment;

/// So many raises within the flap window, and the condition is flapping.
pub(super) const FLAPPING_RAISES: usize = 3;

/// How long things must last before they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Bad for so long, before a raise or a higher level.
    pub(crate) lasting: Duration,
    /// Good for so long, before a lower level or a clear.
    pub(crate) settling: Duration,
    /// A flapping condition must be good for so long.
    pub(crate) flap_window: Duration,
}

/// What ought to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proposal {
    /// It began.
    Raise { level: Level, since: Moment, present_at_start: bool },
    /// Its level changed.
    Change { episode: EpisodeId, level: Level, since: Moment },
    /// It ended.
    Clear { episode: EpisodeId, level: Level, since: Moment },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    episode: EpisodeId,
    level: Level,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Quiet,
    /// Bad, not told yet.
    Rising {
        since: Moment,
    },
    /// Told, and still as told.
    Open(Held),
    /// Told, and since then another level, or none.
    Moving {
        held: Held,
        worse: bool,
        since: Moment,
    },
}

/// One condition, from its first measurement on.
#[derive(Debug)]
pub(crate) struct Condition {
    state: State,
    first_seen: Option<Moment>,
    seen_good: bool,
    last_measured: Option<Moment>,
    raises: VecDeque<Duration>,
}

impl Condition {
    /// One that is measured for the first time.
    pub(crate) fn new(now: Moment) -> Self {
        Self { state: State::Quiet, first_seen: Some(now), seen_good: false, last_measured: None, raises: VecDeque::new() }
    }

    /// One that was open before this start.
    pub(crate) fn seeded(episode: EpisodeId, level: Level) -> Self {
        let state = State::Open(Held { episode, level });
        Self { state, first_seen: None, seen_good: false, last_measured: None, raises: VecDeque::new() }
    }

    /// The level that was told last, if it is open.
    pub(crate) fn level(&self) -> Option<Level> {
        match &self.state {
            State::Quiet | State::Rising { .. } => None,
            State::Open(held) | State::Moving { held, .. } => Some(held.level),
        }
    }

    /// Takes a judgement in; what ought to be told now.
    pub(crate) fn observe(
        &mut self,
        judged: Option<Level>,
        now: Moment,
        timing: &Timing,
        only_after_good: bool,
    ) -> Option<Proposal> {
        self.seen_good |= judged.is_none();
        let counts = self.seen_good || !only_after_good || self.level().is_some();
        let judged = judged.filter(|_| counts);
        self.state = next(std::mem::replace(&mut self.state, State::Quiet), judged, now);
        self.proposal(judged, now, timing)
    }

    fn proposal(&self, judged: Option<Level>, now: Moment, timing: &Timing) -> Option<Proposal> {
        match (&self.state, judged) {
            (State::Rising { since }, Some(level)) if now.since(*since) >= timing.lasting => {
                let present_at_start = self.first_seen == Some(*since);
                Some(Proposal::Raise { level, since: *since, present_at_start })
            }
            (State::Moving { held, since, .. }, Some(level)) => {
                let needed = if level > held.level { timing.lasting } else { timing.settling };
                let (episode, since) = (held.episode.clone(), *since);
                (now.since(since) >= needed).then_some(Proposal::Change { episode, level, since })
            }
            (State::Moving { held, since, .. }, None) => {
                let needed = if is_flapping(&self.raises, timing.flap_window) { timing.flap_window } else { timing.settling };
                let (episode, level, since) = (held.episode.clone(), held.level, *since);
                (now.since(since) >= needed).then_some(Proposal::Clear { episode, level, since })
            }
            (State::Quiet | State::Rising { .. } | State::Open(_), _) => None,
        }
    }

    /// The spool has what was proposed.
    pub(crate) fn confirm(&mut self, now: Moment, kind: FaultChangeKind, level: Level, id: RecordId) {
        match (kind, std::mem::replace(&mut self.state, State::Quiet)) {
            (FaultChangeKind::Raised, _) => {
                self.raises.push_back(now.mono);
                self.raises.drain(..self.raises.len().saturating_sub(FLAPPING_RAISES));
                self.state = State::Open(Held { episode: id, level });
            }
            (FaultChangeKind::Worsened | FaultChangeKind::Restated, State::Open(held) | State::Moving { held, .. }) => {
                self.state = State::Open(Held { level, ..held });
            }
            (FaultChangeKind::Cleared | FaultChangeKind::Worsened | FaultChangeKind::Restated, _) => {}
        }
    }

    /// It was measured, or its measuring hangs: either way it is still there.
    pub(crate) fn measured(&mut self, now: Moment) {
        self.last_measured = Some(now);
    }

    /// It was not measured; if that has been so for `limit` while it is open, the episode to clear.
    pub(crate) fn unmeasured(&mut self, now: Moment, limit: Duration) -> Option<(EpisodeId, Level)> {
        let last = *self.last_measured.get_or_insert(now);
        match &self.state {
            State::Open(held) | State::Moving { held, .. } if now.since(last) >= limit => {
                Some((held.episode.clone(), held.level))
            }
            State::Quiet | State::Rising { .. } | State::Open(_) | State::Moving { .. } => None,
        }
    }

    /// Whether it still tells anything: a component that went away and has nothing open is forgotten.
    pub(crate) fn is_worth_keeping(&self, now: Moment, limit: Duration) -> bool {
        self.level().is_some() || self.last_measured.is_none_or(|last| now.since(last) < limit)
    }
}

/// Whether the last [`FLAPPING_RAISES`] raises all lie within the window.
pub(super) fn is_flapping(raises: &VecDeque<Duration>, window: Duration) -> bool {
    match (raises.front(), raises.back()) {
        (Some(first), Some(last)) if raises.len() >= FLAPPING_RAISES => last.saturating_sub(*first) <= window,
        _ => false,
    }
}

fn next(state: State, judged: Option<Level>, now: Moment) -> State {
    match (state, judged) {
        (State::Quiet | State::Rising { .. }, None) => State::Quiet,
        (State::Quiet, Some(_)) => State::Rising { since: now },
        (State::Rising { since }, Some(_)) => State::Rising { since },
        (State::Open(held) | State::Moving { held, .. }, Some(level)) if level == held.level => State::Open(held),
        (State::Open(held), judged) => State::Moving { worse: judged > Some(held.level), held, since: now },
        (State::Moving { held, worse, since }, judged) => {
            let now_worse = judged > Some(held.level);
            State::Moving { since: if worse == now_worse { since } else { now }, worse: now_worse, held }
        }
    }
}
