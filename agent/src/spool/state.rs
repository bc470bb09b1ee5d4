//! What the spool knows, as the sum of its frames: watermarks, waiting records, open episodes, the last starts. No I/O.
//!
//! The same `apply_*` functions serve reading at start and writing at run time, so memory can't differ from disk.
//! A waiting record is kept as its place (segment, offset), 32 bytes, never as its text.
//!
//! ```text
//! Record ──▶ waiting ──Sent──▶ waiting, perhaps seen by the collector ──Ack──▶ forgotten
//!               └──Gap that covers it──▶ forgotten, the gap waits in its place
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::{CollectorEpoch, Epoch, Lane, Nonce, RecordId};
use mainstay_shared::record::{Gap, Payload, Record};
use serde::{Deserialize, Serialize};

use super::OpenEpisode;

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// A record that waits for its acknowledgement. `epoch` is a key of [`State::epochs`], in the order of the epochs' begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) epoch: u32,
    pub(super) seq: u64,
    pub(super) place: Place,
}

/// How far a lane of an epoch has come. All three count records of that lane; 0 is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Highest acknowledged.
    pub(super) acked: u64,
    /// Highest written.
    pub(super) last: u64,
    /// Highest that may have reached the collector.
    pub(super) sent: u64,
}

impl Marks {
    fn within_bounds(self) -> Self {
        Self { acked: self.acked.min(MAX_SEQ), last: self.last.min(MAX_SEQ), sent: self.sent.min(MAX_SEQ) }
    }
}

/// An epoch's marks by lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochMarks {
    pub(super) epoch: Epoch,
    pub(super) fault: Marks,
    pub(super) sample: Marks,
}

impl EpochMarks {
    pub(super) fn lane(&self, lane: Lane) -> &Marks {
        match lane {
            Lane::Fault => &self.fault,
            Lane::Sample => &self.sample,
        }
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut Marks {
        match lane {
            Lane::Fault => &mut self.fault,
            Lane::Sample => &mut self.sample,
        }
    }
}

/// One earlier start of the agent, for telling a crash loop and an unexpected reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStart {
    /// The kernel's boot id then.
    pub boot_id: String,
    /// Seconds since boot at the start.
    pub uptime_s: u64,
    /// Whether that run said goodbye.
    pub goodbye: bool,
}

/// What was lost or set aside since the spool was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Records dropped by policy (lane full, compacted).
    pub dropped: u64,
    /// Records set aside because the collector could not take them.
    pub poison: u64,
    /// Bad ranges found and quarantined.
    pub corrupt_ranges: u64,
    /// Records that such ranges cost, as far as it can be told.
    pub corrupt_records: u64,
}

/// Everything that frames of deleted segments said and that still counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) epochs: Vec<EpochMarks>,
    pub(super) nonce: Option<Nonce>,
    pub(super) collector_epoch: Option<CollectorEpoch>,
    pub(super) open: Vec<OpenEpisode>,
    pub(super) starts: VecDeque<PastStart>,
    pub(super) counters: Counters,
}

/// Body of an acknowledgement frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AckBody {
    pub(super) acks: Vec<RecordId>,
    pub(super) nonce: Option<Nonce>,
    pub(super) collector_epoch: Option<CollectorEpoch>,
}

const STARTS_KEPT: usize = 8;
/// No lane comes this far; what claims to is damage that its CRC does not show.
pub(super) const MAX_SEQ: u64 = u64::MAX >> 1;

/// The spool's memory.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) epochs: BTreeMap<u32, EpochMarks>,
    keys: HashMap<Epoch, u32>,
    /// Epochs that a checkpoint named: of the others it is not known from where on they were acknowledged.
    named: HashSet<u32>,
    next_key: u32,
    pub(super) fault: VecDeque<Waiting>,
    pub(super) sample: VecDeque<Waiting>,
    pub(super) nonce: Option<Nonce>,
    pub(super) collector_epoch: Option<CollectorEpoch>,
    pub(super) open: Vec<OpenEpisode>,
    pub(super) starts: VecDeque<PastStart>,
    pub(super) counters: Counters,
    /// Losses whose gap could not be written yet; samples are not sent before it is.
    pub(super) owed: Vec<(RecordId, Gap)>,
}

