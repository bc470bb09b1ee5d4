//! The durable queue between what was seen and what was sent: accepted records survive kills, power cuts and full disks.
//!
//! One truth: watermarks, nonce, open episodes and recent starts are records of the same segment files as the faults.
//! Parts: `format` (bytes), `state` (what frames mean), `disk` (what is asked of it), `chain` (files), `recovery` (reading
//! back), `rules` (what a full lane drops), `room`, `repair`, `lock`, `store` (the whole), `thread` (its own thread, since fsync may hang), `inspect` (for the CLI).
//! A gap record stands in the place of the last record it replaces: numbers stay unbroken and in order.

use std::path::PathBuf;

use mainstay_shared::fault::FaultChange;
use mainstay_shared::ids::{EpisodeId, Lane};
use serde::{Deserialize, Serialize};

mod format;
mod state;
mod disk;
mod chain;
mod recovery;
mod rules;
mod repair;
mod room;
mod lock;
mod store;
mod thread;
mod inspect;
#[cfg(test)]
mod tests;

pub(crate) use inspect::{Inspection, inspect, read_segments, segment_of, waiting_records};
pub use state::{Counters, PastStart};
pub use thread::{OpenedState, Spool};

/// A fault that was raised and not cleared, with its newest state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenEpisode {
    /// The id of its raise record.
    pub episode: EpisodeId,
    /// Its newest change.
    pub last: FaultChange,
}

/// How much disk the spool may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Everything under the spool's directory except the quarantine (a sixteenth more).
    pub max_bytes: u64,
}

impl Limits {
    fn segment_bytes(self) -> u64 {
        (self.max_bytes / 32).clamp(2 << 10, 512 << 10)
    }

    /// Samples may take a quarter, the reserve file 5 %, acknowledgements, gaps and moving 5 %; the rest is the faults'.
    fn lane_bytes(self, lane: Lane) -> u64 {
        match lane {
            Lane::Sample => self.max_bytes / 4,
            Lane::Fault => self.max_bytes - self.max_bytes / 4 - 2 * self.reserve_bytes(),
        }
    }

    fn reserve_bytes(self) -> u64 {
        self.max_bytes / 20
    }

    fn quarantine_bytes(self) -> u64 {
        self.max_bytes / 16
    }
}

/// What the spool holds, for `status` and the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Waiting in the fault lane.
    pub fault_records: u64,
    /// Waiting in the sample lane.
    pub sample_records: u64,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Their limit.
    pub max_bytes: u64,
    /// Losses so far.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Why the spool did not do what was asked. The record in question was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk said no.
    #[error("spool {}: the disk refused", path.display())]
    Io {
        /// The spool's directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// Another agent runs on it.
    #[error("spool {}: another mainstay-agent uses it; stop that one first", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The fault lane is full of open faults that must not be dropped.
    #[error("spool: the fault lane is full and nothing in it may be dropped; raise spool.max_size")]
    Full,
    /// The disk has no room for the reserve.
    #[error("spool: the disk is nearly full; samples are kept again when there is room for the reserve")]
    NoRoomForSamples,
    /// The record is larger than the wire allows.
    #[error("spool: a record of {bytes} bytes is too large; at most {} are accepted", mainstay_shared::limits::MAX_RECORD_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The record can't be written as JSON.
    #[error("spool: a record can't be written as JSON")]
    Json {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The spool's thread is gone.
    #[error("spool: its thread has ended")]
    Stopped,
}

impl SpoolError {
    /// Whether faults can't be recorded either: the disk refuses, or the fault lane is full.
    pub(crate) fn stops_recording(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Full)
    }

    fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }
}
