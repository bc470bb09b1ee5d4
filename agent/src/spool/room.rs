//! Making room: the sample lane drops its oldest segment, the fault lane is compacted. Every drop leaves a gap record (R31).
//!
//! Gap records are written before the segment that they account for is deleted; a crash in between costs nothing, since
//! reading a gap forgets what it covers. Segments are rewritten one at a time, so that one segment of reserve is enough.

use std::collections::HashMap;

use mainstay_shared::ids::Lane;
use mainstay_shared::record::{Gap, Payload, Record};

use super::SpoolError;
use super::disk::Access;
use super::format::Kind;
use super::rules::{self, Dropped, Item};
use super::state::Waiting;
use super::store::Store;

/// More fault segments than this are gathered into few (a crash loop makes one per start).
const MAX_SEGMENTS: usize = 64;
/// The reserve's file.
const RESERVE: &str = "reserve";
/// Why word of a dropped sample segment.
const LANE_FULL: &str = "lane_full";

/// Makes room for `bytes` more in `lane`.
///
/// # Errors
/// [`SpoolError::Full`] when the fault lane is full of what must not be dropped.
pub(super) fn make_room(store: &mut Store, lane: Lane, bytes: u64) -> Result<(), SpoolError> {
    let budget = store.limits.lane_bytes(lane);
    if store.chain(lane).bytes() + bytes <= budget {
        return Ok(());
    }
    store.delete_done();
    match lane {
        Lane::Sample => {
            let mut rounds = store.sample.numbers().len();
            while store.sample.bytes() + bytes > budget && rounds > 0 {
                drop_oldest_samples(store)?;
                rounds -= 1;
            }
            Ok(())
        }
        Lane::Fault if store.fault.bytes() + bytes <= budget => Ok(()),
        Lane::Fault if store.compaction_is_futile => Err(SpoolError::Full),
        Lane::Fault => {
            drop_superseded_faults(store)?;
            gather_faults(store)?;
            if store.fault.bytes() + bytes <= budget {
                return Ok(());
            }
            store.compaction_is_futile = true;
            Err(SpoolError::Full)
        }
    }
}

/// Gathers the fault lane when it has come to consist of very many small segments.
pub(super) fn limit_segments(store: &mut Store) -> Result<(), SpoolError> {
    if store.fault.numbers().len() <= MAX_SEGMENTS { Ok(()) } else { gather_faults(store) }
}

/// The disk itself is full: spends the reserve, then the oldest samples. Whether anything was freed.
pub(super) fn give_way(store: &mut Store) -> bool {
    if store.disk.remove(&store.dir.join(RESERVE)).is_err() {
        return sacrifice_samples(store);
    }
    tracing::warn!("spool: the disk is full; the reserve is spent");
    // Samples may have to go next: what they are numbered must be known after a power cut too, so that their hole is found.
    if let Err(error) = store.begin_segment() {
        tracing::warn!(%error, "spool: no new segment on the full disk");
    }
    true
}

/// Whether the disk has room for the reserve. Without it no sample is accepted: the last room is the faults'.
pub(super) fn has_reserve(store: &Store) -> bool {
    keep_reserve(store);
    store.disk.exists(&store.dir.join(RESERVE))
}

/// Keeps 5 % of the spool's size on the disk in a file of nothing, for a day on which the disk is full.
pub(super) fn keep_reserve(store: &Store) {
    let path = store.dir.join(RESERVE);
    if store.disk.exists(&path) {
        return;
    }
    let bytes = vec![0; usize::try_from(store.limits.reserve_bytes()).unwrap_or(0)];
    let file = store.disk.open(&path, Access::CreateNew);
    let kept = file.and_then(|file| file.write_all_at(&bytes, 0).and_then(|()| file.sync_data()));
    if kept.is_err() {
        // No room for it now; the next acknowledgement tries again.
        drop(store.disk.remove(&path));
    }
}

/// The disk itself is full: drops the oldest samples first and accounts for them after. Whether anything was freed. If the
/// power goes in between, the hole is found and accounted for at the next start.
fn sacrifice_samples(store: &mut Store) -> bool {
    store.delete_done();
    let mut segments = Vec::new();
    // A segment of gaps alone frees nothing, since they are written again: with the first one that holds samples, or not at all.
    for number in store.sample.numbers() {
        let here: Vec<Waiting> = store.state.sample.iter().filter(|w| w.place.segment == number).copied().collect();
        let Ok(records) = store.read_waiting(Lane::Sample, &here) else { return false };
        let holds_samples = records.iter().any(|record| !matches!(record.payload, Payload::Gap(_)));
        segments.push((number, records));
        if holds_samples {
            delete_and_account(store, &segments);
            return !store.sample.numbers().contains(&number);
        }
    }
    false
}

