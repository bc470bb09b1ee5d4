//! Damage that no power cut makes: files cut at any byte, flipped bits, sectors that can't be read. It is never fatal, it costs
//! what it hit and nothing else, and what it cost is told in a gap record (R30, R31). `MAINSTAY_SOAK=1` tries every byte, bit
//! and sector of a small spool, otherwise every so-manieth.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::ids::{Lane, RecordId};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::time_source::{TimeSource, UnixMs};

use super::super::Limits;
use super::super::store::Store;
use super::simulated::{Draw, SimulatedDisk};
use super::{acks_of, covered, fault, ids, samples, started, waiting};

const DIR: &str = "/spool";
const LIMITS: Limits = Limits { max_bytes: 64 << 10 };

/// A spool of three runs with both lanes, several segments, acknowledged records and one that was set aside.
struct Built {
    disk: SimulatedDisk,
    accepted: Vec<(RecordId, Payload)>,
    acknowledged: BTreeSet<RecordId>,
}

fn open(disk: &SimulatedDisk, seed: u64) -> Store {
    let epoch = Draw(seed).hex_128().parse().unwrap();
    let disk = Arc::new(disk.clone());
    Store::open_on(disk, Path::new(DIR), None, LIMITS, epoch, TimeSource::manual(UnixMs(1_000))).expect("damage is not fatal")
}

fn built() -> Built {
    let disk = SimulatedDisk::new(7, Path::new(DIR));
    let mut built = Built { disk, accepted: Vec::new(), acknowledged: BTreeSet::new() };
    for run in 0..3 {
        let mut store = open(&built.disk, run);
        let mut push = |payload: Payload| {
            let id = store.push(payload.clone()).unwrap();
            built.accepted.push((id.clone(), payload));
            id
        };
        push(Payload::Started(started("boot")));
        let raised = push(fault(1, FaultChangeKind::Raised, None));
        push(samples(1));
        push(fault(2, FaultChangeKind::Raised, None));
        push(fault(1, FaultChangeKind::Cleared, Some(raised)));
        push(samples(2));
        push(fault(3, FaultChangeKind::Raised, None));
        if run == 1 {
            let batch = store.next_batch(5, 100_000).unwrap();
            built.acknowledged.extend(ids(&batch));
            store.ack(acks_of(&batch), Some("ab".repeat(16).parse().unwrap()), None).unwrap();
            let poison = store.next_batch(1, 100_000).unwrap();
            store.set_aside(poison[0].id.clone(), "bad_message").unwrap();
        }
    }
    built
}

impl Built {
    /// What a start finds; it must be what was pushed, each at most once, and the next start must find the same.
    fn found(&self, disk: &SimulatedDisk, what: &str) -> Vec<Record> {
        let mut store = open(disk, 100);
        let found = waiting(&mut store);
        let unique: BTreeSet<_> = ids(&found).into_iter().collect();
        assert_eq!(unique.len(), found.len(), "{what}: something is there twice");
        for record in found.iter().filter(|record| !matches!(record.payload, Payload::Gap(_))) {
            let pushed = self.accepted.iter().any(|(id, payload)| *id == record.id && *payload == record.payload);
            assert!(pushed, "{what}: {} was never pushed", record.id);
        }
        let counters = store.stats().counters;
        drop(store);
        let mut again = open(disk, 101);
        assert_eq!(ids(&waiting(&mut again)), ids(&found), "{what}: the second start finds the same");
        assert_eq!(again.stats().counters, counters, "{what}: nothing is counted twice");
        found
    }

    fn expect_all_accounted_for(&self, found: &[Record], what: &str) {
        for (id, _) in self.accepted.iter().filter(|(id, _)| !self.acknowledged.contains(id)) {
            // Where the checkpoint that names a run is hit with its first records, the gap stands behind its last one.
            let behind = |r: &Record| {
                r.id.epoch == id.epoch && r.id.lane == id.lane && matches!(&r.payload, Payload::Gap(g) if g.why == "corrupt")
            };
            assert!(covered(found, id) || found.iter().any(behind), "{what}: {id} is gone and no gap tells of it");
        }
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.segments(Path::new(DIR)).into_iter();
        files.map(|path| (path.clone(), self.disk.bytes_of(&path))).collect()
    }
}

