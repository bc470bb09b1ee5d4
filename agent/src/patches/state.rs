//! What the reporter remembers of offers and of what people typed at links; durable, so that a restart goes on where it was.
//!
//! ```text
//!  Wanted ── all bytes, right hash ─▶ Complete ── taken by the helper ─▶ Handed ── over there ─▶ (forgotten; its id stays)
//!     └── given up (told to the helper), taken back ─▶ (forgotten; its id stays)
//! ```
//! It must never act: it says what is to be done. Everything in it came over the network and is bounded.

use std::collections::VecDeque;

use mainstay_shared::directive::Ask;
use mainstay_shared::limits::MAX_TEXT_CHARS;
use mainstay_shared::patch::{Decision, Offer};
use serde::{Deserialize, Serialize};

/// Offers at a time; more are told back as given up.
const MAX_OFFERS: usize = 16;
/// What people typed, and offers taken back, that wait to be told.
const MAX_WAITING: usize = 32;
/// Files without payload that are remembered: more than a vendor has signed at a time for one product.
const MAX_SEEN: usize = 1024;
/// Ids remembered so that nothing is taken up twice.
const MAX_IDS: usize = 128;

/// The longest word of an offer or a decision: a reason has as many characters as any text of ours.
const MAX_WORD_BYTES: usize = 4 * MAX_TEXT_CHARS;

/// How far an offer's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Not all of it is here.
    Wanted,
    /// All of it is here.
    Complete,
    /// The helper has it.
    Handed,
}

/// An offer and its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// As the collector made it.
    pub(crate) offer: Offer,
    /// How far.
    pub(crate) stage: Stage,
    /// Fetches that brought something wrong, or nothing.
    pub(crate) tries: u32,
    /// Bytes received over all tries.
    pub(crate) received_bytes: u64,
    /// So much of the partial file is on the disk for certain.
    pub(crate) durable_bytes: u64,
    /// The server's tag of the content that the partial belongs to.
    pub(crate) tag: Option<String>,
    /// What went wrong last; empty: nothing.
    #[serde(default)]
    pub(crate) trouble: String,
}

/// An offer that was given up, on its way to the helper, which reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    /// As the collector made it.
    pub(crate) offer: Offer,
    /// For a person.
    pub(crate) why: String,
}

/// What somebody typed at a link's page, on its way to the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Typed {
    /// About which offer.
    pub(crate) offer_id: String,
    /// What they want.
    pub(crate) decision: Decision,
    /// Their code.
    pub(crate) code: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Book {
    /// Oldest first.
    pub(crate) offers: Vec<Held>,
    /// Offers that are over.
    over: VecDeque<String>,
    /// Decisions to carry to the helper.
    pub(crate) typed: Vec<Typed>,
    /// Directives that brought decisions: each is carried once.
    heard: VecDeque<String>,
    /// Offers taken back, to be told to the helper.
    pub(crate) taken_back: Vec<String>,
    /// Offers given up, to be told to the helper.
    pub(crate) given_up: Vec<GivenUp>,
    /// Withdrawals that lie here for the helper, by the SHA-256 of their manifests.
    pub(crate) withdrawals: Vec<String>,
    /// Manifests of files without payload that were looked at, by their SHA-256.
    seen: VecDeque<String>,
    /// The number of the newest report of the helper's that is in the spool.
    pub(crate) last_report: u64,
}

impl Book {
    /// Takes note of a directive; of one whose words are longer than any of ours, none.
    pub(crate) fn hear(&mut self, directive: &str, ask: &Ask) {
        if longest_word(ask) > MAX_WORD_BYTES {
            return;
        }
        match ask {
            Ask::Offered(offer) => self.offered(offer),
            Ask::TakenBack { offer_id } => {
                if self.held(offer_id).is_some_and(|held| held.stage != Stage::Handed) {
                    self.forget(offer_id);
                } else if self.taken_back.len() < MAX_WAITING && !self.taken_back.contains(offer_id) {
                    remember(&mut self.over, offer_id, MAX_IDS);
                    self.taken_back.push(offer_id.clone());
                }
            }
            Ask::Decided { offer_id, decision, code } => {
                if !self.heard.iter().any(|id| id == directive) && self.typed.len() < MAX_WAITING {
                    remember(&mut self.heard, directive, MAX_IDS);
                    let typed = Typed { offer_id: offer_id.clone(), decision: decision.clone(), code: code.clone() };
                    self.typed.push(typed);
                }
            }
            Ask::ReportNow | Ask::RenewCertificate | Ask::Unknown => {}
        }
    }

