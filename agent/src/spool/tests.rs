//! The spool against a model and against damage: pushes, batches, acknowledgements, crashes, flipped bits, full disks.
//!
//! The model is the list of what was accepted. The oracle: whatever happens, an accepted fault that was not acknowledged is
//! there again after a restart, once and in order, or a gap record covers it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{CollectorEpoch, Epoch, Lane, Nonce, RecordId};
use mainstay_shared::record::{Folded, Goodbye, Payload, Record, Samples, Started};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::store::Store;
use super::*;

mod simulated;
mod model;
mod sweep;
mod damage;
mod backlog;

use simulated::SimulatedDisk;

const ROOMY: Limits = Limits { max_bytes: 4 << 20 };

fn open(dir: &Path, limits: Limits) -> Store {
    Store::open(dir, limits, &SystemRandom::new(), TimeSource::manual(UnixMs(1_000))).expect("opens")
}

fn fault(name: usize, kind: FaultChangeKind, episode: Option<RecordId>) -> Payload {
    Payload::Fault(FaultChange {
        kind,
        key: FaultKey::new(format!("service:{name}"), "service_down"),
        episode,
        level: Level::Serious,
        summary: format!("{name} {kind:?} {}", "x".repeat(60)),
        grounds: FaultGrounds::default(),
        at: UnixMs(1),
        present_at_start: false,
    })
}

fn samples(name: usize) -> Payload {
    let folded = Folded { min: 0.0, avg: 0.5, max: 1.0, last: 1.0 };
    let metrics = (0..8).map(|i| (format!("metric.{name}.{i}"), folded)).collect();
    Payload::Samples(Samples { from: UnixMs(0), to: UnixMs(300_000), metrics })
}

/// Everything that waits, in the order of sending, without marking it sent.
fn waiting(store: &mut Store) -> Vec<Record> {
    let mut all = Vec::new();
    for lane in Lane::ALL {
        let chosen: Vec<_> = store.state.lane(lane).iter().copied().collect();
        all.extend(store.read_waiting(lane, &chosen).expect("reads"));
    }
    all
}

fn ids(records: &[Record]) -> Vec<RecordId> {
    records.iter().map(|r| r.id.clone()).collect()
}

fn covered(records: &[Record], id: &RecordId) -> bool {
    records.iter().any(|r| match &r.payload {
        Payload::Gap(gap) => r.id.epoch == id.epoch && r.id.lane == id.lane && (gap.from_seq..=gap.to_seq).contains(&id.seq),
        _ => r.id == *id,
    })
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    files.sort();
    files
}

#[derive(Debug, Clone)]
enum Op {
    Fault(usize),
    Sample(usize),
    Deliver(usize),
    LoseAnswer(usize),
    Restart,
    TornWrite(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..5).prop_map(Op::Fault),
        2 => (0usize..5).prop_map(Op::Sample),
        2 => (1usize..6).prop_map(Op::Deliver),
        1 => (1usize..6).prop_map(Op::LoseAnswer),
        2 => Just(Op::Restart),
        1 => (1usize..60).prop_map(Op::TornWrite),
    ]
}

