//! A backlog as large as a spool may hold: it drains in order, once, what policy dropped is counted, and memory stays bounded.
//!
//! On a real file system. `MAINSTAY_SOAK=1` pushes a million records, otherwise a few thousand. It prints times and the peak of
//! memory as observations; nothing depends on them but the bound per record.

use std::path::Path;

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::ids::{Epoch, Lane, RecordId};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;

use super::super::Limits;
use super::super::disk::MachineDisk;
use super::super::state::Waiting;
use super::super::store::Store;
use super::{acks_of, fault};

const KEYS: usize = 200;

fn records() -> usize {
    if std::env::var("MAINSTAY_SOAK").is_ok_and(|value| value == "1") { 1_000_000 } else { 5_000 }
}

fn open(dir: &Path, limits: Limits, time: &TimeSource) -> Store {
    let epoch = Epoch::random(&SystemRandom::new());
    Store::open_on(std::sync::Arc::new(MachineDisk), dir, None, limits, epoch, time.clone()).expect("opens")
}

/// Where a sync costs nothing, if there is such a place: what is proved here is order, count and memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The process's peak of resident memory in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Raises and clears of [`KEYS`] faults in turn.
fn fill(store: &mut Store, records: usize) {
    let mut open: Vec<Option<RecordId>> = vec![None; KEYS];
    for n in 0..records {
        let name = n % KEYS;
        let (kind, episode) = match open[name].take() {
            Some(episode) => (FaultChangeKind::Cleared, Some(episode)),
            None => (FaultChangeKind::Raised, None),
        };
        let id = store.push(fault(name, kind, episode)).expect("accepted");
        assert_eq!(id.seq, n as u64 + 1);
        if kind == FaultChangeKind::Raised {
            open[name] = Some(id);
        }
    }
}

/// Drains in batches as the reporting story does; returns how many records came and how many were told lost.
fn drain(store: &mut Store) -> (u64, u64) {
    let (mut next, mut came, mut lost) = (1, 0, 0);
    loop {
        let batch: Vec<Record> = store.next_batch(500, 1 << 20).expect("a batch");
        let Some(last) = batch.last() else { return (came, lost) };
        for record in &batch {
            assert_eq!(record.id.lane, Lane::Fault);
            let from = match &record.payload {
                Payload::Gap(gap) => {
                    lost += gap.count;
                    gap.from_seq
                }
                _ => {
                    came += 1;
                    record.id.seq
                }
            };
            assert_eq!(from, next, "in order and without a hole");
            next = record.id.seq + 1;
        }
        assert!(last.id.seq < next);
        store.ack(acks_of(&batch), None, None).expect("acknowledged");
    }
}

fn backlog(name: &str, limits: Limits) -> (u64, u64) {
    let (dir, time, records) = (folder(), TimeSource::system(), records());
    let mut store = open(dir.path(), limits, &time);
    let began = time.monotonic();
    fill(&mut store, records);
    let filled = time.monotonic() - began;
    let (bytes, waiting) = (store.stats().bytes, store.state.fault.len());
    assert!(bytes <= limits.max_bytes, "{bytes} bytes");
    drop(store);

    let began = time.monotonic();
    let mut store = open(dir.path(), limits, &time);
    let opened = time.monotonic() - began;
    assert_eq!(store.state.fault.len(), waiting);
    let place_bytes = store.state.fault.capacity() * std::mem::size_of::<Waiting>();
    assert!(place_bytes <= 128 * waiting.max(1_000), "{place_bytes} bytes of places for {waiting} records");
    let began = time.monotonic();
    let (came, lost) = drain(&mut store);
    assert_eq!(came + lost, records as u64, "every record came or was told lost");
    assert_eq!(lost, store.stats().counters.dropped, "what policy dropped is counted");
    assert!(store.stats().bytes <= 2 * limits.segment_bytes(), "drained, {} bytes are left", store.stats().bytes);
    println!(
        "soak: part=spool-backlog-{name} points={records} seeds=1 losses=0 (dropped by policy and counted: {lost}; {bytes} bytes \
         on disk; filled in {} ms, opened in {} ms, drained in {} ms; peak of the process {} KiB, of it places {} KiB)",
        filled.as_millis(),
        opened.as_millis(),
        (time.monotonic() - began).as_millis(),
        peak_kib(),
        place_bytes >> 10,
    );
    (came, lost)
}

#[test]
fn a_backlog_that_fits_drains_whole_and_in_order() {
    let (_, lost) = backlog("roomy", Limits { max_bytes: 1 << 30 });
    assert_eq!(lost, 0);
}

#[test]
fn a_backlog_beyond_the_limit_keeps_the_last_state_of_every_fault_and_counts_the_rest() {
    let default_size = Limits { max_bytes: if records() > 100_000 { 16 << 20 } else { 1 << 20 } };
    let (came, lost) = backlog("limited", default_size);
    assert!(lost > 0 && came >= KEYS as u64, "every fault keeps at least its last raise");
}