/// All of them in the soak, otherwise about `slice`.
fn some(all: usize, slice: usize) -> impl Iterator<Item = usize> {
    let whole = std::env::var("MAINSTAY_SOAK").is_ok_and(|value| value == "1");
    (0..all).step_by(if whole { 1 } else { (all / slice).max(1) })
}

#[test]
fn a_spool_with_any_one_bit_flipped_keeps_the_rest_and_tells_what_it_lost() {
    let built = built();
    let mut points = 0;
    for (path, good) in built.files() {
        for bit in some(good.len() * 8, 120) {
            let what = format!("{} bit {bit}", path.display());
            let (disk, mut bad) = (built.disk.fork(bit as u64), good.clone());
            bad[bit / 8] ^= 1 << (bit % 8);
            disk.overwrite(&path, &bad);
            let found = built.found(&disk, &what);
            built.expect_all_accounted_for(&found, &what);
            let lost = found.iter().filter(|record| matches!(&record.payload, Payload::Gap(gap) if gap.why == "corrupt")).count();
            assert!(lost <= 1, "{what}: one flipped bit cost {lost} gaps");
            points += 1;
        }
    }
    println!("soak: part=spool-flipped-bits points={points} seeds=1 losses=0 (what was hit is counted in gaps)");
}

#[test]
fn a_spool_with_a_file_cut_at_any_byte_keeps_all_that_stands_before_the_cut_and_in_other_files() {
    let built = built();
    let mut points = 0;
    for (path, good) in built.files() {
        let begins: Vec<(RecordId, PathBuf, usize)> = {
            let mut store = open(&built.disk.fork(1), 100);
            let lanes = Lane::ALL.map(|lane| store.state.lane(lane).iter().copied().collect::<Vec<_>>());
            let places = lanes.iter().zip(Lane::ALL).flat_map(|(lane, name)| lane.iter().map(move |w| (name, *w)));
            let places: Vec<_> = places.collect();
            places
                .into_iter()
                .filter_map(|(lane, w)| {
                    let id = store.state.id_of(lane, &w)?;
                    let end = (w.place.offset + w.place.bytes) as usize;
                    Some((id, store.chain(lane).path(w.place.segment), end))
                })
                .collect()
        };
        // Who runs after that file was begun is told by it alone: without its first frame, samples of that run are no longer known.
        let first_frame = 8 + 13 + good.get(13..17).map_or(0, |len| u32::from_le_bytes(len.try_into().unwrap()) as usize);
        let is_fault_file = path.to_string_lossy().contains("fault-");
        for cut in some(good.len(), 60) {
            let what = format!("{} cut at {cut}", path.display());
            let disk = built.disk.fork(cut as u64);
            disk.overwrite(&path, &good[..cut]);
            let found = built.found(&disk, &what);
            let unknown = is_fault_file && cut < first_frame;
            let kept = |(id, file, end): &&(RecordId, PathBuf, usize)| match *file == path {
                true => *end <= cut,
                false => id.lane == Lane::Fault || !unknown,
            };
            for (id, _, _) in begins.iter().filter(kept) {
                assert!(found.iter().any(|record| record.id == *id), "{what}: {id} stood elsewhere and is gone");
            }
            points += 1;
        }
    }
    println!("soak: part=spool-cut-files points={points} seeds=1 losses=0 (behind the cut only)");
}

#[test]
fn a_sector_that_cannot_be_read_costs_its_records_and_neither_a_start_nor_the_sending() {
    let built = built();
    let mut points = 0;
    for (path, good) in built.files() {
        for sector in 0..good.len().div_ceil(512) {
            let what = format!("{} sector {sector}", path.display());
            let disk = built.disk.fork(sector as u64);
            disk.spoil(&path, sector * 512);
            built.expect_all_accounted_for(&built.found(&disk, &what), &what);
            points += 1;

            let disk = built.disk.fork(sector as u64);
            let mut store = open(&disk, 100);
            disk.spoil(&path, sector * 512);
            store.next_batch(500, 1 << 20).expect("what can be read is sent");
            waiting(&mut store);
            let found = waiting(&mut store);
            built.expect_all_accounted_for(&found, &format!("{what}, while the agent runs"));
        }
    }
    println!("soak: part=spool-unreadable-sectors points={points} seeds=1 losses=0 (what was hit is counted in gaps)");
}
