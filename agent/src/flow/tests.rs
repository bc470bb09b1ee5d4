//! The stories of reporting and polling, with a real spool on disk and a stand-in collector behind real TLS.
//!
//! The stand-in remembers what it took, as a collector would, and can be told to lose an answer, to refuse a record or to come
//! back from a restore.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_shared::api::{PATH_POLL, PATH_REPORTS};
use mainstay_shared::enrolment::Hardware;
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::heartbeat::PollReply;
use mainstay_shared::ids::{CollectorEpoch, Nonce, RecordId};
use mainstay_shared::patch::{PatchKind, PatchReport, PatchStep};
use mainstay_shared::record::{Folded, Payload, Record, Samples, TestMessage};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::watch as cell;

use super::contact::Contact;
use super::patch::spool_report;
use super::poll::{self, Polling};
use super::report::{self, Reporting, StaleEpoch};
use super::watch::Current;
use crate::lifecycle::{Lifecycle, StopSignal};
use crate::probes::ClockReference;
use crate::spool::{Limits, Spool};
use crate::uplink::{Answer, Asked, Attempt, Authority, Settings, StandIn, TrustedClock, Uplink, enrol};

const DEADLINE: Duration = Duration::from_secs(30);

/// What the stand-in remembers, as a collector would.
struct Memory {
    epoch: CollectorEpoch,
    taken: Vec<Record>,
    nonces: Vec<Nonce>,
    echoes: Vec<Option<Nonce>>,
    /// A record with this text in it makes the whole report unreadable.
    poison: &'static str,
    answer_next: Vec<Answer>,
}

impl Memory {
    fn take(&mut self, asked: &Asked) -> Answer {
        if let Some(answer) = self.answer_next.pop() {
            return answer;
        }
        let request: ReportRequest = serde_json::from_value(asked.body.clone()).unwrap();
        if !self.poison.is_empty() && asked.body.to_string().contains(self.poison) {
            return Answer::error(400, "bad_message");
        }
        self.echoes.push(request.nonce_echo.clone());
        let nonce = Nonce::random(&SystemRandom::new());
        self.nonces.push(nonce.clone());
        let mut acks: Vec<RecordId> = Vec::new();
        for record in request.records {
            acks.retain(|a| a.epoch != record.id.epoch || a.lane != record.id.lane);
            acks.push(record.id.clone());
            self.taken.push(record);
        }
        let reply = ReportReply {
            acks,
            nonce,
            collector_epoch: self.epoch.clone(),
            received_at: UnixMs(1),
            refused: Vec::new(),
            receipt: None,
            held: false,
        };
        Answer::json(&reply)
    }
}

struct Bench {
    stand_in: StandIn,
    memory: Arc<Mutex<Memory>>,
    spool: Spool,
    uplink: Arc<Uplink>,
    contact: Contact,
    time: TimeSource,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let epoch = CollectorEpoch::random(&SystemRandom::new());
        let memory =
            Memory { epoch, taken: Vec::new(), nonces: Vec::new(), echoes: Vec::new(), poison: "", answer_next: Vec::new() };
        let memory = Arc::new(Mutex::new(memory));
        let seen = Arc::clone(&memory);
        let stand_in =
            StandIn::start(Arc::new(Authority::new((2020, 2090))), move |asked, authority| match asked.path.as_str() {
                PATH_REPORTS => seen.lock().unwrap().take(asked),
                PATH_POLL => {
                    let collector_epoch = seen.lock().unwrap().epoch.clone();
                    Answer::json(&PollReply { directives: Vec::new(), now: UnixMs(1), collector_epoch })
                }
                _ => Answer::json(&authority.certify(asked.body["csr_pem"].as_str().unwrap())),
            })
            .await;
        let time = TimeSource::system();
        let uplink = Arc::new(enrolled(&stand_in, dir.path(), &time).await);
        let limits = Limits { max_bytes: 4 << 20 };
        let (spool, _) = Spool::open(&dir.path().join("spool"), limits, &SystemRandom::new(), time.clone()).unwrap();
        Self { stand_in, memory, spool, uplink, contact: Contact::default(), time, _dir: dir }
    }

    fn reporting(&self) -> Reporting {
        Reporting {
            spool: self.spool.clone(),
            uplink: Arc::clone(&self.uplink),
            time: self.time.clone(),
            contact: self.contact.clone(),
            clock: ClockReference::default(),
        }
    }

    fn polling(&self) -> Polling {
        Polling {
            spool: self.spool.clone(),
            uplink: Arc::clone(&self.uplink),
            time: self.time.clone(),
            contact: self.contact.clone(),
            clock: ClockReference::default(),
            current: cell::channel(Current::default()).1,
            nudge: Arc::default(),
            patches: None,
            wait: Duration::from_secs(55),
        }
    }

    /// Reports until everything that waits is taken, then returns what the stand-in has.
    async fn deliver(&self) -> Vec<Record> {
        let (_life, stop) = unstopped();
        let delivered = async {
            while self.spool.stats().fault_records + self.spool.stats().sample_records > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = report::run(self.reporting(), stop) => panic!("{ended:?}"),
            () = delivered => {}
            () = tokio::time::sleep(DEADLINE) => panic!("not delivered in time"),
        }
        self.memory.lock().unwrap().taken.clone()
    }
}