/// The acknowledgements that a collector gives for `batch`: the last of each lane of each epoch.
fn acks_of(batch: &[Record]) -> Vec<RecordId> {
    let mut acks: Vec<RecordId> = Vec::new();
    for record in batch {
        acks.retain(|a| a.epoch != record.id.epoch || a.lane != record.id.lane);
        acks.push(record.id.clone());
    }
    acks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_accepted_and_not_acknowledged_is_there_once_and_in_order(ops in proptest::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), ROOMY);
        let mut model: Vec<RecordId> = Vec::new();
        for op in ops {
            match op {
                Op::Fault(n) => model.push(store.push(fault(n, FaultChangeKind::Raised, None)).unwrap()),
                Op::Sample(n) => model.push(store.push(samples(n)).unwrap()),
                Op::Deliver(n) => {
                    let batch = store.next_batch(n, 100_000).unwrap();
                    store.ack(acks_of(&batch), Some(Nonce::random(&SystemRandom::new())), None).unwrap();
                    let sent = ids(&batch);
                    model.retain(|id| !sent.contains(id));
                }
                Op::LoseAnswer(n) => drop(store.next_batch(n, 100_000).unwrap()),
                Op::Restart => {
                    drop(store);
                    store = open(dir.path(), ROOMY);
                }
                Op::TornWrite(n) => {
                    drop(store);
                    let last = segment_files(dir.path()).into_iter().rfind(|p| p.to_string_lossy().contains("fault-")).unwrap();
                    let mut frame = Vec::new();
                    super::format::put_frame(&mut frame, super::format::Kind::Record, &[b'{'; 80]);
                    std::fs::OpenOptions::new().append(true).open(last).unwrap().write_all(&frame[..n]).unwrap();
                    store = open(dir.path(), ROOMY);
                }
            }
            let mut expected = model.clone();
            expected.sort_by_key(|id| (id.lane, model.iter().position(|m| m.epoch == id.epoch), id.seq));
            prop_assert_eq!(ids(&waiting(&mut store)), expected);
        }
    }

    #[test]
    fn a_flipped_bit_never_loses_a_record_without_a_gap(
        pushes in 1usize..40, delivered in 0usize..20, restarts in 1usize..3, flip in (proptest::num::usize::ANY, 0u8..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { max_bytes: 128 << 10 };
        let mut accepted = Vec::new();
        let mut acked = BTreeSet::new();
        for _ in 0..restarts {
            let mut store = open(dir.path(), limits);
            for n in 0..pushes {
                accepted.push(store.push(fault(n % 4, FaultChangeKind::Raised, None)).unwrap());
            }
            let batch = store.next_batch(delivered.max(1), 100_000).unwrap();
            store.ack(acks_of(&batch), None, None).unwrap();
            acked.extend(ids(&batch));
        }
        let files = segment_files(dir.path());
        let file = &files[flip.0 % files.len()];
        let mut bytes = std::fs::read(file).unwrap();
        let at = (flip.0 / 7) % bytes.len();
        bytes[at] ^= 1 << flip.1;
        std::fs::write(file, bytes).unwrap();
        let mut store = open(dir.path(), limits);
        let quarantined = std::fs::read_dir(dir.path().join("quarantine")).map(|d| d.count()).unwrap_or(0);
        prop_assert!(quarantined > 0);
        let torn = std::fs::read_dir(dir.path().join("quarantine")).unwrap().any(|e| e.unwrap().path().to_string_lossy().contains("torn"));
        let found = waiting(&mut store);
        let unique: BTreeSet<_> = ids(&found).into_iter().collect();
        prop_assert_eq!(unique.len(), found.len());
        for id in accepted.iter().filter(|id| !acked.contains(*id)) {
            prop_assert!(covered(&found, id) || torn, "{} is gone without a gap", id);
        }
        drop(store);
        let again = ids(&waiting(&mut open(dir.path(), limits)));
        prop_assert_eq!(ids(&found), again, "the second start finds the same");
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_small_spool_stays_within_its_limit_and_accounts_for_every_record(names in proptest::collection::vec((0usize..6, 0u8..4), 200..600)) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { max_bytes: 48 << 10 };
        let mut store = open(dir.path(), limits);
        let sent = { let first = store.push(fault(0, FaultChangeKind::Raised, None)).unwrap(); drop(store.next_batch(10, 10_000).unwrap()); first };
        let mut accepted = vec![sent.clone()];
        let mut open_now: std::collections::BTreeMap<usize, RecordId> = [(0, sent.clone())].into();
        for (name, what) in names {
            let pushed = match (what, open_now.get(&name).cloned()) {
                (3, _) => store.push(samples(name)),
                (_, Some(episode)) => { open_now.remove(&name); store.push(fault(name, FaultChangeKind::Cleared, Some(episode))) }
                (_, None) => store.push(fault(name, FaultChangeKind::Raised, None)).inspect(|id| { open_now.insert(name, id.clone()); }),
            };
            accepted.push(pushed.expect("there is always room: at most six keys"));
            prop_assert!(store.stats().bytes <= limits.max_bytes, "{} bytes", store.stats().bytes);
        }
        prop_assert!(store.stats().counters.dropped > 0);
        drop(store);
        let mut store = open(dir.path(), limits);
        let found = waiting(&mut store);
        for id in &accepted {
            prop_assert!(covered(&found, id), "{id} is not accounted for");
        }
        prop_assert!(found.iter().any(|r| r.id == sent && !matches!(r.payload, Payload::Gap(_))), "what may have been sent stays");
        let open: BTreeSet<_> = store.state.open.iter().map(|o| o.episode.clone()).collect();
        prop_assert_eq!(open, open_now.into_values().collect::<BTreeSet<_>>());
        for episode in store.state.open.clone() {
            prop_assert!(found.iter().any(|r| r.id == episode.episode && !matches!(r.payload, Payload::Gap(_))), "an open fault's raise is kept");
        }
    }
}

