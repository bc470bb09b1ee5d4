//! Archives of payloads: a narrow tar behind zstd, written and read by the same rules (R6), and the hash of a tree of files.
//!
//! Regular files and folders, nothing else; names in order, each below a folder that came before, so that duplicates can't exist and
//! reading needs no memory of what it read. Reading checks everything but writes nothing: the engine does, below a folder of its own.

mod names;
mod blocks;
mod tree;
mod entries;
mod pack;

pub use entries::{Entries, Entry, Kind};
pub use pack::{Packed, pack};
pub use tree::{TreeHash, tree_hash};

/// The most memory that a payload's compression may look back, as a power of two: 4 MiB.
pub const WINDOW_LOG: u32 = 22;