    fn offered(&mut self, offer: &Offer) {
        let known = self.held(&offer.offer_id).is_some() || self.over.contains(&offer.offer_id);
        if known {
            return;
        }
        if self.offers.len() >= MAX_OFFERS {
            // Told, so that it is offered again: a directive comes only once.
            if self.given_up.len() < MAX_WAITING {
                remember(&mut self.over, &offer.offer_id, MAX_IDS);
                self.given_up.push(GivenUp { offer: offer.clone(), why: format!("{MAX_OFFERS} offers are under way already") });
            }
            return;
        }
        self.offers.push(Held {
            offer: offer.clone(),
            stage: Stage::Wanted,
            tries: 0,
            received_bytes: 0,
            durable_bytes: 0,
            tag: None,
            trouble: String::new(),
        });
    }

    /// Whether a file without payload was looked at already.
    pub(crate) fn has_seen(&self, manifest_sha256: &str) -> bool {
        self.seen.iter().any(|seen| seen == manifest_sha256)
    }

    /// It was looked at; a withdrawal lies here for the helper.
    pub(crate) fn saw(&mut self, manifest_sha256: &str, is_withdrawal: bool) {
        remember(&mut self.seen, manifest_sha256, MAX_SEEN);
        if is_withdrawal && !self.withdrawals.iter().any(|waits| waits == manifest_sha256) {
            self.withdrawals.push(manifest_sha256.to_owned());
        }
    }

    /// Whether something waits to be told or handed to the helper.
    pub(crate) fn has_words(&self) -> bool {
        let complete = self.offers.iter().any(|held| held.stage == Stage::Complete);
        complete
            || !self.withdrawals.is_empty()
            || !self.typed.is_empty()
            || !self.taken_back.is_empty()
            || !self.given_up.is_empty()
    }

    /// The offer of that id.
    pub(crate) fn held(&self, offer_id: &str) -> Option<&Held> {
        self.offers.iter().find(|held| held.offer.offer_id == offer_id)
    }

    /// Changes an offer, if it is still held.
    pub(crate) fn with(&mut self, offer_id: &str, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.offers.iter_mut().find(|held| held.offer.offer_id == offer_id) {
            change(held);
        }
    }

    /// It can't be had: it is over, and the vendor is told why.
    pub(crate) fn give_up(&mut self, offer_id: &str, why: &str) {
        if let Some(held) = self.held(offer_id)
            && self.given_up.len() < MAX_WAITING
        {
            let why = if held.trouble.is_empty() { why.to_owned() } else { format!("{why}; the last time: {}", held.trouble) };
            let given_up = GivenUp { offer: held.offer.clone(), why };
            self.given_up.push(given_up);
        }
        self.forget(offer_id);
    }

    /// It is over; the same id is not taken up again.
    pub(crate) fn forget(&mut self, offer_id: &str) {
        self.offers.retain(|held| held.offer.offer_id != offer_id);
        remember(&mut self.over, offer_id, MAX_IDS);
    }
}

fn longest_word(ask: &Ask) -> usize {
    let words: &[&String] = match ask {
        Ask::Offered(offer) => &[&offer.offer_id, &offer.file, &offer.sha256, &offer.product, &offer.version],
        Ask::TakenBack { offer_id } => &[offer_id],
        Ask::Decided { offer_id, decision: Decision::Refuse { reason }, code } => &[offer_id, reason, code],
        Ask::Decided { offer_id, decision: Decision::Approve, code } => &[offer_id, code],
        Ask::ReportNow | Ask::RenewCertificate | Ask::Unknown => &[],
    };
    words.iter().map(|word| word.len()).max().unwrap_or_default()
}

fn remember(ids: &mut VecDeque<String>, id: &str, most: usize) {
    if ids.iter().any(|known| known == id) {
        return;
    }
    ids.push_back(id.chars().take(64).collect());
    if ids.len() > most {
        ids.pop_front();
    }
}