impl State {
    pub(super) fn knows(&self, epoch: &Epoch) -> bool {
        self.keys.contains_key(epoch)
    }

    /// The epoch's key; an epoch not seen before becomes the newest.
    pub(super) fn key_of(&mut self, epoch: &Epoch) -> u32 {
        if let Some(key) = self.keys.get(epoch) {
            return *key;
        }
        let key = self.next_key;
        self.next_key += 1;
        self.keys.insert(epoch.clone(), key);
        self.epochs.insert(key, EpochMarks { epoch: epoch.clone(), fault: Marks::default(), sample: Marks::default() });
        key
    }

    pub(super) fn lane(&self, lane: Lane) -> &VecDeque<Waiting> {
        match lane {
            Lane::Fault => &self.fault,
            Lane::Sample => &self.sample,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut VecDeque<Waiting> {
        match lane {
            Lane::Fault => &mut self.fault,
            Lane::Sample => &mut self.sample,
        }
    }

    pub(super) fn marks(&mut self, epoch: u32, lane: Lane) -> Option<&mut Marks> {
        self.epochs.get_mut(&epoch).map(|e| e.lane_mut(lane))
    }

    /// The last record written in the lane of `id`; 0 when there is none.
    pub(super) fn last_of(&self, id: &RecordId) -> u64 {
        self.keys.get(&id.epoch).and_then(|key| self.epochs.get(key)).map_or(0, |e| e.lane(id.lane).last)
    }

    pub(super) fn id_of(&self, lane: Lane, waiting: &Waiting) -> Option<RecordId> {
        let epoch = self.epochs.get(&waiting.epoch)?.epoch.clone();
        Some(RecordId { epoch, lane, seq: waiting.seq })
    }

    /// A checkpoint replaces what came before it, except records that still wait.
    pub(super) fn apply_checkpoint(&mut self, checkpoint: Checkpoint) {
        let known: Vec<Epoch> = checkpoint.epochs.iter().map(|e| e.epoch.clone()).collect();
        let gone: Vec<u32> = self.keys.iter().filter(|(epoch, _)| !known.contains(epoch)).map(|(_, key)| *key).collect();
        for key in gone {
            self.forget_epoch(key);
        }
        for marks in checkpoint.epochs {
            let key = self.key_of(&marks.epoch);
            self.named.insert(key);
            for lane in Lane::ALL {
                let new = marks.lane(lane).within_bounds();
                if let Some(old) = self.marks(key, lane) {
                    *old = Marks { acked: old.acked.max(new.acked), last: old.last.max(new.last), sent: old.sent.max(new.sent) };
                }
                self.forget_through(key, lane, new.acked);
            }
            self.disown_beyond(key, marks.fault.within_bounds().last);
        }
        self.nonce = checkpoint.nonce;
        self.collector_epoch = checkpoint.collector_epoch;
        self.open = checkpoint.open;
        self.starts = checkpoint.starts;
        self.apply_counters(checkpoint.counters);
    }

    /// Counters only grow, so the order in which the chains are read does not matter.
    pub(super) fn apply_counters(&mut self, new: Counters) {
        let old = self.counters;
        self.counters = Counters {
            dropped: old.dropped.max(new.dropped),
            poison: old.poison.max(new.poison),
            corrupt_ranges: old.corrupt_ranges.max(new.corrupt_ranges),
            corrupt_records: old.corrupt_records.max(new.corrupt_records),
        };
    }

    /// A record that was written at `place`. `moved`: it was written before, only its place is new.
    pub(super) fn apply_record(&mut self, record: &Record, place: Place, moved: bool) {
        let (key, lane, seq) = (self.key_of(&record.id.epoch), record.id.lane, record.id.seq);
        let acked = self.marks(key, lane).map_or(0, |marks| {
            marks.last = marks.last.max(seq);
            marks.acked
        });
        if let Payload::Gap(gap) = &record.payload {
            let covered = |w: &Waiting| w.epoch == key && (gap.from_seq..=gap.to_seq).contains(&w.seq);
            self.lane_mut(lane).retain(|w| !covered(w));
        }
        if seq > acked {
            let waiting = Waiting { epoch: key, seq, place };
            let queue = self.lane_mut(lane);
            match queue.binary_search_by_key(&(key, seq), |w| (w.epoch, w.seq)) {
                Ok(at) => queue[at] = waiting,
                Err(at) => queue.insert(at, waiting),
            }
        }
        if !moved {
            self.learn(&record.id, &record.payload);
        }
    }

    fn learn(&mut self, id: &RecordId, payload: &Payload) {
        match payload {
            Payload::Fault(change) => self.learn_fault(id, change),
            Payload::Started(started) => {
                let start = PastStart { boot_id: started.boot_id.clone(), uptime_s: started.uptime_s, goodbye: false };
                self.starts.push_back(start);
                while self.starts.len() > STARTS_KEPT {
                    self.starts.pop_front();
                }
            }
            Payload::Goodbye(_) => {
                if let Some(start) = self.starts.back_mut() {
                    start.goodbye = true;
                }
            }
            Payload::Samples(_) | Payload::Gap(_) | Payload::OpenFaults(_) | Payload::Patch(_) | Payload::Test(_) => {}
        }
    }

    fn learn_fault(&mut self, id: &RecordId, change: &FaultChange) {
        let episode = change.episode.clone().unwrap_or_else(|| id.clone());
        match change.kind {
            FaultChangeKind::Cleared => self.open.retain(|o| o.episode != episode && o.last.key != change.key),
            FaultChangeKind::Raised => {
                self.open.retain(|o| o.episode != episode && o.last.key != change.key);
                self.open.push(OpenEpisode { episode, last: slim(change) });
            }
            FaultChangeKind::Worsened | FaultChangeKind::Restated => {
                if let Some(open) = self.open.iter_mut().find(|o| o.episode == episode) {
                    open.last = slim(change);
                }
            }
        }
    }

    /// The oldest of the segments `numbers` that holds something waiting.
    pub(super) fn oldest_needed(&self, lane: Lane, numbers: Vec<u32>) -> Option<u32> {
        // In order of sending what waits lies mostly in order of segments too: the first look decides.
        numbers.into_iter().find(|number| self.lane(lane).iter().any(|w| w.place.segment == *number))
    }

    /// An acknowledgement.
    pub(super) fn apply_ack(&mut self, ack: &AckBody) {
        for id in &ack.acks {
            let Some(&key) = self.keys.get(&id.epoch) else { continue };
            let Some(marks) = self.marks(key, id.lane) else { continue };
            let seq = id.seq.min(MAX_SEQ);
            marks.acked = marks.acked.max(seq);
            marks.last = marks.last.max(seq);
            self.forget_through(key, id.lane, seq);
        }
        if ack.nonce.is_some() {
            self.nonce.clone_from(&ack.nonce);
        }
        if ack.collector_epoch.is_some() {
            self.collector_epoch.clone_from(&ack.collector_epoch);
        }
    }

    /// A sent mark: records up to these may have reached the collector.
    pub(super) fn apply_sent(&mut self, through: &[RecordId]) {
        for id in through {
            if let Some(marks) = self.keys.get(&id.epoch).copied().and_then(|key| self.marks(key, id.lane)) {
                marks.sent = marks.sent.max(id.seq.min(MAX_SEQ));
            }
        }
    }

    /// What a new segment begins with. Epochs with nothing waiting or owed are left out (`current` stays).
    pub(super) fn checkpoint(&mut self, current: u32) -> Checkpoint {
        let owes = |key: u32| self.owed.iter().any(|(id, _)| self.keys.get(&id.epoch) == Some(&key));
        let waits = |key: u32| Lane::ALL.iter().any(|lane| self.lane(*lane).binary_search_by_key(&key, |w| w.epoch).is_ok());
        let gone = |key: &u32| *key != current && !waits(*key) && !owes(*key);
        let gone: Vec<u32> = self.epochs.keys().copied().filter(gone).collect();
        for key in gone {
            self.forget_epoch(key);
        }
        Checkpoint {
            epochs: self.epochs.values().cloned().collect(),
            nonce: self.nonce.clone(),
            collector_epoch: self.collector_epoch.clone(),
            open: self.open.clone(),
            starts: self.starts.clone(),
            counters: self.counters,
        }
    }

    /// Of an epoch that no readable checkpoint names, what stands before its first record counts as acknowledged.
    pub(super) fn settle_beginnings(&mut self, gap_from: impl Fn(&Waiting, Lane) -> Option<u64>) {
        for lane in Lane::ALL {
            let mut seen = HashSet::new();
            let firsts: Vec<Waiting> = self.lane(lane).iter().filter(|w| seen.insert(w.epoch)).copied().collect();
            for first in firsts.iter().filter(|w| !self.named.contains(&w.epoch)) {
                let begins = gap_from(first, lane).unwrap_or(first.seq);
                if let Some(marks) = self.epochs.get_mut(&first.epoch).map(|e| e.lane_mut(lane)).filter(|m| m.acked == 0) {
                    marks.acked = begins - 1;
                }
            }
        }
    }

    /// Ranges that no waiting record, acknowledgement or gap accounts for: `(epoch, lane, from, to)`.
    pub(super) fn holes(&self, gap_from: impl Fn(&Waiting, Lane) -> Option<u64>) -> Vec<(u32, Lane, u64, u64)> {
        let mut holes = Vec::new();
        for (&key, marks) in &self.epochs {
            for lane in Lane::ALL {
                let mut next = marks.lane(lane).acked + 1;
                for waiting in self.lane(lane).iter().filter(|w| w.epoch == key) {
                    let begins = gap_from(waiting, lane).unwrap_or(waiting.seq);
                    if begins > next {
                        holes.push((key, lane, next, begins - 1));
                    }
                    next = waiting.seq + 1;
                }
                if next <= marks.lane(lane).last {
                    holes.push((key, lane, next, marks.lane(lane).last));
                }
            }
        }
        holes
    }

    fn forget_through(&mut self, key: u32, lane: Lane, seq: u64) {
        let queue = self.lane_mut(lane);
        let begin = queue.partition_point(|w| w.epoch < key);
        let end = queue.partition_point(|w| (w.epoch, w.seq) <= (key, seq));
        if begin < end {
            drop(queue.drain(begin..end));
        }
    }

    /// Fault records before a checkpoint that it doesn't count were refused: their sync failed, and yet they came back.
    fn disown_beyond(&mut self, key: u32, last: u64) {
        if let Some(old) = self.marks(key, Lane::Fault) {
            old.last = last;
        }
        self.fault.retain(|w| w.epoch != key || w.seq <= last);
    }

    fn forget_epoch(&mut self, key: u32) {
        if let Some(marks) = self.epochs.remove(&key) {
            self.keys.remove(&marks.epoch);
            self.named.remove(&key);
        }
        self.fault.retain(|w| w.epoch != key);
        self.sample.retain(|w| w.epoch != key);
    }
}

/// `change` as it is kept for a restatement: the last try of each check, texts cut.
fn slim(change: &FaultChange) -> FaultChange {
    let mut change = change.clone();
    let tries = std::mem::take(&mut change.grounds.checks);
    for mut last in
        tries.iter().enumerate().filter(|(i, t)| !tries[i + 1..].iter().any(|l| l.check == t.check)).map(|(_, t)| t.clone())
    {
        last.text = mainstay_shared::limits::clean_text(&last.text, 200);
        last.perf_data.clear();
        change.grounds.checks.push(last);
    }
    change
}
