//! An offer's life, as the collector sees it. Pure.
//!
//! ```text
//!  offered ─▶ fetching ─▶ awaiting_consent ─▶ awaiting_window ─▶ applying ─▶ probation ─▶ done | rolled_back | refused | failed | unknown
//!     │            │               │                  │
//!     └────────────┴── taken_back, expired ───────────┘   (what the box has begun all the same, it tells, and that counts)
//! ```
//! The box alone knows where a file stands: its reports are numbered by its journal, and the highest number wins, whatever order they
//! come in. A heartbeat's progress carries no number: it only ever moves forward, and ends nothing.

use mainstay_shared::patch::PatchStep;
use serde::{Serialize, Serializer};

use super::{STEPS, step_name};

/// Where an offer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OfferState {
    /// Written, not yet heard of from the box.
    Offered,
    /// As the box says.
    Box(PatchStep),
    /// Taken back by the vendor.
    TakenBack,
    /// The box never took it up in time.
    Expired,
}

impl OfferState {
    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Box(step) => step_name(step),
            Self::TakenBack => "taken_back",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub(crate) fn from_name(name: &str) -> Self {
        let own = [Self::TakenBack, Self::Expired].into_iter();
        own.chain(STEPS.map(Self::Box)).find(|state| state.as_str() == name).unwrap_or(Self::Offered)
    }

    /// Whether nothing more is expected.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Offered => false,
            Self::Box(step) => step.is_final(),
            Self::TakenBack | Self::Expired => true,
        }
    }

    /// How far it is.
    fn rank(self) -> u8 {
        match self {
            Self::Offered => 0,
            Self::Box(PatchStep::Fetching) => 1,
            Self::Box(PatchStep::AwaitingConsent) => 2,
            Self::Box(PatchStep::AwaitingWindow) => 3,
            Self::TakenBack | Self::Expired => 4,
            Self::Box(PatchStep::Applying) => 5,
            Self::Box(PatchStep::Probation) => 6,
            Self::Box(PatchStep::Done | PatchStep::RolledBack | PatchStep::Refused | PatchStep::Failed | PatchStep::Unknown) => 7,
        }
    }
}

impl Serialize for OfferState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a numbered report makes of an offer whose state rests on the report `known`.
pub(crate) fn reported(state: OfferState, known: i64, number: i64, step: PatchStep) -> Option<OfferState> {
    let told = OfferState::Box(step);
    let ended_here = matches!(state, OfferState::TakenBack | OfferState::Expired);
    if number <= known || (ended_here && told.rank() < state.rank()) {
        return None;
    }
    Some(told)
}

/// What a heartbeat's progress makes of it.
pub(crate) fn progressed(state: OfferState, step: PatchStep) -> Option<OfferState> {
    let told = OfferState::Box(step);
    (!step.is_final() && !state.is_over() && told.rank() >= state.rank()).then_some(told)
}

#[cfg(test)]
mod tests {
    use PatchStep::{Applying, AwaitingConsent, AwaitingWindow, Done, Fetching, Probation, Refused, RolledBack};

    use super::*;

    #[test]
    fn the_highest_number_wins_whatever_order_reports_come_in() {
        let rows = [
            ("the first word", OfferState::Offered, 0, (1, Fetching), Some(Fetching)),
            ("the next", OfferState::Box(Fetching), 1, (2, AwaitingConsent), Some(AwaitingConsent)),
            ("an older one that came late", OfferState::Box(Probation), 5, (4, Applying), None),
            ("the same again", OfferState::Box(Probation), 5, (5, Probation), None),
            ("undone by a power cut, and waiting again", OfferState::Box(Applying), 5, (6, AwaitingWindow), Some(AwaitingWindow)),
            ("rolled back on the box a week later", OfferState::Box(Done), 7, (9, RolledBack), Some(RolledBack)),
            ("taken back in time", OfferState::TakenBack, 2, (3, AwaitingWindow), None),
            ("taken back too late", OfferState::TakenBack, 2, (4, Done), Some(Done)),
            ("the box says that it is gone", OfferState::TakenBack, 2, (3, Refused), Some(Refused)),
            ("a box that was switched off for long", OfferState::Expired, 0, (1, Fetching), None),
        ];
        for (sentence, state, known, (number, step), expected) in rows {
            assert_eq!(reported(state, known, number, step), expected.map(OfferState::Box), "{sentence}");
        }
    }

    #[test]
    fn progress_only_moves_forward_and_ends_nothing() {
        let rows = [
            ("begins to fetch", OfferState::Offered, Fetching, true),
            ("goes on fetching", OfferState::Box(Fetching), Fetching, true),
            ("overtaken by a report", OfferState::Box(Applying), Fetching, false),
            ("an end is a report's to tell", OfferState::Box(Probation), Done, false),
            ("nothing after the end", OfferState::Box(Done), Probation, false),
            ("nothing after it was taken back", OfferState::TakenBack, Applying, false),
        ];
        for (sentence, state, step, moves) in rows {
            assert_eq!(progressed(state, step).is_some(), moves, "{sentence}");
        }
    }

    #[test]
    fn a_name_leads_back_to_its_state() {
        for state in
            [OfferState::Offered, OfferState::TakenBack, OfferState::Expired].into_iter().chain(STEPS.map(OfferState::Box))
        {
            assert_eq!(OfferState::from_name(state.as_str()), state);
        }
    }
}