/// Deletes sample segments (the open one stays) and puts gaps in the place of those that are gone.
fn delete_and_account(store: &mut Store, segments: &[(u32, Vec<Record>)]) {
    let Some((through, _)) = segments.last() else { return };
    if let Err(error) = store.sample.delete_before(Some(through + 1)) {
        tracing::warn!(%error, "spool: the oldest samples can't be deleted");
    }
    let left = store.sample.numbers();
    let victims: Vec<Record> =
        segments.iter().filter(|(number, _)| !left.contains(number)).flat_map(|(_, r)| r.clone()).collect();
    store.state.sample.retain(|w| left.contains(&w.place.segment));
    let gaps = runs(&victims);
    store.state.counters.dropped += gaps.iter().map(|dropped| dropped.newly).sum::<u64>();
    store.state.owed.extend(gaps.into_iter().map(|dropped| (dropped.id, dropped.gap)));
    store.pay_owed();
}

/// Drops the oldest sample segment; what the collector may have seen of it moves to the newest.
fn drop_oldest_samples(store: &mut Store) -> Result<(), SpoolError> {
    let Some(oldest) = store.sample.numbers().first().copied() else { return Ok(()) };
    let here: Vec<Waiting> = store.state.sample.iter().filter(|w| w.place.segment == oldest).copied().collect();
    let (sent, victims): (Vec<_>, Vec<_>) = here.into_iter().partition(|w| is_sent(store, Lane::Sample, w));
    move_to_newest(store, Lane::Sample, &sent)?;
    for dropped in runs(&store.read_waiting(Lane::Sample, &victims)?) {
        store.drop_records(dropped)?;
    }
    store.delete_done();
    Ok(())
}

/// One gap per unbroken run of `victims`; an older gap among them is folded in.
fn runs(victims: &[Record]) -> Vec<Dropped> {
    let mut runs: Vec<Dropped> = Vec::new();
    for Record { id, payload, .. } in victims {
        let (from, count, newly) = match payload {
            Payload::Gap(gap) => (gap.from_seq, gap.count, 0),
            _ => (id.seq, 1, 1),
        };
        match runs.last_mut() {
            Some(run) if run.id.epoch == id.epoch && run.id.seq + 1 == from => {
                run.id = id.clone();
                run.gap.to_seq = id.seq;
                run.gap.count += count;
                run.newly += newly;
            }
            _ => {
                let gap = Gap { from_seq: from, to_seq: id.seq, why: LANE_FULL.into(), count };
                runs.push(Dropped { id: id.clone(), gap, newly });
            }
        }
    }
    runs
}

fn drop_superseded_faults(store: &mut Store) -> Result<(), SpoolError> {
    let waiting: Vec<Waiting> = store.state.fault.iter().copied().collect();
    let mut keys = HashMap::new();
    let mut items = Vec::with_capacity(waiting.len());
    for part in waiting.chunks(256) {
        for record in store.read_waiting(Lane::Fault, part)? {
            let key = store.state.key_of(&record.id.epoch);
            let sent = store.state.marks(key, Lane::Fault).is_some_and(|m| m.sent >= record.id.seq);
            items.push(Item::of(&record, sent, &mut keys));
        }
    }
    for dropped in rules::compact(&items) {
        store.drop_records(dropped)?;
    }
    Ok(())
}

/// Moves what waits in the old fault segments, oldest first, to the newest, and deletes them.
fn gather_faults(store: &mut Store) -> Result<(), SpoolError> {
    let mut numbers = store.fault.numbers();
    numbers.pop();
    for number in numbers {
        let here: Vec<Waiting> = store.state.fault.iter().filter(|w| w.place.segment == number).copied().collect();
        move_to_newest(store, Lane::Fault, &here)?;
        store.delete_done();
    }
    Ok(())
}

fn move_to_newest(store: &mut Store, lane: Lane, waiting: &[Waiting]) -> Result<(), SpoolError> {
    if waiting.is_empty() {
        return Ok(());
    }
    let records = store.read_waiting(lane, waiting)?;
    let mut frames = Vec::with_capacity(records.len());
    for record in &records {
        frames.push((Kind::Moved, serde_json::to_vec(record).map_err(|source| SpoolError::Json { source })?));
    }
    let places = store.commit(lane, &frames)?;
    for (record, place) in records.iter().zip(places) {
        store.state.apply_record(record, place, true);
    }
    Ok(())
}

fn is_sent(store: &mut Store, lane: Lane, waiting: &Waiting) -> bool {
    store.state.marks(waiting.epoch, lane).is_some_and(|m| m.sent >= waiting.seq)
}
