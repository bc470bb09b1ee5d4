//! Three days without a collector, by a clock moved by hand: the watching story on a real spool, fed with readings and rounds.
//!
//! A round of readings every ten seconds, three services asked once a minute, one of them failing every ten minutes, a disk that
//! fills and is cleaned. Then the link is back: faults first, once, in order. `MAINSTAY_SOAK=1` runs 72 hours, otherwise six.

use mainstay_shared::check::CheckResult;
use mainstay_shared::ids::RecordId;
use mainstay_shared::time_source::UnixMs;

use super::*;

const ROUND: Duration = Duration::from_secs(10);
const SERVICES: [&str; 3] = ["web", "mail", "db"];

fn hours() -> u64 {
    if std::env::var("MAINSTAY_SOAK").is_ok_and(|value| value == "1") { 72 } else { 6 }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn readings(round: u64) -> Vec<Reading> {
    let wave = (round % 60) as f64;
    let full = if (round / 360) % 6 == 5 { 97.0 } else { 40.0 };
    let reading = |component: &str, metric, value| Reading { component: component.into(), metric, value };
    vec![
        reading("cpu", "busy_percent", wave),
        reading("memory", "used_percent", 30.0 + wave / 10.0),
        reading("load", "load_1", wave / 20.0),
        reading("disk:/", "used_percent", full),
        reading("disk:/var", "used_percent", 20.0 + wave / 3.0),
        reading("net:eth0", "received_bytes_per_s", wave * 1_000.0),
        reading("net:eth0", "sent_bytes_per_s", wave * 500.0),
    ]
}

fn round_of(service: &str, state: ServiceState, time: &TimeSource) -> ServiceRound {
    let tried = |attempt| CheckResult {
        check: "port".into(),
        kind: "tcp".into(),
        state,
        reason: if state == ServiceState::Up { "ok" } else { "refused" }.into(),
        text: format!("{service} on 127.0.0.1"),
        took_ms: 3,
        attempt,
        at: time.now(),
        perf_data: String::new(),
    };
    let tries = if state == ServiceState::Up { vec![tried(1)] } else { (1..=3).map(tried).collect() };
    ServiceRound { service: service.into(), state, tries, began_at: time.now(), began_mono: time.monotonic() }
}

#[tokio::test]
async fn three_days_without_a_collector_cost_no_memory_and_no_fault_and_end_in_order() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let time = TimeSource::manual(UnixMs(1_800_000_000_000));
    let limits = Limits { max_bytes: 16 << 20 };
    let (spool, _) = Spool::open(&dir.path().join("spool"), limits, &SystemRandom::new(), time.clone()).expect("opens");
    let (current, _seen) = tokio::sync::watch::channel(Current::default());
    let config = config(dir.path(), 9);
    let clock = ClockReference::default();
    let nudge = Arc::default();
    let mut story = Story::begin(Watch {
        config,
        spool: spool.clone(),
        time: time.clone(),
        current,
        nudge,
        clock,
        safe_mode: false,
        workers: Workers::default(),
    });

    let (mut after_an_hour_kib, mut most_bytes) = (0, 0);
    let rounds = hours() * 360;
    for round in 0..rounds {
        time.advance(ROUND);
        story.measured(readings(round)).await;
        if round % 6 == 0 {
            for service in SERVICES {
                let fails = service == "web" && (round / 60) % 2 == 1;
                let state = if fails { ServiceState::Down } else { ServiceState::Up };
                story.asked(round_of(service, state, &time)).await;
            }
        }
        story.catch_up().await;
        most_bytes = most_bytes.max(spool.stats().bytes);
        if round == 360 {
            after_an_hour_kib = resident_kib();
        }
    }
    let (grown_kib, stats) = (resident_kib().saturating_sub(after_an_hour_kib), spool.stats());
    assert!(most_bytes <= limits.max_bytes, "{most_bytes} bytes on disk");
    assert!(stats.fault_records >= hours() * 6 - 2, "{} fault records", stats.fault_records);
    assert_eq!(stats.counters.dropped, 0, "the default size holds so long");
    assert!(grown_kib < 4 << 10, "memory grew by {grown_kib} KiB in {} hours", hours());

    let mut came: Vec<RecordId> = Vec::new();
    loop {
        let batch = spool.next_batch(500, 1 << 20).await.expect("a batch");
        let Some(last) = batch.last() else { break };
        let acks = Lane::ALL.iter().filter_map(|lane| batch.iter().rev().find(|r| r.id.lane == *lane)).map(|r| r.id.clone());
        let (acks, ends_in) = (acks.collect(), last.id.lane);
        assert!(came.last().is_none_or(|id| id.lane <= ends_in), "faults first");
        came.extend(batch.into_iter().map(|record| record.id));
        spool.ack(acks, None, None).await.expect("acknowledged");
    }
    for lane in Lane::ALL {
        let seqs: Vec<u64> = came.iter().filter(|id| id.lane == lane).map(|id| id.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{lane:?}: once and in order");
    }
    assert_eq!(came.len() as u64, stats.fault_records + stats.sample_records);
    println!(
        "soak: part=spool-outage points={rounds} seeds=1 losses=0 ({} h; {} fault and {} sample records; at most {most_bytes} bytes on \
         disk; memory grew by {grown_kib} KiB after the first hour)",
        hours(),
        stats.fault_records,
        stats.sample_records,
    );
}