async fn enrolled(stand_in: &StandIn, dir: &Path, time: &TimeSource) -> Uplink {
    let clock = TrustedClock::new(time.clone(), dir);
    let attempt = Attempt::resume_or_begin(dir, "t1", &SystemRandom::new()).unwrap();
    let identity =
        enrol(&stand_in.join(), &attempt, "box".into(), Hardware::default(), &Settings::default(), &clock).await.unwrap();
    Uplink::new(identity, Settings::default(), clock).unwrap()
}

fn unstopped() -> (Lifecycle, StopSignal) {
    let life = Lifecycle::begin().unwrap();
    let stop = life.stop_signal();
    (life, stop)
}

fn message(note: &str) -> Payload {
    Payload::Test(TestMessage { mark: "m".into(), note: note.into() })
}

fn raised(component: &str) -> Payload {
    Payload::Fault(FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new(component, "service_down"),
        episode: None,
        level: Level::Serious,
        summary: "down".into(),
        grounds: FaultGrounds::default(),
        at: UnixMs(1),
        present_at_start: false,
    })
}

#[tokio::test]
async fn what_was_accepted_is_taken_once_in_order_and_the_nonce_is_echoed() {
    let bench = Bench::new().await;
    let mut accepted = Vec::new();
    for n in 0..3 {
        accepted.push(bench.spool.push(message(&n.to_string())).await.unwrap());
        bench.deliver().await;
    }
    let taken: Vec<_> = bench.deliver().await.into_iter().map(|r| r.id).collect();
    assert_eq!(taken, accepted);
    let memory = bench.memory.lock().unwrap();
    assert_eq!(memory.echoes[0], None);
    assert_eq!(memory.echoes[1..], memory.nonces[..2].iter().cloned().map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_poison_record_is_set_aside_and_every_other_one_is_taken() {
    let bench = Bench::new().await;
    bench.memory.lock().unwrap().poison = "poison-pill";
    for n in 0..40 {
        bench.spool.push(message(if n == 23 { "poison-pill" } else { "good" })).await.unwrap();
    }
    let taken = bench.deliver().await;
    let gaps = taken.iter().filter(|r| matches!(&r.payload, Payload::Gap(gap) if gap.why == "poison")).count();
    let ids: BTreeSet<_> = taken.iter().map(|r| r.id.clone()).collect();
    assert_eq!((gaps, ids.len(), bench.spool.stats().counters.poison), (1, 40, 1));
}

#[tokio::test]
async fn an_answer_that_is_lost_leads_to_the_same_records_again() {
    let bench = Bench::new().await;
    bench.memory.lock().unwrap().answer_next = vec![Answer::hang_up(), Answer::error(503, "")];
    let id = bench.spool.push(message("once")).await.unwrap();
    let taken = bench.deliver().await;
    assert_eq!(taken.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), [id]);
    let attempts: Vec<_> = bench.stand_in.asked().iter().filter_map(|a| a.body["attempt"].as_u64()).collect();
    assert_eq!(attempts, [1, 2, 3]);
}

#[tokio::test]
async fn after_a_restore_of_the_collector_the_open_faults_are_told_again_and_only_those() {
    let bench = Bench::new().await;
    let open = bench.spool.push(raised("service:a")).await.unwrap();
    bench.spool.push(message("done with")).await.unwrap();
    bench.deliver().await;
    bench.memory.lock().unwrap().epoch = CollectorEpoch::random(&SystemRandom::new());
    bench.spool.push(message("after the restore")).await.unwrap();
    let taken = bench.deliver().await;
    let restated: Vec<_> = taken
        .iter()
        .filter_map(|r| match &r.payload {
            Payload::Fault(change) if change.kind == FaultChangeKind::Restated => change.episode.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(restated, [open]);
    assert_eq!(bench.spool.collector_epoch(), Some(bench.memory.lock().unwrap().epoch.clone()));
}

#[tokio::test]
async fn the_poll_learns_of_a_restore_too() {
    let bench = Bench::new().await;
    bench.spool.push(raised("service:a")).await.unwrap();
    bench.deliver().await;
    bench.memory.lock().unwrap().epoch = CollectorEpoch::random(&SystemRandom::new());
    let (_life, stop) = unstopped();
    let restated = async {
        while bench.spool.stats().fault_records == 0 {
            bench.spool.pushed().await;
        }
    };
    tokio::select! {
        ended = poll::run(bench.polling(), stop) => panic!("{ended:?}"),
        () = restated => {}
        () = tokio::time::sleep(DEADLINE) => panic!("nothing was restated"),
    }
    assert_eq!(bench.spool.stats().fault_records, 1);
}

#[tokio::test]
async fn a_stale_epoch_ends_the_run_with_a_goodbye_that_announces_the_return() {
    let bench = Bench::new().await;
    bench.memory.lock().unwrap().answer_next = vec![Answer::error(409, "stale_request")];
    bench.spool.push(message("x")).await.unwrap();
    let (_life, stop) = unstopped();
    let ended = tokio::time::timeout(DEADLINE, report::run(bench.reporting(), stop)).await.unwrap();
    assert!(ended.unwrap_err().is::<StaleEpoch>());
    let waiting = bench.spool.next_batch(10, 100_000).await.unwrap();
    assert!(matches!(&waiting[1].payload, Payload::Goodbye(bye) if bye.expected_return_at.is_some()));
}

#[tokio::test]
async fn a_stop_delivers_the_goodbye_and_an_idle_agent_sends_no_report_before() {
    let bench = Bench::new().await;
    let life = Lifecycle::begin().unwrap();
    let stop = life.stop_signal();
    let reporting = bench.reporting();
    let run = report::run(reporting, stop);
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    assert!(bench.stand_in.asked().iter().all(|a| a.path != PATH_REPORTS));
    drop(life);
    tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap();
    let memory = bench.memory.lock().unwrap();
    assert!(matches!(memory.taken.as_slice(), [Record { payload: Payload::Goodbye(bye), .. }] if bye.reason == "stop"));
}

#[tokio::test]
async fn a_collector_that_answers_polls_at_once_is_not_hammered() {
    let bench = Bench::new().await;
    let (_life, stop) = unstopped();
    tokio::select! {
        ended = poll::run(bench.polling(), stop) => panic!("{ended:?}"),
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    assert_eq!(bench.stand_in.asked().iter().filter(|a| a.path == PATH_POLL).count(), 1);
}

#[tokio::test]
async fn samples_wait_for_the_poll_under_way_and_use_its_connection() {
    let bench = Bench::new().await;
    let (_life, stop) = unstopped();
    let told = async {
        let metrics = [("cpu.busy_percent".to_owned(), Folded { min: 1.0, avg: 1.0, max: 1.0, last: 1.0 })].into();
        bench.spool.push(Payload::Samples(Samples { from: UnixMs(0), to: UnixMs(1), metrics })).await.unwrap();
        poll::run(bench.polling(), stop.clone()).await
    };
    let delivered = async {
        while bench.memory.lock().unwrap().taken.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        ended = report::run(bench.reporting(), stop.clone()) => panic!("{ended:?}"),
        ended = told => panic!("{ended:?}"),
        () = delivered => {}
        () = tokio::time::sleep(DEADLINE) => panic!("not delivered in time"),
    }
    let asked: Vec<String> = bench.stand_in.asked().into_iter().map(|asked| asked.path).collect();
    let ours = asked.iter().position(|path| path == PATH_POLL).map(|first| &asked[first..]);
    assert_eq!(ours.unwrap(), [PATH_POLL, PATH_REPORTS], "the poll was answered first");
}

#[tokio::test]
async fn a_report_of_the_helper_that_is_too_large_for_a_record_goes_as_what_it_is_about_and_those_behind_it_go_too() {
    let bench = Bench::new().await;
    let plain = PatchReport {
        number: 1,
        offer_id: Some("a".repeat(32)),
        sha256: "b".repeat(64),
        kind: PatchKind::Patch,
        product: "acme".into(),
        from_version: None,
        to_version: "2.1.0".into(),
        step: PatchStep::Refused,
        reason: "bad_content".into(),
        detail: String::new(),
        output: String::new(),
    };
    let long = "x".repeat(100 << 10);
    let sent = [
        PatchReport { output: long.clone(), ..plain.clone() },
        PatchReport { number: 2, to_version: long.clone(), output: long.clone(), ..plain.clone() },
        PatchReport { number: 3, product: long.clone(), detail: long, ..plain.clone() },
        PatchReport { number: 4, ..plain },
    ];
    for report in sent {
        spool_report(&bench.spool, report).await.unwrap();
    }
    let told: Vec<_> = bench.deliver().await.into_iter().map(|record| record.payload).collect();
    let told = told.iter().map(|payload| match payload {
        Payload::Patch(report) => (report.number, report.step, report.reason.as_str(), report.output.len()),
        other => panic!("{other:?}"),
    });
    let refused = |number, output| (number, PatchStep::Refused, "bad_content", output);
    assert_eq!(told.collect::<Vec<_>>(), [refused(1, 4000), refused(2, 0), refused(3, 0), refused(4, 0)]);
}
