//! Offers of signed files as lines: where each stands, in words, with a bar for its progress. Text from the boxes stays text. Pure.

use std::cmp::Ordering;

use crate::releases::life::OfferState;
use crate::releases::{OfferRow, kind_name};
use crate::words::{Words, when};
use mainstay_shared::patch::{PatchKind, PatchStep};

/// One offer.
#[derive(Debug, Clone)]
pub(crate) struct OfferLine {
    pub(crate) offer_id: String,
    pub(crate) appliance_id: String,
    pub(crate) appliance: String,
    pub(crate) customer: String,
    pub(crate) file: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    /// `good`, `bad`, `plain`.
    pub(crate) tone: &'static str,
    pub(crate) reason: String,
    /// The box's words.
    pub(crate) detail: String,
    pub(crate) terms: String,
    pub(crate) made: String,
    /// 0 to 100 over all steps, for the bar.
    pub(crate) progress: i64,
    pub(crate) open: bool,
    pub(crate) steps: Vec<Step>,
}

/// One offer as a line; names are looked up by the caller.
pub(crate) fn line(w: Words, offer: &OfferRow, appliance: &str, customer: &str, zone: &str) -> OfferLine {
    OfferLine {
        offer_id: offer.offer_id.clone(),
        appliance_id: offer.appliance_id.clone(),
        appliance: appliance.to_owned(),
        customer: customer.to_owned(),
        file: offer.file.clone(),
        kind: w.of("patch_kind", kind_name(offer.kind)).into_owned(),
        state: step_words(w, kind_name(offer.kind), offer.state.as_str()),
        tone: tone(offer.state),
        reason: if offer.reason.is_empty() { String::new() } else { w.of("patch_reason", &offer.reason).into_owned() },
        detail: offer.detail.clone(),
        terms: w.of("terms", &offer.terms).into_owned(),
        made: when::moment(offer.made_at, zone),
        progress: progress(offer),
        open: offer.ended_at.is_none(),
        steps: steps(w, offer),
    }
}

/// A step of the way, for the picture of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) text: String,
    /// `past`, `now`, `ahead`, `bad`.
    pub(crate) mood: &'static str,
}

/// The way of an offer, one step after the other: where it is now, or where it ended.
pub(crate) fn steps(w: Words, offer: &OfferRow) -> Vec<Step> {
    let words: &[&str] =
        if offer.kind == PatchKind::Action { &["here", "agreed", "ran"] } else { &["here", "agreed", "placed", "proved"] };
    let (past, at) = match offer.state {
        OfferState::Offered | OfferState::Box(PatchStep::Fetching) => (0, "now"),
        OfferState::Box(PatchStep::AwaitingConsent) => (1, "now"),
        OfferState::Box(PatchStep::AwaitingWindow | PatchStep::Applying) => (2, "now"),
        OfferState::Box(PatchStep::Probation) => (3, "now"),
        OfferState::Box(PatchStep::Done) => (words.len(), "past"),
        OfferState::Box(PatchStep::RolledBack) => (3, "bad"),
        OfferState::Box(PatchStep::Failed | PatchStep::Unknown) => (2, "bad"),
        // A box that refuses the file itself never waited for a person.
        OfferState::Box(PatchStep::Refused) => {
            (usize::from(matches!(offer.reason.as_str(), "refused_by_customer" | "too_many_codes")), "bad")
        }
        OfferState::TakenBack | OfferState::Expired => (0, "ahead"),
    };
    let mood = |index: usize| match index.cmp(&past) {
        Ordering::Less => "past",
        Ordering::Equal => at,
        Ordering::Greater => "ahead",
    };
    words.iter().enumerate().map(|(index, word)| Step { text: w.of("patch_way", word).into_owned(), mood: mood(index) }).collect()
}

/// A step in words: an action knows no install window.
pub(crate) fn step_words(w: Words, kind: &str, step: &str) -> String {
    let group = if kind == "action" && matches!(step, "awaiting_window" | "applying") { "action_step" } else { "patch_step" };
    w.of(group, step).into_owned()
}

fn tone(state: OfferState) -> &'static str {
    match state {
        OfferState::Box(PatchStep::Done) => "good",
        OfferState::Box(PatchStep::RolledBack | PatchStep::Refused | PatchStep::Failed | PatchStep::Unknown) => "bad",
        _ => "plain",
    }
}

/// Where a step begins and how long it is, of a hundred.
fn progress(offer: &OfferRow) -> i64 {
    let (from, length) = match offer.state {
        OfferState::Offered => (0, 0),
        OfferState::Box(PatchStep::Fetching) => (5, 35),
        OfferState::Box(PatchStep::AwaitingConsent) => (40, 0),
        OfferState::Box(PatchStep::AwaitingWindow) => (50, 0),
        OfferState::Box(PatchStep::Applying) => (55, 30),
        OfferState::Box(PatchStep::Probation) => (85, 14),
        OfferState::Box(_) | OfferState::TakenBack | OfferState::Expired => (100, 0),
    };
    from + length * offer.percent / 100
}
