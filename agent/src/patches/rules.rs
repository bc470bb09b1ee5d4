//! What to do next with an offer's file, and when to look again at what the helper has. Pure: facts in, a decision with its reason out.
//!
//! What passes (no room, no contact) is waited for; what does not pass is given up. It must never count an outage of the line as a try.

use std::fmt;
use std::time::Duration;

use mainstay_shared::patch::PatchStep;
use mainstay_shared::time_source::UnixMs;

use super::state::{Held, Stage};
use crate::helper::protocol::KnownFile;

/// Fetches that may go wrong.
const MAX_TRIES: u32 = 12;
/// Received in all, in files: partials that had to be dropped included.
const MAX_FILES_RECEIVED: u64 = 3;
/// Kept free beside the file.
const RESERVE_BYTES: u64 = 16 << 20;
/// The longest name of a file: product, name, ending.
const MAX_NAME: usize = 160;

/// While something hinders a file that is due.
pub(crate) const TICK: Duration = Duration::from_secs(60);
/// Nothing is due: what happens meanwhile, calls. Looked at all the same: root may have spoken to the helper past the agent.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// After the minute in which a window opens has begun.
const SOON: Duration = Duration::from_secs(1);

/// What the settings and the disk allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A larger file is not fetched.
    pub(crate) max_bytes: u64,
    /// Free on the state directory's disk; none: not known.
    pub(crate) free_bytes: Option<u64>,
    /// What lies there of other offers, whole or in part.
    pub(crate) others_bytes: u64,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Get the bytes that are missing.
    Fetch,
    /// Give it to the helper.
    HandOver,
    /// The helper has it.
    Nothing,
    /// Not now: there is no room for it, on the disk or beside what is here of others.
    WaitForRoom {
        /// What it needs.
        needed_bytes: u64,
    },
    /// Never.
    GiveUp(GiveUp),
}

/// Why a file is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// The offer's id, name, hash or length is none.
    NotAnOffer,
    /// Larger than `patches.max_bytes`.
    TooLarge,
    /// Too many fetches went wrong.
    TriesUsedUp,
    /// More was received than three such files have.
    BytesUsedUp,
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnOffer => "its id, file name, hash or length is none",
            Self::TooLarge => "it is larger than patches.max_bytes allows",
            Self::TriesUsedUp => "too many tries to fetch it went wrong",
            Self::BytesUsedUp => "it had to be begun anew too often",
        })
    }
}

/// What is next for `held`.
pub(crate) fn next(held: &Held, limits: &Limits) -> Next {
    let offer = &held.offer;
    match held.stage {
        Stage::Handed => return Next::Nothing,
        Stage::Complete => return Next::HandOver,
        Stage::Wanted => {}
    }
    if !is_hex(&offer.offer_id, 32) || !is_hex(&offer.sha256, 64) || !is_file_name(&offer.file) || offer.bytes == 0 {
        return Next::GiveUp(GiveUp::NotAnOffer);
    }
    if offer.bytes > limits.max_bytes {
        return Next::GiveUp(GiveUp::TooLarge);
    }
    if held.tries >= MAX_TRIES {
        return Next::GiveUp(GiveUp::TriesUsedUp);
    }
    if held.received_bytes >= offer.bytes.saturating_mul(MAX_FILES_RECEIVED) {
        return Next::GiveUp(GiveUp::BytesUsedUp);
    }
    // All that is fetched may lie here together as much as one file: begun files without end must not fill the disk.
    if limits.others_bytes > 0 && limits.others_bytes.saturating_add(offer.bytes) > limits.max_bytes {
        return Next::WaitForRoom { needed_bytes: offer.bytes };
    }
    let needed_bytes = (offer.bytes - held.durable_bytes.min(offer.bytes)).saturating_add(RESERVE_BYTES);
    match limits.free_bytes {
        Some(free) if free < needed_bytes => Next::WaitForRoom { needed_bytes },
        _ => Next::Fetch,
    }
}

/// How long a look at the files can wait: for a consent nobody waits, who agrees calls; a window's opening is known.
pub(crate) fn until_next(files: &[KnownFile], now: UnixMs) -> Duration {
    let wait = |file: &KnownFile| match file.step {
        PatchStep::Applying | PatchStep::Probation => TICK,
        PatchStep::AwaitingWindow => match file.next_windows.first() {
            // Its window is open, or it needs none, and yet it did not begin.
            _ if file.is_due => TICK,
            Some(opens) => Duration::from_millis(u64::try_from(opens.since_ms(now)).unwrap_or(0)).max(SOON).min(IDLE),
            None => TICK,
        },
        _ => IDLE,
    };
    files.iter().map(wait).min().unwrap_or(IDLE)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// A plain name: it becomes a part of an address.
fn is_file_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    name.len() <= MAX_NAME && name.ends_with(".mpatch") && !name.starts_with('.') && name.chars().all(fits)
}
