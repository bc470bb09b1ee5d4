//! The spool on disk: accept a record, hand out a batch, take an acknowledgement. Runs on the spool's own thread only.
//!
//! Nothing changes in memory before its frame is synced; what `push` returned for is on the disk. Making room and repairing
//! stand in `room.rs` and `repair.rs`. It must never drop a record that the collector may have seen, nor lose count of one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::ids::{CollectorEpoch, Epoch, Lane, Nonce, RecordId};
use mainstay_shared::limits::MAX_RECORD_BYTES;
use mainstay_shared::record::{Gap, Payload, Record};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SecureRandom;

use super::chain::Chain;
use super::disk::{Disk, MachineDisk};
use super::format::{self, FRAME_HEAD, Kind};
use super::lock::lock;
use super::recovery::{self, BadRange};
use super::rules::Dropped;
use super::state::{AckBody, Place, State, Waiting};
use super::{Limits, SpoolError, Stats, repair, room};

/// The open spool.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) limits: Limits,
    pub(super) state: State,
    pub(super) fault: Chain,
    pub(super) sample: Chain,
    pub(super) time: TimeSource,
    /// Set while compacting the fault lane freed nothing, so that a full lane is not compacted at every push.
    pub(super) compaction_is_futile: bool,
    current: u32,
    epoch: Epoch,
    began: Duration,
    /// Holds the lock file's lock for the life of the store; none on a disk of one's own.
    _lock: Option<File>,
}

impl Store {
    /// Takes the lock, reads the spool back, repairs it, begins a new epoch.
    pub(super) fn open(dir: &Path, limits: Limits, rng: &dyn SecureRandom, time: TimeSource) -> Result<Self, SpoolError> {
        let disk = Arc::new(MachineDisk);
        disk.make_dir(dir).map_err(|source| SpoolError::Io { path: dir.to_owned(), source })?;
        let lock = lock(dir)?;
        Self::open_on(disk, dir, Some(lock), limits, Epoch::random(rng), time)
    }

