//! `spool check` and `spool dump`: reading a spool without touching it, whether an agent runs on it or not.
//!
//! A spool that is being written may show its newest frame as torn; that is said, not judged.

use std::path::Path;
use std::sync::Arc;

use mainstay_shared::ids::Lane;
use mainstay_shared::record::Record;
use serde::Serialize;

use super::disk::{Disk, MachineDisk};
use super::format::{self, Harm, Kind};
use super::recovery::{self, Recovered};
use super::{Counters, Limits, OpenEpisode, repair};

/// What a spool looks like from outside.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    /// Segment files.
    pub(crate) segments: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Waiting in the fault lane.
    pub(crate) fault_records: usize,
    /// Waiting in the sample lane.
    pub(crate) sample_records: usize,
    /// Open faults.
    pub(crate) open: Vec<OpenEpisode>,
    /// Losses recorded so far.
    pub(crate) counters: Counters,
    /// Bad ranges that a start or `spool repair` would quarantine.
    pub(crate) bad_ranges: Vec<Bad>,
    /// Sequence numbers that are missing and not yet accounted for.
    pub(crate) holes: Vec<Hole>,
}

/// A range of a file that holds no frame.
#[derive(Debug, Serialize)]
pub(crate) struct Bad {
    /// The segment file's name.
    pub(crate) segment: String,
    /// Where it begins.
    pub(crate) offset: usize,
    /// Its length.
    pub(crate) bytes: usize,
    /// `torn`, `unwritten`: a write that was never finished, nothing accepted was lost; `corrupt`: something was.
    pub(crate) kind: &'static str,
}

/// Missing records.
#[derive(Debug, Serialize)]
pub(crate) struct Hole {
    /// Their epoch.
    pub(crate) epoch: String,
    /// Their lane.
    pub(crate) lane: &'static str,
    /// First missing.
    pub(crate) from_seq: u64,
    /// Last missing.
    pub(crate) to_seq: u64,
}

impl Inspection {
    /// Whether nothing accepted was found missing.
    pub(crate) fn is_sound(&self) -> bool {
        self.holes.is_empty() && self.bad_ranges.iter().all(|b| b.kind != Harm::Corrupt.as_str())
    }
}

/// How often a look is begun anew because the running agent deleted a segment under it.
const LOOKS: u32 = 20;

/// Reads a spool on which an agent may be at work: a segment that was listed may be done with before it is read.
fn recover_live(dir: &Path, limits: Limits) -> std::io::Result<Recovered> {
    for _ in 1..LOOKS {
        match recovery::recover(&here(), dir, limits.segment_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {}
            done => return done,
        }
    }
    recovery::recover(&here(), dir, limits.segment_bytes())
}

/// Looks at the spool in `dir`.
///
/// # Errors
/// When the directory or a segment can't be read.
pub(crate) fn inspect(dir: &Path, limits: Limits) -> std::io::Result<Inspection> {
    let found = recover_live(dir, limits)?;
    let holes = found.state.holes(|w, lane| found.gaps.get(&(w.epoch, lane, w.seq)).copied());
    let epoch = |key: u32| found.state.epochs.get(&key).map(|e| e.epoch.to_string()).unwrap_or_default();
    Ok(Inspection {
        segments: found.fault.numbers().len() + found.sample.numbers().len(),
        bytes: found.fault.bytes() + found.sample.bytes(),
        fault_records: found.state.fault.len(),
        sample_records: found.state.sample.len(),
        open: found.state.open.clone(),
        counters: found.state.counters,
        bad_ranges: found.bad.iter().map(|b| bad(&found, b)).collect(),
        holes: holes
            .iter()
            .map(|&(key, lane, from_seq, to_seq)| Hole { epoch: epoch(key), lane: lane.as_str(), from_seq, to_seq })
            .collect(),
    })
}

/// Reads two segments, one of each lane, and reckons what they lost, as a start would do with files of these bytes. Returns how
/// many records wait and how many are accounted for as lost.
///
/// # Panics
/// Never, whatever the bytes are: that is what it is tried for.
pub(crate) fn read_segments(fault: &[u8], sample: &[u8]) -> (usize, u64) {
    let mut found = recovery::recover_bytes(&here(), fault, sample);
    let losses = repair::losses(&mut found.state, &found.bad, &found.gaps);
    for range in &found.bad {
        let mended = format::mending(range.offset, range.bytes.len());
        assert_eq!(mended.len(), range.bytes.len(), "mending changes no length");
    }
    let lost = losses.iter().map(|(_, gap)| gap.count).fold(0, u64::saturating_add);
    (found.state.fault.len() + found.state.sample.len(), lost)
}

/// A segment of frames with these kinds and bodies, so that what lies behind the CRC can be tried too.
pub(crate) fn segment_of(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = format::SEGMENT_MAGIC.to_vec();
    for (kind, body) in frames {
        if let Some(kind) = Kind::from_byte(*kind) {
            format::put_frame(&mut bytes, kind, body);
        }
    }
    bytes
}

fn here() -> Arc<dyn Disk> {
    Arc::new(MachineDisk)
}

fn bad(found: &Recovered, bad: &recovery::BadRange) -> Bad {
    let chain = if bad.lane == Lane::Fault { &found.fault } else { &found.sample };
    let segment = chain.path(bad.segment).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Bad { segment, offset: bad.offset, bytes: bad.bytes.len(), kind: bad.harm.as_str() }
}

/// Hands every waiting record to `each`, in the order of sending.
///
/// # Errors
/// When the directory or a segment can't be read, or what `each` returned.
pub(crate) fn waiting_records(
    dir: &Path,
    limits: Limits,
    mut each: impl FnMut(&Record) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let found = recover_live(dir, limits)?;
    for (lane, chain) in [(Lane::Fault, &found.fault), (Lane::Sample, &found.sample)] {
        for waiting in found.state.lane(lane) {
            for body in chain.read_frames(&[waiting.place])?.into_iter().flatten() {
                each(&serde_json::from_slice(&body)?)?;
            }
        }
    }
    Ok(())
}
