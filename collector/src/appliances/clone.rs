//! Whether a report comes from the appliance as it went on living, or from a copy of it (a clone, a rewound snapshot): pure.
//!
//! Every acknowledgement carries a nonce that the agent stores durably before it echoes it. The newest is accepted, which makes the
//! next one, and the one before it (the answer may have been lost). Anything older proves a copy. A request that comes late,
//! behind a newer one of its epoch or from an epoch that has ended, is only stale: it is refused and proves nothing, unless ended
//! epochs speak again and again: then two machines are at work that keep each other's nonces fresh.

/// So many times may an ended epoch speak within the window that the caller counts in; once more proves two machines.
const ENDED_EPOCHS: u32 = 2;

/// What the collector remembers of an appliance's last report. Empty text: nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) attempt: i64,
    pub(crate) nonce: &'a str,
    pub(crate) nonce_before: &'a str,
}

/// What a report says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) attempt: i64,
    pub(crate) echo: Option<&'a str>,
    /// Whether the collector has taken records of this epoch before.
    pub(crate) epoch_known: bool,
    /// How often an epoch of this appliance that had ended has spoken lately.
    pub(crate) ended_epochs: u32,
}

/// How a report stands to the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NonceVerdict {
    /// The newest nonce was echoed, or none was handed out yet: a new one takes its place.
    Rotate,
    /// The answer before was lost: the same nonce is handed out again.
    HandOutAgain,
    /// A newer request came before: nothing is processed.
    Stale(StaleReason),
    /// A copy of the appliance speaks: it is held, its faults are still taken.
    Copy(HoldReason),
}

/// Why a request is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StaleReason {
    /// A later attempt of this epoch came before.
    Attempt,
    /// The appliance has since begun another epoch.
    Epoch,
}

/// What proved a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// It echoed a nonce older than the one before the newest.
    OldNonce,
    /// It echoed none although one was handed out and echoed.
    NoNonce,
    /// Two runs of the agent take turns.
    TwoRuns,
    /// It sent another record under the id of one that was taken.
    OtherRecordSameId,
}

impl HoldReason {
    /// All reasons.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::OldNonce, Self::NoNonce, Self::TwoRuns, Self::OtherRecordSameId];

    /// The word in the database, in events and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OldNonce => "old_nonce",
            Self::NoNonce => "no_nonce",
            Self::TwoRuns => "two_runs",
            Self::OtherRecordSameId => "other_record_same_id",
        }
    }
}

/// Decides on a report.
pub(crate) fn judge(remembered: Remembered<'_>, said: Said<'_>) -> NonceVerdict {
    if said.epoch == remembered.epoch && said.attempt <= remembered.attempt {
        return NonceVerdict::Stale(StaleReason::Attempt);
    }
    // No nonce stored: the first contact in this life of the database (a restore forgets nonces, whatever is echoed after).
    if remembered.nonce.is_empty() {
        return NonceVerdict::Rotate;
    }
    if said.epoch != remembered.epoch && said.epoch_known {
        return match said.ended_epochs {
            ..=ENDED_EPOCHS => NonceVerdict::Stale(StaleReason::Epoch),
            _ => NonceVerdict::Copy(HoldReason::TwoRuns),
        };
    }
    let echo = said.echo.unwrap_or("");
    if echo == remembered.nonce {
        NonceVerdict::Rotate
    } else if echo == remembered.nonce_before || remembered.nonce_before.is_empty() {
        // Nothing that this life of the database handed out was echoed yet: what the agent still holds is of the life before (a
        // restore, another enrolment), and the first answer was lost.
        NonceVerdict::HandOutAgain
    } else if echo.is_empty() {
        NonceVerdict::Copy(HoldReason::NoNonce)
    } else {
        NonceVerdict::Copy(HoldReason::OldNonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_a_report_can_stand_to_the_last_one_has_its_verdict() {
        use NonceVerdict::{Copy, HandOutAgain, Rotate, Stale};
        let none = Remembered { epoch: "", attempt: 0, nonce: "", nonce_before: "" };
        let first = Remembered { epoch: "e", attempt: 1, nonce: "n1", ..none };
        let third = Remembered { epoch: "e", attempt: 3, nonce: "n3", nonce_before: "n2" };
        let said =
            |epoch, attempt, echo| Said { epoch, attempt, echo, epoch_known: epoch == "e" || epoch == "old", ended_epochs: 0 };
        let fourth = Said { ended_epochs: 3, ..said("old", 7, Some("n2")) };
        let rows = [
            ("the first contact", none, said("e", 1, None), Rotate),
            ("the first after a restore, with a nonce that was forgotten", none, said("e", 9, Some("n7")), Rotate),
            ("the first answer was lost", first, said("e", 2, None), HandOutAgain),
            ("the first answer after a restore was lost", first, said("e", 2, Some("n7")), HandOutAgain),
            ("likewise, to a kill", first, said("f", 1, Some("n7")), HandOutAgain),
            ("the newest nonce", third, said("e", 4, Some("n3")), Rotate),
            ("the newest nonce from a new epoch", third, said("f", 1, Some("n3")), Rotate),
            ("the last answer was lost", third, said("e", 4, Some("n2")), HandOutAgain),
            ("the last answer was lost to a kill", third, said("f", 1, Some("n2")), HandOutAgain),
            ("an older one", third, said("f", 1, Some("n1")), Copy(HoldReason::OldNonce)),
            ("none, though several were handed out", third, said("f", 1, None), Copy(HoldReason::NoNonce)),
            ("the same attempt again", third, said("e", 3, Some("n3")), Stale(StaleReason::Attempt)),
            ("an attempt from before", third, said("e", 2, Some("n1")), Stale(StaleReason::Attempt)),
            ("an ended epoch for the third time", third, Said { ended_epochs: 2, ..fourth }, Stale(StaleReason::Epoch)),
            ("and for the fourth", third, fourth, Copy(HoldReason::TwoRuns)),
            ("an epoch that has ended", third, said("old", 7, Some("n1")), Stale(StaleReason::Epoch)),
        ];
        for (sentence, remembered, said, expected) in rows {
            assert_eq!(judge(remembered, said), expected, "{sentence}");
        }
    }
}