    /// [`Store::open`] on any disk, in a folder that exists.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        lock: Option<File>,
        limits: Limits,
        epoch: Epoch,
        time: TimeSource,
    ) -> Result<Self, SpoolError> {
        let io = |source| SpoolError::Io { path: dir.to_owned(), source };
        let found = recovery::recover(&disk, dir, limits.segment_bytes()).map_err(io)?;
        let mut store = Self {
            disk,
            dir: dir.to_owned(),
            limits,
            state: found.state,
            fault: found.fault,
            sample: found.sample,
            began: time.monotonic(),
            time,
            compaction_is_futile: false,
            current: 0,
            epoch: epoch.clone(),
            _lock: lock,
        };
        repair::quarantine(store.disk.as_ref(), &store.dir, store.limits, &found.bad);
        store.state.owed = repair::losses(&mut store.state, &found.bad, &found.gaps);
        store.current = store.state.key_of(&epoch);
        store.begin()?;
        store.account_for(&found.bad);
        store.delete_done();
        room::keep_reserve(&store);
        room::limit_segments(&mut store)?;
        Ok(store)
    }

    /// Begins this run's first segment. A full disk must not keep the agent from starting: reserve and samples go, faults stay;
    /// nor must one failed sync.
    fn begin(&mut self) -> Result<(), SpoolError> {
        let mut tries = 2;
        loop {
            let Err(source) = self.begin_segment() else { return Ok(()) };
            let error = SpoolError::Io { path: self.dir.clone(), source };
            tries -= u32::from(!error.is_disk_full());
            if tries == 0 || (error.is_disk_full() && !room::give_way(self)) {
                return Err(error);
            }
        }
    }

    /// Writes the gaps for what damage cost, then mends the damage. If one fails, the damage stays to be found at the next start.
    fn account_for(&mut self, bad: &[BadRange]) {
        self.pay_owed();
        if !self.state.owed.is_empty() {
            return;
        }
        for range in bad {
            if let Err(error) = self.chain(range.lane).mend(range.segment, range.offset, range.bytes.len(), range.harm) {
                tracing::error!(%error, segment = range.segment, "spool: a bad range can't be mended yet");
            }
        }
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) fn chain(&mut self, lane: Lane) -> &mut Chain {
        match lane {
            Lane::Fault => &mut self.fault,
            Lane::Sample => &mut self.sample,
        }
    }

    /// Accepts a record: on return it is on the disk and will be delivered or accounted for.
    pub(super) fn push(&mut self, payload: Payload) -> Result<RecordId, SpoolError> {
        let lane = if matches!(payload, Payload::Samples(_)) { Lane::Sample } else { Lane::Fault };
        self.pay_owed();
        if lane == Lane::Sample && !room::has_reserve(self) {
            return Err(SpoolError::NoRoomForSamples);
        }
        let seq = self.state.marks(self.current, lane).map_or(0, |m| m.last) + 1;
        let since = self.time.monotonic().saturating_sub(self.began);
        let mono_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let id = RecordId { epoch: self.epoch.clone(), lane, seq };
        let mut record = Record { id: id.clone(), at: self.time.now(), mono_ms, payload };
        let body = fit(&mut record)?;
        room::make_room(self, lane, (body.len() + FRAME_HEAD) as u64)?;
        loop {
            match self.write_record(&record, body.clone(), Kind::Record) {
                Err(error) if lane == Lane::Fault && error.is_disk_full() && room::give_way(self) => {}
                done => return done.map(|()| id),
            }
        }
    }

    fn write_record(&mut self, record: &Record, body: Vec<u8>, kind: Kind) -> Result<(), SpoolError> {
        let places = self.commit(record.id.lane, &[(kind, body)])?;
        if let Some(place) = places.first() {
            self.state.apply_record(record, *place, kind == Kind::Moved);
        }
        Ok(())
    }

    /// Drops records that wait: counts those that were not lost before, and writes their gap.
    pub(super) fn drop_records(&mut self, dropped: Dropped) -> Result<(), SpoolError> {
        self.state.counters.dropped += dropped.newly;
        self.put_gap(dropped.id, dropped.gap)
    }

    /// Writes `gap` in the place of the last record that it covers.
    pub(super) fn put_gap(&mut self, id: RecordId, gap: Gap) -> Result<(), SpoolError> {
        tracing::warn!(%id, from = gap.from_seq, why = gap.why, count = gap.count, "spool: records dropped");
        let record = Record { id, at: self.time.now(), mono_ms: 0, payload: Payload::Gap(gap) };
        let body = serde_json::to_vec(&record).map_err(|source| SpoolError::Json { source })?;
        let counters = serde_json::to_vec(&self.state.counters).map_err(|source| SpoolError::Json { source })?;
        let places = self.commit(record.id.lane, &[(Kind::Record, body), (Kind::Counters, counters)])?;
        if let Some(place) = places.first() {
            self.state.apply_record(&record, *place, false);
        }
        Ok(())
    }

    /// Writes the gaps that could not be written when their records were dropped, as far as the disk allows.
    pub(super) fn pay_owed(&mut self) {
        while let Some((id, gap)) = self.state.owed.first().cloned() {
            if let Err(error) = self.put_gap(id, gap) {
                tracing::warn!(%error, "spool: a loss can't be recorded yet");
                return;
            }
            self.state.owed.remove(0);
        }
    }

    /// Begins a new segment of the fault lane, with a checkpoint.
    pub(super) fn begin_segment(&mut self) -> io::Result<()> {
        let opening = opening(&mut self.state, self.current);
        self.fault.begin_segment(&opening)
    }

    /// Appends frames to a lane's chain and syncs them.
    pub(super) fn commit(&mut self, lane: Lane, frames: &[(Kind, Vec<u8>)]) -> Result<Vec<Place>, SpoolError> {
        let bytes: u64 = frames.iter().map(|(_, body)| (body.len() + FRAME_HEAD) as u64).sum();
        let Self { dir, state, fault, sample, current, .. } = self;
        let mut opening = || if lane == Lane::Fault { opening(state, *current) } else { Vec::new() };
        let chain = if lane == Lane::Fault { fault } else { sample };
        let begun = if chain.needs_new_segment(bytes) { chain.begin_segment(&opening()) } else { Ok(()) };
        begun.and_then(|()| chain.commit(frames, &mut opening)).map_err(|source| SpoolError::Io { path: dir.clone(), source })
    }

    /// What makes room by being written must not fail for want of room.
    fn commit_on_full_disk(&mut self, kind: Kind, body: Vec<u8>) -> Result<(), SpoolError> {
        let frames = [(kind, body)];
        loop {
            match self.commit(Lane::Fault, &frames) {
                Err(error) if error.is_disk_full() && room::give_way(self) => {}
                done => return done.map(drop),
            }
        }
    }

    /// The records to send next: faults first, old epochs first, in order. Marks them as perhaps sent, durably.
    pub(super) fn next_batch(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        let max_bytes = max_bytes.min(usize::try_from(self.limits.segment_bytes()).unwrap_or(usize::MAX));
        self.pay_owed();
        loop {
            let (fault, sample) = self.choose(max_records, max_bytes);
            let mut batch = self.read_waiting(Lane::Fault, &fault)?;
            batch.extend(self.read_waiting(Lane::Sample, &sample)?);
            // A record that had rotted is a gap now: it must go in its place, so the choice is made anew.
            if batch.len() == fault.len() + sample.len() {
                self.mark_sent(&batch)?;
                return Ok(batch);
            }
        }
    }

    fn choose(&self, max_records: usize, max_bytes: usize) -> (Vec<Waiting>, Vec<Waiting>) {
        let mut chosen = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let faults = self.state.fault.iter().map(|w| (Lane::Fault, w));
        // Samples behind a loss that is not recorded yet would arrive out of order.
        let samples = self.state.sample.iter().filter(|_| self.state.owed.is_empty()).map(|w| (Lane::Sample, w));
        for (at, (lane, waiting)) in faults.chain(samples).take(max_records).enumerate() {
            bytes += waiting.place.bytes as usize;
            if bytes > max_bytes && at > 0 {
                break;
            }
            let part = if lane == Lane::Fault { &mut chosen.0 } else { &mut chosen.1 };
            part.push(*waiting);
        }
        chosen
    }

    /// Reads waiting records back. One that has rotted on the disk is quarantined and becomes a gap.
    pub(super) fn read_waiting(&mut self, lane: Lane, chosen: &[Waiting]) -> Result<Vec<Record>, SpoolError> {
        let places: Vec<_> = chosen.iter().map(|w| w.place).collect();
        let dir = self.dir.clone();
        let bodies = self.chain(lane).read_frames(&places).map_err(|source| SpoolError::Io { path: dir, source })?;
        let mut records = Vec::new();
        for (waiting, body) in chosen.iter().zip(bodies) {
            match body.and_then(|body| serde_json::from_slice::<Record>(&body).ok()) {
                Some(record) => records.push(record),
                None => self.rotten(lane, waiting)?,
            }
        }
        Ok(records)
    }

    fn rotten(&mut self, lane: Lane, waiting: &Waiting) -> Result<(), SpoolError> {
        let Some(id) = self.state.id_of(lane, waiting) else { return Ok(()) };
        self.state.counters.corrupt_ranges += 1;
        self.state.counters.corrupt_records += 1;
        let gap = Gap { from_seq: id.seq, to_seq: id.seq, why: "corrupt".into(), count: 1 };
        self.put_gap(id, gap)
    }

    fn mark_sent(&mut self, batch: &[Record]) -> Result<(), SpoolError> {
        let mut through: Vec<RecordId> = Vec::new();
        for record in batch {
            match through.last_mut() {
                Some(last) if last.epoch == record.id.epoch && last.lane == record.id.lane => last.seq = record.id.seq,
                _ => through.push(record.id.clone()),
            }
        }
        let state = &mut self.state;
        through.retain(|id| {
            let key = state.key_of(&id.epoch);
            state.marks(key, id.lane).is_some_and(|m| m.sent < id.seq)
        });
        if through.is_empty() {
            return Ok(());
        }
        let body = serde_json::to_vec(&through).map_err(|source| SpoolError::Json { source })?;
        self.commit_on_full_disk(Kind::Sent, body)?;
        self.state.apply_sent(&through);
        Ok(())
    }

    /// Takes an acknowledgement, durably, and deletes what is no longer needed.
    pub(super) fn ack(
        &mut self,
        mut acks: Vec<RecordId>,
        nonce: Option<Nonce>,
        collector_epoch: Option<CollectorEpoch>,
    ) -> Result<(), SpoolError> {
        // Only what is waiting can be acknowledged: a wrong answer must not swallow records that are yet to come.
        let state = &self.state;
        acks.retain_mut(|id| {
            let last = state.last_of(id);
            id.seq = id.seq.min(last);
            last > 0
        });
        let ack = AckBody { acks, nonce, collector_epoch };
        let body = serde_json::to_vec(&ack).map_err(|source| SpoolError::Json { source })?;
        self.commit_on_full_disk(Kind::Ack, body)?;
        self.state.apply_ack(&ack);
        self.compaction_is_futile = false;
        self.delete_done();
        room::keep_reserve(self);
        Ok(())
    }

    /// Copies a record that the collector can't take to the quarantine and puts a gap in its place.
    pub(super) fn set_aside(&mut self, id: RecordId, why: &str) -> Result<(), SpoolError> {
        let key = self.state.key_of(&id.epoch);
        let Some(waiting) = self.state.lane(id.lane).iter().find(|w| w.epoch == key && w.seq == id.seq).copied() else {
            return Ok(());
        };
        let records = self.read_waiting(id.lane, &[waiting])?;
        tracing::warn!(%id, why, "spool: the collector can't take this record; it is set aside");
        if let Some(text) = records.first().and_then(|r| serde_json::to_vec(r).ok()) {
            let name = format!("poison-{}-{}-{}.json", id.epoch, id.lane.as_str(), id.seq);
            repair::keep(self.disk.as_ref(), &self.dir, self.limits, &name, &text);
        }
        self.state.counters.poison += 1;
        let gap = Gap { from_seq: id.seq, to_seq: id.seq, why: "poison".into(), count: 1 };
        self.put_gap(id, gap)
    }

    /// Deletes segments that hold nothing waiting. A failure only costs room; the next call tries again.
    pub(super) fn delete_done(&mut self) {
        let oldest_fault = self.state.oldest_needed(Lane::Fault, self.fault.numbers());
        let oldest_sample = self.state.oldest_needed(Lane::Sample, self.sample.numbers());
        for (chain, oldest) in [(&mut self.fault, oldest_fault), (&mut self.sample, oldest_sample)] {
            if let Err(error) = chain.delete_before(oldest) {
                tracing::warn!(%error, "spool: an old segment can't be deleted");
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            fault_records: self.state.fault.len() as u64,
            sample_records: self.state.sample.len() as u64,
            bytes: self.fault.bytes() + self.sample.bytes(),
            max_bytes: self.limits.max_bytes,
            counters: self.state.counters,
        }
    }
}

/// What a new fault segment begins with.
fn opening(state: &mut State, current: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let checkpoint = serde_json::to_vec(&state.checkpoint(current)).unwrap_or_default();
    format::put_frame(&mut bytes, Kind::Checkpoint, &checkpoint);
    bytes
}

/// The record's JSON, its evidence cut until it fits [`MAX_RECORD_BYTES`].
fn fit(record: &mut Record) -> Result<Vec<u8>, SpoolError> {
    let mut text_chars = 1024;
    loop {
        let body = serde_json::to_vec(record).map_err(|source| SpoolError::Json { source })?;
        if body.len() <= MAX_RECORD_BYTES {
            return Ok(body);
        }
        match &mut record.payload {
            Payload::Fault(change) if text_chars > 8 => {
                text_chars /= 2;
                for check in &mut change.grounds.checks {
                    check.text = mainstay_shared::limits::clean_text(&check.text, text_chars);
                    check.perf_data.clear();
                }
            }
            _ => return Err(SpoolError::TooLarge { bytes: body.len() }),
        }
    }
}
