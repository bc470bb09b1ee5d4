//! What a change means for an episode: pure. A repeated record changes nothing; a clear whose raise was lost is still recorded.
//!
//! Stands between the intake and the tickets; never asks what a ticket would make of it.

use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::{EpisodeId, RecordId};

use super::Episode;

/// What to do with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An episode that was not known.
    Begin(Begin),
    /// An episode thought over is said to go on.
    Again,
    /// Its level, summary or grounds changed.
    Change,
    /// It is over.
    Clear,
    /// Nothing.
    Ignore(Ignored),
}

/// How an unknown episode comes to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Its raise record came.
    Raised,
    /// Its raise record and its clear came together, or only the clear did: over before anybody could be told.
    AlreadyCleared,
    /// Its raise record was lost (a gap, a restored collector); a later one tells of it.
    RaiseLost,
}

/// Why a change has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// The episode is known and open.
    Known,
    /// The episode is known and over.
    AlreadyCleared,
}

/// The episode that a change is about: its own record's id for a raise.
pub(crate) fn episode_of(record: &RecordId, change: &FaultChange) -> EpisodeId {
    match (change.kind, &change.episode) {
        (FaultChangeKind::Raised, _) | (_, None) => record.clone(),
        (FaultChangeKind::Worsened | FaultChangeKind::Cleared | FaultChangeKind::Restated, Some(episode)) => episode.clone(),
    }
}

/// Judges one change. `cleared_later`: the same report also brings this episode's clear.
pub(crate) fn judge(kind: FaultChangeKind, known: Option<&Episode>, cleared_later: bool) -> Step {
    use FaultChangeKind::{Cleared, Raised, Restated, Worsened};
    match (kind, known.map(|episode| episode.open)) {
        (Raised | Worsened | Restated, None) if cleared_later => Step::Begin(Begin::AlreadyCleared),
        (Cleared, None) => Step::Begin(Begin::AlreadyCleared),
        (Raised, None) => Step::Begin(Begin::Raised),
        (Worsened | Restated, None) => Step::Begin(Begin::RaiseLost),
        (Raised, Some(true)) => Step::Ignore(Ignored::Known),
        (Worsened | Restated, Some(true)) => Step::Change,
        (Cleared, Some(true)) => Step::Clear,
        (Restated, Some(false)) if !cleared_later => Step::Again,
        (Raised | Worsened | Cleared | Restated, Some(false)) => Step::Ignore(Ignored::AlreadyCleared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FaultChangeKind::{Cleared, Raised, Restated, Worsened};
    use mainstay_shared::fault::Level;
    use mainstay_shared::time_source::UnixMs;

    fn known(open: bool) -> Episode {
        Episode {
            tenant_id: "t".into(),
            appliance_id: "a".into(),
            component: "disk:/".into(),
            code: "disk_space_low".into(),
            episode: "e".into(),
            open,
            level: Level::Warning,
            summary: String::new(),
            grounds: "{}".into(),
            ticket_id: "T-000001".into(),
            raised_at: UnixMs(0),
            received_at: UnixMs(0),
            cleared_at: None,
        }
    }

    #[test]
    fn each_change_of_each_episode_has_one_meaning() {
        let (open, over) = (known(true), known(false));
        let rows = [
            ("a raise begins an episode", Raised, None, false, Step::Begin(Begin::Raised)),
            ("a raise with its clear in the same report is over already", Raised, None, true, Step::Begin(Begin::AlreadyCleared)),
            ("a raise repeated changes nothing", Raised, Some(&open), false, Step::Ignore(Ignored::Known)),
            (
                "a raise repeated after its clear changes nothing",
                Raised,
                Some(&over),
                false,
                Step::Ignore(Ignored::AlreadyCleared),
            ),
            ("a clear ends it", Cleared, Some(&open), false, Step::Clear),
            ("a clear repeated changes nothing", Cleared, Some(&over), false, Step::Ignore(Ignored::AlreadyCleared)),
            ("a clear whose raise was lost is recorded", Cleared, None, false, Step::Begin(Begin::AlreadyCleared)),
            ("a worsening changes it", Worsened, Some(&open), false, Step::Change),
            ("a worsening whose raise was lost begins it", Worsened, None, false, Step::Begin(Begin::RaiseLost)),
            ("a restatement of what is known is a change at most", Restated, Some(&open), false, Step::Change),
            ("a restatement of what a restored collector forgot begins it", Restated, None, false, Step::Begin(Begin::RaiseLost)),
            ("a restatement of what was thought over takes it up again", Restated, Some(&over), false, Step::Again),
        ];
        for (sentence, kind, known, cleared_later, expected) in rows {
            assert_eq!(judge(kind, known, cleared_later), expected, "{sentence}");
        }
    }
}