#[test]
fn nonce_collector_epoch_open_faults_and_starts_survive_the_deletion_of_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 64 << 10 };
    let rng = SystemRandom::new();
    let (nonce, epoch) = (Nonce::random(&rng), CollectorEpoch::random(&rng));
    let mut store = open(dir.path(), limits);
    store.push(Payload::Started(started("boot-1"))).unwrap();
    let episode = store.push(fault(7, FaultChangeKind::Raised, None)).unwrap();
    for n in 0..200 {
        store.push(fault(n % 3, FaultChangeKind::Raised, None)).unwrap();
        let batch = store.next_batch(10, 100_000).unwrap();
        store.ack(acks_of(&batch), Some(nonce.clone()), Some(epoch.clone())).unwrap();
    }
    store.push(Payload::Goodbye(Goodbye { reason: "stop".into(), expected_return_at: None })).unwrap();
    assert!(segment_files(dir.path()).len() <= 2, "what is acknowledged is deleted");
    drop(store);
    let store = open(dir.path(), limits);
    assert_eq!((store.state.nonce.clone(), store.state.collector_epoch.clone()), (Some(nonce), Some(epoch)));
    assert!(store.state.open.iter().any(|o| o.episode == episode));
    assert_eq!(store.state.starts.back().map(|s| (s.boot_id.as_str(), s.goodbye)), Some(("boot-1", true)));
}

fn started(boot_id: &str) -> Started {
    Started {
        agent_version: "0".into(),
        boot_id: boot_id.into(),
        uptime_s: 5,
        hostname: "h".into(),
        platform: "p".into(),
        after_crash: false,
        safe_mode: false,
        services: Vec::new(),
        installed: None,
    }
}

/// The spool on `disk`, as a start of the agent opens it.
fn open_on(disk: &SimulatedDisk) -> Store {
    let (disk, epoch) = (std::sync::Arc::new(disk.clone()), Epoch::random(&SystemRandom::new()));
    Store::open_on(disk, Path::new("/spool"), None, ROOMY, epoch, TimeSource::manual(UnixMs(1_000))).expect("opens")
}

#[test]
fn after_a_failed_fsync_the_record_is_written_elsewhere_and_accepted_once() {
    let disk = SimulatedDisk::new(1, Path::new("/spool"));
    let mut store = open_on(&disk);
    let first = store.push(fault(1, FaultChangeKind::Raised, None)).unwrap();
    disk.fail_syncs(1);
    let second = store.push(fault(2, FaultChangeKind::Raised, None)).unwrap();
    assert_eq!(disk.segments(Path::new("/spool")).len(), 2);
    disk.fail_syncs(9);
    assert!(matches!(store.push(fault(3, FaultChangeKind::Raised, None)), Err(SpoolError::Io { .. })));
    disk.fail_syncs(0);
    let third = store.push(fault(3, FaultChangeKind::Raised, None)).unwrap();
    assert_eq!(third.seq, 3, "a record that was not accepted takes no number");
    drop(store);
    assert_eq!(ids(&waiting(&mut open_on(&disk))), [first, second, third]);
}

#[test]
fn nonce_and_open_episodes_outlive_a_failed_fsync_while_nothing_waits() {
    let disk = SimulatedDisk::new(1, Path::new("/spool"));
    let mut store = open_on(&disk);
    let first = store.push(fault(1, FaultChangeKind::Raised, None)).unwrap();
    let nonce = Nonce::random(&SystemRandom::new());
    store.ack(vec![first.clone()], Some(nonce.clone()), None).unwrap();
    disk.fail_syncs(9);
    assert!(matches!(store.push(fault(2, FaultChangeKind::Raised, None)), Err(SpoolError::Io { .. })));
    store.delete_done();
    drop(store);
    disk.fail_syncs(0);
    let store = open_on(&disk);
    assert_eq!(store.state.nonce, Some(nonce));
    assert_eq!(store.state.open.iter().map(|open| &open.episode).collect::<Vec<_>>(), [&first]);
}

#[test]
fn a_segment_that_somebody_deleted_becomes_gaps_while_the_agent_runs_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Limits { max_bytes: 128 << 10 });
    let accepted: Vec<_> = (0..40).map(|n| store.push(fault(n % 3, FaultChangeKind::Raised, None)).unwrap()).collect();
    let files = segment_files(dir.path());
    assert!(files.len() > 2);
    std::fs::remove_file(&files[1]).unwrap();
    let sent = store.next_batch(500, 1 << 20).unwrap();
    assert_eq!(sent.first().map(|r| &r.id), accepted.first(), "the order is kept");
    drop(store);
    let found = waiting(&mut open(dir.path(), Limits { max_bytes: 128 << 10 }));
    assert!(accepted.iter().all(|id| covered(&found, id)));
    assert!(found.iter().any(|r| matches!(&r.payload, Payload::Gap(gap) if gap.why == "corrupt")));
}

