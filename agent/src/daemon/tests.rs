//! The whole agent in one process against a stand-in collector: enrol, run, status, test with a receipt, SIGTERM with a goodbye.
//!
//! The stories against the real collector, with real processes and kills, live in the `tests` crate.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_shared::api::{PATH_POLL, PATH_REPORTS};
use mainstay_shared::heartbeat::PollReply;
use mainstay_shared::ids::{CollectorEpoch, Nonce, RecordId};
use mainstay_shared::receipt::{Receipt, ReceiptBody};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::UnixMs;

use super::*;
use crate::local::{Exit, Lang, Output, enroll, status, test};
use crate::uplink::{Answer, Asked, Authority, StandIn};

const OUTPUT: Output = Output { json: true, lang: Lang::En };

fn take(asked: &Asked, authority: &Authority, epoch: &CollectorEpoch, taken: &Mutex<Vec<Record>>) -> Answer {
    let rng = SystemRandom::new();
    match asked.path.as_str() {
        PATH_REPORTS => {
            let request: ReportRequest = serde_json::from_value(asked.body.clone()).unwrap();
            let mut acks: Vec<RecordId> = Vec::new();
            for record in &request.records {
                acks.retain(|a| a.epoch != record.id.epoch || a.lane != record.id.lane);
                acks.push(record.id.clone());
            }
            let body = ReceiptBody {
                appliance: authority.appliance.clone(),
                records: request.records.iter().map(|r| (r.id.clone(), r.hash())).collect(),
                received_at: UnixMs(1_800_000_000_000),
                collector_epoch: epoch.clone(),
                audit_head: (1, "00".into()),
            };
            taken.lock().unwrap().extend(request.records);
            Answer::json(&ReportReply {
                acks,
                nonce: Nonce::random(&rng),
                collector_epoch: epoch.clone(),
                received_at: body.received_at,
                refused: Vec::new(),
                receipt: Some(Receipt::sign(&body, &authority.receipt_key).unwrap()),
                held: false,
            })
        }
        PATH_POLL => {
            Answer::json(&PollReply { directives: Vec::new(), now: UnixMs(1_800_000_000_000), collector_epoch: epoch.clone() })
        }
        _ => Answer::json(&authority.certify(asked.body["csr_pem"].as_str().unwrap())),
    }
}

fn configured(dir: &Path) -> Config {
    let path = dir.join("agent.toml");
    std::fs::write(&path, format!("[agent]\nstate_dir = \"{}\"\n", dir.join("state").display())).unwrap();
    Config::load(&path).unwrap()
}

fn terminate_self() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
}

/// Asks until the agent is up and has reached the collector.
async fn until_status_is_good(config: &Config, time: &TimeSource) {
    while status(config, time, Output { json: false, lang: Lang::Zh }).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_agent_enrols_runs_answers_on_its_socket_and_says_goodbye_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let (epoch, taken) = (CollectorEpoch::random(&SystemRandom::new()), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&taken);
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2090))), move |asked, by| take(asked, by, &epoch, &seen)).await;
    let (config, time) = (configured(dir.path()), TimeSource::system());
    let join = dir.path().join("join");
    std::fs::write(&join, stand_in.join().to_secret_text()).unwrap();
    let enrolled = enroll(&config.state_dir, &Settings::default(), Some(join.clone()), false, &time, OUTPUT).await;
    assert!(enrolled.is_ok(), "{enrolled:?}");
    let twice = enroll(&config.state_dir, &Settings::default(), Some(join), false, &time, OUTPUT).await;
    assert_eq!(twice.unwrap_err().exit, Exit::Usage, "a second enrolment needs --again");
    assert_eq!(status(&config, &time, OUTPUT).await.unwrap_err().exit, Exit::Unavailable, "it does not run yet");

    let asking = async {
        until_status_is_good(&config, &time).await;
        let sent = test(&config.state_dir, "hello".into(), false, OUTPUT).await;
        assert!(sent.is_ok(), "{sent:?}");
        terminate_self();
        std::future::pending::<()>().await;
    };
    let running = tokio::task::LocalSet::new();
    let ended = running.run_until(async {
        tokio::select! {
            ended = run(config.clone(), time.clone()) => ended,
            () = asking => unreachable!(),
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it did not stop"),
        }
    });
    ended.await.unwrap();
    let taken = taken.lock().unwrap();
    assert!(matches!(taken.first().map(|r| &r.payload), Some(Payload::Started(started)) if !started.safe_mode));
    assert!(taken.iter().any(|r| matches!(&r.payload, Payload::Test(message) if message.note == "hello")));
    assert!(matches!(
        taken.iter().rev().find(|r| !matches!(r.payload, Payload::Samples(_))).map(|r| &r.payload),
        Some(Payload::Goodbye(_))
    ));
    assert!(!config.state_dir.join("agent.sock").exists());
    assert!(config.state_dir.join("time.json").exists(), "the signed time is remembered");
}

#[tokio::test]
async fn a_spool_that_is_full_of_faults_is_delivered_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (epoch, taken) = (CollectorEpoch::random(&SystemRandom::new()), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&taken);
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2090))), move |asked, by| take(asked, by, &epoch, &seen)).await;
    let (mut config, time) = (configured(dir.path()), TimeSource::system());
    config.spool_max_bytes = 128 << 10;
    let join = dir.path().join("join");
    std::fs::write(&join, stand_in.join().to_secret_text()).unwrap();
    enroll(&config.state_dir, &Settings::default(), Some(join), false, &time, OUTPUT).await.unwrap();
    let limits = Limits { max_bytes: config.spool_max_bytes };
    let (spool, _) = Spool::open(&config.state_dir.join("spool"), limits, &SystemRandom::new(), time.clone()).unwrap();
    let mut accepted = Vec::new();
    while let Ok(id) = spool.push(raised(accepted.len())).await {
        accepted.push(id);
    }
    drop(spool);
    let delivered = async {
        while !accepted.iter().all(|id| taken.lock().unwrap().iter().any(|record| record.id == *id)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let running = tokio::task::LocalSet::new();
    let ended = running.run_until(async {
        tokio::select! {
            ended = run(config.clone(), time.clone()) => panic!("{ended:?}"),
            () = delivered => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("not delivered"),
        }
    });
    ended.await;
    let taken = taken.lock().unwrap();
    assert!(!taken.iter().any(|r| matches!(r.payload, Payload::Started(_))), "the lane was full at the start");
}

fn raised(n: usize) -> Payload {
    use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
    Payload::Fault(FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new(format!("service:{n}"), "service_down"),
        episode: None,
        level: Level::Serious,
        summary: "x".repeat(400),
        grounds: FaultGrounds::default(),
        at: UnixMs(1),
        present_at_start: false,
    })
}

#[tokio::test]
async fn without_an_enrolment_it_does_not_start_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let failure = run(configured(dir.path()), TimeSource::system()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::NotAllowed);
    assert!(failure.error.to_string().contains("mainstay-agent enroll"));
}
