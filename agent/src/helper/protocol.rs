//! What may be said to the helper over its socket: one JSON line each way, a file as a descriptor beside [`Request::Take`].
//!
//! Who speaks is told by the kernel (SO_PEERCRED): root is the administrator on the box, the reporter's uid is the network's side; everybody
//! else is refused. While something is applied, progress lines come before the last answer.

use std::collections::BTreeMap;

use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{Installed, Offer, PatchKind, PatchProgress, PatchReport, PatchStep};
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Copy the file behind the descriptor into quarantine, verify the copy, keep it. Anyone allowed to speak.
    Take {
        /// The offer that brought it.
        offer_id: Option<String>,
    },
    /// Verify the file behind the descriptor and tell what it is; nothing is kept.
    Verify,
    /// Everything that is known, for a listing. Codes only to root.
    List,
    /// Agree. Root needs no code; one that was typed at a page is judged, whoever brings it.
    Consent {
        /// Which file.
        sha256: String,
        /// Six digits as typed.
        code: Option<String>,
    },
    /// Refuse, likewise.
    Refuse {
        /// Which file.
        sha256: String,
        /// Six digits as typed.
        code: Option<String>,
        /// Why, in the customer's words.
        reason: String,
    },
    /// The vendor took the offer back.
    TakenBack {
        /// Which offer.
        offer_id: String,
    },
    /// An offer's file could not be had and is given up: to be reported, in the order of the other reports.
    NotFetched {
        /// As the collector made it.
        offer: Offer,
        /// What went wrong, for a person.
        why: String,
    },
    /// Begin what is consented and due now. Root may begin at once (`now`), without the window.
    Proceed {
        /// Only this file; none: whatever is due.
        sha256: Option<String>,
        /// Without waiting for the window; root only.
        now: bool,
        /// What the business services answer at this moment.
        services: BTreeMap<String, ServiceState>,
    },
    /// One look at the business services during probation. A newer agent says it to the helper of the version before, which judges it: it
    /// never gets another field.
    Health {
        /// Their answers.
        services: BTreeMap<String, ServiceState>,
        /// Told by the reporter alone: whether it has reached the collector since its start.
        #[serde(default)]
        reached: Option<bool>,
    },
    /// Back to the version before. Root only.
    Rollback {
        /// Of the agent, not of the product.
        #[serde(default)]
        agent: bool,
    },
    /// Reports with a number above this one. A helper that has not come so far has lost its memory, and numbers on from there.
    Reports {
        /// The last that was taken.
        after: u64,
    },
    /// What is installed here, under which say.
    Installed,
}

/// An answer; the last line is never [`Answer::Progress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "with", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one at a time, never kept in a list")]
pub enum Answer {
    /// How far it is; more lines follow.
    Progress(PatchProgress),
    /// A file, after [`Request::Take`], [`Request::Verify`], [`Request::Consent`], [`Request::Refuse`], [`Request::Proceed`].
    File(KnownFile),
    /// Files, newest first.
    Files(Vec<KnownFile>),
    /// Reports, oldest first; at most a hundred at a time.
    Reports(Vec<PatchReport>),
    /// What is installed; none on a box that was not set up for patches.
    Installed(Option<Installed>),
    /// Done; or nothing was due.
    Nothing,
    /// Refused, with a code of `patchkit` or of this socket (`not_allowed`, `wrong_code`, `no_such_file`, `busy`, `bad_request`).
    Refused {
        /// The code.
        code: String,
        /// For a person.
        detail: String,
    },
}

/// A file that the box knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// The offer that brought it.
    pub offer_id: Option<String>,
    /// Patch or action.
    pub kind: PatchKind,
    /// Its product.
    pub product: String,
    /// What runs, or ran before it.
    pub from_version: Option<String>,
    /// Where it leads.
    pub to_version: String,
    /// Title in Chinese and English.
    pub title: (String, String),
    /// Notes in Chinese and English.
    pub notes: (String, String),
    /// Length of the file, bytes.
    pub bytes: u64,
    /// Where it stands.
    pub step: PatchStep,
    /// Why, if there is a why: code and text.
    pub reason: (String, String),
    /// The end of its scripts' output.
    pub output: String,
    /// When it came there.
    pub at: UnixMs,
    /// The six digits that approve it at the page of its link; only root sees them.
    pub code: Option<String>,
    /// Agreed to, and its window is open or it needs none: it begins as soon as the appliance is well.
    #[serde(default)]
    pub is_due: bool,
    /// When the next three install windows open; empty if none is set (any time).
    pub next_windows: Vec<UnixMs>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_can_be_told_and_is_heard_as_told() {
        let answers = [
            Answer::Files(Vec::new()),
            Answer::Reports(Vec::new()),
            Answer::Installed(None),
            Answer::Nothing,
            Answer::Refused { code: "busy".into(), detail: String::new() },
        ];
        for answer in answers {
            let line = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer, "{line}");
        }
    }
}