#[test]
fn a_file_cut_at_any_byte_costs_only_what_lies_behind_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), ROOMY);
    let accepted: Vec<_> = (0..3).map(|n| store.push(fault(n, FaultChangeKind::Raised, None)).unwrap()).collect();
    let ends: Vec<u64> = store.state.fault.iter().map(|w| u64::from(w.place.offset + w.place.bytes)).collect();
    drop(store);
    let file = segment_files(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for cut in (0..=whole.len()).rev().step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(file.file_name().unwrap()), &whole[..cut]).unwrap();
        let found = ids(&waiting(&mut open(dir.path(), ROOMY)));
        let expected = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(found, accepted[..expected], "cut at {cut}");
    }
}

#[test]
fn a_second_agent_on_the_same_spool_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path(), ROOMY);
    let second = Store::open(dir.path(), ROOMY, &SystemRandom::new(), TimeSource::manual(UnixMs(0)));
    assert!(matches!(second, Err(SpoolError::InUse { .. })));
}

#[test]
fn a_poison_record_leaves_a_gap_in_its_place_and_a_copy_in_the_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), ROOMY);
    let accepted: Vec<_> = (0..3).map(|n| store.push(fault(n, FaultChangeKind::Raised, None)).unwrap()).collect();
    store.set_aside(accepted[1].clone(), "bad_message").unwrap();
    let found = waiting(&mut store);
    assert_eq!(ids(&found), accepted, "the numbering is unbroken");
    assert!(matches!(&found[1].payload, Payload::Gap(gap) if gap.why == "poison" && gap.count == 1));
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
    assert_eq!(store.stats().counters.poison, 1);
}

#[test]
fn on_a_disk_that_is_full_samples_give_way_to_faults_and_the_loss_is_counted() {
    let mount = tempfile::tempdir().unwrap();
    let run = |name: &str, args: &[&str]| std::process::Command::new(name).args(args).status().is_ok_and(|s| s.success());
    let path = mount.path().to_str().unwrap();
    assert!(run("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", path]), "this test needs root, to mount a small tmpfs");
    let outcome = std::panic::catch_unwind(|| {
        let (dir, limits) = (mount.path().join("spool"), Limits { max_bytes: 1 << 20 });
        let mut store = open(&dir, limits);
        let mut accepted = Vec::new();
        for n in 0..150 {
            accepted.extend(store.push(samples(n)));
        }
        // Somebody else fills the disk.
        drop(std::fs::write(mount.path().join("foreign"), vec![1; 256 << 10]));
        while let Ok(id) = store.push(samples(1)) {
            accepted.push(id);
        }
        let faults: Vec<_> =
            (0..120).map(|n| store.push(fault(n, FaultChangeKind::Raised, None)).expect("faults are accepted")).collect();
        drop(store);
        let mut store = open(&dir, limits);
        let found = waiting(&mut store);
        for id in accepted.iter().chain(&faults) {
            assert!(covered(&found, id), "{id} is not accounted for");
        }
        assert!(store.stats().counters.dropped > 0);
        let batch = store.next_batch(500, 1 << 20).unwrap();
        store.ack(acks_of(&batch), None, None).unwrap();
    });
    assert!(run("umount", &[path]));
    outcome.unwrap();
}

#[tokio::test]
async fn the_handle_tells_open_faults_at_once_and_keeps_the_order_of_sending() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, opened) = Spool::open(dir.path(), ROOMY, &SystemRandom::new(), TimeSource::manual(UnixMs(0))).expect("opens");
    assert!(opened.starts.is_empty());
    let sample = spool.push(samples(1)).await.unwrap();
    let episode = spool.push(fault(1, FaultChangeKind::Raised, None)).await.unwrap();
    assert_eq!(spool.open_episodes().len(), 1);
    let cleared = spool.push(fault(1, FaultChangeKind::Cleared, Some(episode.clone()))).await.unwrap();
    assert!(spool.open_episodes().is_empty());
    spool.pushed().await;
    assert_eq!(ids(&spool.next_batch(10, 10_000).await.unwrap()), [episode, cleared, sample]);
    assert_eq!(spool.stats().fault_records, 2);
}
