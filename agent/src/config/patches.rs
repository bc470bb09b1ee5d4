//! `[patches]`: whether this box takes signed files from the collector, where its helper listens, what the fetching may cost.
//!
//! What may change the appliance, and when, stands in the helper's own file, which this program can't write.

use std::path::PathBuf;

use super::section::Section;
use super::values::Bytes;

const FULL_PATH: &str = "a full path";

/// `[patches]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatchSettings {
    /// `enabled`: offers are taken up at all.
    pub(crate) enabled: bool,
    /// `helper_socket`.
    pub(crate) helper_socket: PathBuf,
    /// `root`: the vendor's first root, as shipped.
    pub(crate) root: PathBuf,
    /// `max_kib_per_s`: the most that fetching takes of the line; 0: no limit.
    pub(crate) max_kib_per_s: u32,
    /// `max_bytes`: a larger file is not fetched.
    pub(crate) max_bytes: u64,
}

/// Reads the table.
pub(super) fn read(top: &mut Section<'_>) -> PatchSettings {
    let mut section = top.section("patches");
    let enabled = section.get_or("enabled", true);
    let socket = section.get_where("helper_socket", FULL_PATH, |path: &String| path.starts_with('/'));
    let root = section.get_where("root", FULL_PATH, |path: &String| path.starts_with('/'));
    let max_kib_per_s = section.get_or("max_kib_per_s", 0u32);
    let good_size = |size: &Bytes| (1 << 20..=64 << 30).contains(&size.0);
    let max_bytes = section.get_where("max_bytes", "a size from \"1MiB\" to \"64GiB\"", good_size).unwrap_or(Bytes(4 << 30));
    section.finish();
    PatchSettings {
        enabled,
        helper_socket: socket.map_or_else(|| PathBuf::from("/run/mainstay/helper.sock"), PathBuf::from),
        root: root.map_or_else(|| PathBuf::from("/etc/mainstay/root.json"), PathBuf::from),
        max_kib_per_s,
        max_bytes: max_bytes.0,
    }
}
