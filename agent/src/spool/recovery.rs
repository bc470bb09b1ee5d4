//! Reading a spool back: every segment is scanned, good frames make the state, bad ranges are listed. Reads only.
//!
//! Used at start, by `spool check` and by `spool dump`. Damage is never fatal (R30): it costs its own range, and the sequence
//! numbers that are missing afterwards tell what was lost.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mainstay_shared::ids::Lane;
use mainstay_shared::record::{Payload, Record};

use super::chain::Chain;
use super::disk::Disk;
use super::format::{self, Found, Harm, Kind};
use super::state::{MAX_SEQ, Place, State};

/// A range of a segment that holds no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRange {
    pub(super) lane: Lane,
    pub(super) segment: u32,
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) harm: Harm,
    /// Key of the epoch whose record was read last before it.
    pub(super) epoch: Option<u32>,
}

/// A spool as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) fault: Chain,
    pub(super) sample: Chain,
    pub(super) state: State,
    pub(super) bad: Vec<BadRange>,
    /// First sequence number that each gap covers, by (epoch key, lane, seq).
    pub(super) gaps: HashMap<(u32, Lane, u64), u64>,
    /// Whether an epoch that the fault chain does not name is known to be done with.
    fault_chain_whole: bool,
}

/// Reads the spool in `dir`.
pub(super) fn recover(disk: &Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> io::Result<Recovered> {
    let fault = Chain::list(disk, dir, Lane::Fault, segment_bytes)?;
    let sample = Chain::list(disk, dir, Lane::Sample, segment_bytes)?;
    let mut found = Recovered::nothing_yet(fault, sample);
    // The fault chain first: its checkpoints and acknowledgements tell which samples are still wanted.
    for number in found.fault.numbers() {
        let bytes = found.fault.read(number)?;
        found.take_segment(Lane::Fault, number, &bytes);
    }
    found.fault_chain_is_read();
    for number in found.sample.numbers() {
        let bytes = found.sample.read(number)?;
        found.take_segment(Lane::Sample, number, &bytes);
    }
    found.settle();
    Ok(found)
}

/// Reads two segments given as bytes, one of each lane, as [`recover`] reads files.
pub(super) fn recover_bytes(disk: &Arc<dyn Disk>, fault: &[u8], sample: &[u8]) -> Recovered {
    let chain = |lane| Chain::empty(disk, Path::new(""), lane, 0);
    let mut found = Recovered::nothing_yet(chain(Lane::Fault), chain(Lane::Sample));
    found.take_segment(Lane::Fault, 1, fault);
    found.fault_chain_is_read();
    found.take_segment(Lane::Sample, 1, sample);
    found.settle();
    found
}

impl Recovered {
    fn nothing_yet(fault: Chain, sample: Chain) -> Self {
        let (state, bad, gaps) = (State::default(), Vec::new(), HashMap::new());
        Self { fault, sample, state, bad, gaps, fault_chain_whole: true }
    }

    fn fault_chain_is_read(&mut self) {
        self.fault_chain_whole = self.bad.iter().all(|b| b.harm != Harm::Corrupt) && !self.fault.numbers().is_empty();
    }

    fn settle(&mut self) {
        let Self { state, gaps, .. } = self;
        state.settle_beginnings(|w, lane| gaps.get(&(w.epoch, lane, w.seq)).copied());
    }

    fn take_segment(&mut self, lane: Lane, number: u32, bytes: &[u8]) {
        let mut last_epoch = None;
        let bad_before = self.bad.len();
        for found in format::scan(bytes) {
            let (harm, range) = match found {
                Found::Frame { kind, offset, body } => {
                    let place = Place { segment: number, offset: offset as u32, bytes: (body.end - offset) as u32 };
                    last_epoch = self.take_frame(kind, &bytes[body], place).or(last_epoch);
                    continue;
                }
                Found::Bad(harm, range) => (harm, range),
            };
            let offset = range.start;
            self.bad.push(BadRange { lane, segment: number, offset, bytes: bytes[range].to_vec(), harm, epoch: None });
        }
        self.bad[bad_before..].iter_mut().for_each(|bad| bad.epoch = last_epoch);
    }

    fn take_frame(&mut self, kind: Kind, body: &[u8], place: Place) -> Option<u32> {
        match kind {
            Kind::Checkpoint => self.state.apply_checkpoint(serde_json::from_slice(body).ok()?),
            Kind::Ack => self.state.apply_ack(&serde_json::from_slice(body).ok()?),
            Kind::Sent => self.state.apply_sent(&serde_json::from_slice::<Vec<_>>(body).ok()?),
            Kind::Counters => self.state.apply_counters(serde_json::from_slice(body).ok()?),
            Kind::Filler => {}
            Kind::Record | Kind::Moved => {
                let record: Record = serde_json::from_slice(body).ok().filter(is_ours)?;
                if record.id.lane == Lane::Sample && self.fault_chain_whole && !self.state.knows(&record.id.epoch) {
                    return None;
                }
                let key = self.state.key_of(&record.id.epoch);
                if let Payload::Gap(gap) = &record.payload {
                    self.gaps.insert((key, record.id.lane, record.id.seq), gap.from_seq);
                }
                self.state.apply_record(&record, place, kind == Kind::Moved);
                return Some(key);
            }
        }
        None
    }
}

/// Whether the spool can have written `record`: numbers count from 1, a gap stands in the place of its last.
fn is_ours(record: &Record) -> bool {
    let seq = record.id.seq;
    let gap_is_ours = match &record.payload {
        Payload::Gap(gap) => (1..=seq).contains(&gap.from_seq) && gap.to_seq == seq,
        _ => true,
    };
    (1..=MAX_SEQ).contains(&seq) && gap_is_ours
}
