//! What is done with damage: a copy into `quarantine/` (bounded), a count, and a gap record for what is missing (R30).
//!
//! Quarantined bytes are for a person to look at; nothing reads them back. A quarantine that can't be written is logged and
//! costs nothing else.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use mainstay_shared::ids::{Lane, RecordId};
use mainstay_shared::record::Gap;

use super::Limits;
use super::disk::{Access, Disk};
use super::format::Harm;
use super::recovery::BadRange;
use super::state::State;

/// Copies bad ranges to the quarantine.
pub(super) fn quarantine(disk: &dyn Disk, dir: &Path, limits: Limits, bad: &[BadRange]) {
    for (at, range) in bad.iter().enumerate() {
        let what = range.harm.as_str();
        tracing::warn!(lane = range.lane.as_str(), segment = range.segment, bytes = range.bytes.len(), what, "spool: bad range");
        keep(disk, dir, limits, &format!("{}-{:08x}-{at}-{what}.bin", range.lane.as_str(), range.segment), &range.bytes);
    }
}

/// Keeps `bytes` under `name` in the quarantine; the oldest files go when it outgrows its share.
pub(super) fn keep(disk: &dyn Disk, dir: &Path, limits: Limits, name: &str, bytes: &[u8]) {
    let quarantine = dir.join("quarantine");
    let room = usize::try_from(limits.quarantine_bytes()).unwrap_or(usize::MAX);
    let kept = disk
        .make_dir(&quarantine)
        .and_then(|()| shrink(disk, &quarantine, room.saturating_sub(bytes.len().min(room)) as u64))
        .and_then(|()| write_whole(disk, &quarantine, name, &bytes[..bytes.len().min(room)]));
    if let Err(error) = kept {
        tracing::warn!("spool: the bad bytes can't be kept: {error}");
    }
}

fn write_whole(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{name}.new"));
    let written = disk
        .open(&temp, Access::CreateNew)
        .and_then(|file| file.write_all_at(bytes, 0).and_then(|()| file.sync_data()))
        .and_then(|()| disk.rename(&temp, &dir.join(name)));
    if written.is_err() {
        drop(disk.remove(&temp));
    }
    written.and_then(|()| disk.sync_dir(dir))
}

fn shrink(disk: &dyn Disk, quarantine: &Path, to_bytes: u64) -> io::Result<()> {
    let mut files = disk.list(quarantine)?;
    files.sort();
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    for file in files {
        // What a crash left half-written is worth nothing.
        if total <= to_bytes && !file.name.ends_with(".new") {
            continue;
        }
        disk.remove(&quarantine.join(&file.name))?;
        total -= file.bytes;
    }
    Ok(())
}

/// The gaps for what damage cost: holes in the numbering, and per corrupt range that no hole explains one more at the end.
pub(super) fn losses(state: &mut State, bad: &[BadRange], gaps: &HashMap<(u32, Lane, u64), u64>) -> Vec<(RecordId, Gap)> {
    let holes = state.holes(|w, lane| gaps.get(&(w.epoch, lane, w.seq)).copied());
    let mut losses = Vec::new();
    for &(key, lane, from, to) in &holes {
        losses.extend(loss(state, key, lane, from, to, to - from + 1));
    }
    let corrupt: Vec<&BadRange> = bad.iter().filter(|b| b.harm == Harm::Corrupt).collect();
    state.counters.corrupt_ranges = state.counters.corrupt_ranges.saturating_add(corrupt.len() as u64);
    for lane in Lane::ALL {
        let in_lane = corrupt.iter().filter(|b| b.lane == lane).count();
        let explained = holes.iter().filter(|h| h.1 == lane).count();
        let unexplained = in_lane.saturating_sub(explained);
        let newest = state.epochs.keys().next_back().copied();
        let last = corrupt.iter().rev().find(|b| b.lane == lane).and_then(|b| b.epoch).or(newest);
        let (Some(key), true) = (last, unexplained > 0) else { continue };
        let Some(marks) = state.marks(key, lane).copied() else { continue };
        let to = marks.last.max(marks.sent) + 1;
        losses.extend(loss(state, key, lane, marks.last + 1, to, unexplained as u64));
    }
    let lost = losses.iter().map(|(_, gap)| gap.count).fold(0, u64::saturating_add);
    state.counters.corrupt_records = state.counters.corrupt_records.saturating_add(lost);
    losses
}

fn loss(state: &State, key: u32, lane: Lane, from: u64, to: u64, count: u64) -> Option<(RecordId, Gap)> {
    let epoch = state.epochs.get(&key)?.epoch.clone();
    let gap = Gap { from_seq: from, to_seq: to, why: "corrupt".into(), count };
    Some((RecordId { epoch, lane, seq: to }, gap))
}
