//! What the collector offered, on its way to the helper: fetched, kept whole, handed over as a descriptor. No authority lies here.
//!
//! Between `uplink` and `flow`. Parts: `state` (what is remembered), `rules` (what is next, pure), `keeper` (the file that it is remembered
//! in), `progress` (what the heartbeat shows), `download`, `metadata` (freshness), `helper_client`. It must never judge a file: it compares a hash with the
//! offer's, so as not to hand over half a file; whether anything is believed, the helper decides (R2).

mod state;
mod rules;
mod progress;
mod keeper;
mod download;
mod metadata;
mod helper_client;
#[cfg(test)]
mod tests;

pub(crate) use download::{Download, Ended, Point, ahead_of_bandwidth, free_bytes, sha256_of};
pub(crate) use helper_client::{HelperClient, HelperError, Limit};
pub(crate) use keeper::Keeper;
pub(crate) use metadata::Metadata;
pub(crate) use progress::Progress;
pub(crate) use rules::{GiveUp, IDLE, Limits, Next, TICK, next, until_next};
pub(crate) use state::{Book, Held, Stage, Typed};
