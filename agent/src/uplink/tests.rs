//! The way out against a stand-in with real TLS: enrolment, wrong clocks, foreign CAs, renewal, proxies, odd answers.
//!
//! Wall time is moved by hand; certificates carry the years that each test needs. Nothing here waits for a clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_shared::enrolment::Hardware;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::stand_in::{Answer, Asked, Authority};
use super::*;

/// 2026-11-22.
const NOW: UnixMs = UnixMs(1_795_305_600_000);
const YEAR_MS: i64 = 31_557_600_000;

fn certifying(asked: &Asked, authority: &Authority) -> Answer {
    match asked.body["csr_pem"].as_str() {
        Some(csr) => Answer::json(&authority.certify(csr)),
        None => Answer::json(&serde_json::json!({ "taken": true })),
    }
}

async fn enrol_at(stand_in: &StandIn, dir: &Path, time: &TimeSource) -> Result<Identity, EnrolFailed> {
    let join = stand_in.join();
    let attempt = Attempt::resume_or_begin(dir, &join.token_id, &SystemRandom::new())?;
    let clock = TrustedClock::new(time.clone(), dir);
    enrol(&join, &attempt, "box".into(), Hardware::default(), &Settings::default(), &clock).await
}

async fn enrolled(stand_in: &StandIn, dir: &Path, time: &TimeSource, settings: Settings) -> Uplink {
    let identity = enrol_at(stand_in, dir, time).await.expect("enrols");
    Uplink::new(identity, settings, TrustedClock::new(time.clone(), dir)).expect("an uplink")
}

async fn post(uplink: &Uplink) -> Outcome<serde_json::Value> {
    uplink.post("/x", &serde_json::json!({ "n": 1 }), Duration::from_secs(20)).await
}

#[tokio::test]
async fn an_enrolment_gives_an_identity_that_reads_back_and_is_shown_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let time = TimeSource::manual(NOW);
    let identity = enrol_at(&stand_in, dir.path(), &time).await.unwrap();
    identity.save(dir.path()).unwrap();
    let read = Identity::load(dir.path()).unwrap();
    assert_eq!((&read, &read.appliance), (&identity, &stand_in.authority.appliance));
    let uplink = Uplink::new(read, Settings::default(), TrustedClock::new(time, dir.path())).unwrap();
    assert!(matches!(post(&uplink).await, Outcome::Sent(_)));
    let asked = stand_in.asked();
    assert_eq!(asked.iter().map(|a| a.showed_certificate).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_server_without_the_pinned_ca_never_sees_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let impostor = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let vendor = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let join = mainstay_shared::enrolment::JoinString { ca_pin: vendor.join().ca_pin, ..impostor.join() };
    let attempt = Attempt::resume_or_begin(dir.path(), "t1", &SystemRandom::new()).unwrap();
    let clock = TrustedClock::new(TimeSource::manual(NOW), dir.path());
    let error = enrol(&join, &attempt, "box".into(), Hardware::default(), &Settings::default(), &clock).await.unwrap_err();
    assert!(error.to_string().contains("the CA that the join string names"), "{error}");
    assert!(impostor.asked().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_attempt_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let times = AtomicUsize::new(0);
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), move |asked, authority| {
        if times.fetch_add(1, Ordering::Relaxed) == 0 { Answer::hang_up() } else { certifying(asked, authority) }
    })
    .await;
    let time = TimeSource::manual(NOW);
    assert!(matches!(enrol_at(&stand_in, dir.path(), &time).await, Err(EnrolFailed::Unavailable { .. })));
    enrol_at(&stand_in, dir.path(), &time).await.unwrap();
    let asked = stand_in.asked();
    assert_eq!(asked[0].body["attempt_id"], asked[1].body["attempt_id"]);
}

#[tokio::test]
async fn a_used_join_string_is_refused_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), |_, _| Answer::error(403, "bad_join_secret")).await;
    let error = enrol_at(&stand_in, dir.path(), &TimeSource::manual(NOW)).await.unwrap_err();
    assert!(error.to_string().contains("ask for a new one"), "{error}");
}

#[tokio::test]
async fn a_box_at_1970_enrols_and_reports_and_learns_the_time_from_certificates() {
    let dir = tempfile::tempdir().unwrap();
    // Certificates that begin after this program was built, so that the build time alone does not help.
    let stand_in = StandIn::start(Arc::new(Authority::new((2090, 2095))), certifying).await;
    let time = TimeSource::manual(UnixMs(0));
    enrol_at(&stand_in, dir.path(), &time).await.unwrap();
    assert!(time.now() > NOW.plus_ms(60 * YEAR_MS), "{}", time.now());
}

#[tokio::test]
async fn a_clock_that_runs_far_ahead_is_met_with_the_last_signed_time() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2096))), certifying).await;
    let identity = enrol_at(&stand_in, dir.path(), &TimeSource::manual(NOW)).await.unwrap();
    let time = TimeSource::manual(NOW.plus_ms(100 * YEAR_MS));
    let clock = TrustedClock::new(time.clone(), dir.path());
    let uplink = Uplink::new(identity.clone(), Settings::default(), clock.clone()).unwrap();
    assert!(matches!(post(&uplink).await, Outcome::RetryAfter { why, .. } if why.contains("xpired")));
    clock.verified_by_receipt(NOW);
    assert!(matches!(post(&uplink).await, Outcome::Sent(_)));
    assert!(clock.now() < NOW.plus_ms(YEAR_MS), "certificates are judged by the signed time from now on");
    clock.machine_is_right();
    assert!(clock.now() > NOW.plus_ms(99 * YEAR_MS));
    let after_restart = Uplink::new(identity, Settings::default(), TrustedClock::new(time, dir.path())).unwrap();
    assert!(matches!(post(&after_restart).await, Outcome::Sent(_)), "the signed time is remembered");
}

#[tokio::test]
async fn a_server_of_another_ca_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let impostor = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let settings = Settings { addresses: vec![impostor.address["https://".len()..].into()], proxy: None };
    let uplink = enrolled(&vendor, dir.path(), &TimeSource::manual(NOW), settings).await;
    assert!(matches!(post(&uplink).await, Outcome::RetryAfter { .. }));
    assert!(impostor.asked().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_without_showing_it_and_waits_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let times = AtomicUsize::new(0);
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2096))), move |asked, authority| {
        match (asked.path.ends_with("renew"), times.fetch_add(1, Ordering::Relaxed)) {
            (true, 1) => Answer::error(202, "waits_for_operator"),
            _ => certifying(asked, authority),
        }
    })
    .await;
    let uplink = enrolled(&stand_in, dir.path(), &TimeSource::manual(NOW), Settings::default()).await;
    let after = uplink.identity().validity().not_after.plus_ms(1000);
    assert!(matches!(renew(&uplink, true, after).await, Ok(Renewal::WaitsForOperator)));
    let Ok(Renewal::Renewed(renewed)) = renew(&uplink, true, after).await else { panic!("renewed") };
    assert_eq!(renewed.key_pem, uplink.identity().key_pem);
    let Ok(Renewal::Renewed(_)) = renew(&uplink, false, NOW).await else { panic!("renewed over mTLS") };
    let asked = stand_in.asked();
    let shown: Vec<_> = asked.iter().map(|a| (a.showed_certificate, a.body["expired_pem"].is_string())).collect();
    assert_eq!(shown, [(false, false), (false, true), (false, true), (true, false)]);
}

#[tokio::test]
async fn patience_is_asked_for_by_retry_after_and_an_endless_answer_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), |asked, authority| match asked.body["n"].as_u64() {
        Some(1) => Answer { headers: "retry-after: 7\r\n".into(), ..Answer::error(429, "slow_down") },
        Some(_) => Answer { body: "x".repeat(2 << 20), ..Answer::error(200, "") },
        None => certifying(asked, authority),
    })
    .await;
    let uplink = enrolled(&stand_in, dir.path(), &TimeSource::manual(NOW), Settings::default()).await;
    assert!(matches!(post(&uplink).await, Outcome::RetryAfter { after: Some(wait), .. } if wait == Duration::from_secs(7)));
    let endless: Outcome<serde_json::Value> = uplink.post("/x", &serde_json::json!({ "n": 2 }), Duration::from_secs(20)).await;
    assert!(matches!(endless, Outcome::RetryAfter { why, .. } if why.contains("longer")));
}

#[tokio::test]
async fn a_dead_address_is_passed_over_and_the_living_one_is_tried_first_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let alive = stand_in.address["https://".len()..].to_owned();
    let settings = Settings { addresses: vec!["127.0.0.1:1".into(), alive], proxy: None };
    let uplink = enrolled(&stand_in, dir.path(), &TimeSource::manual(NOW), settings).await;
    for _ in 0..2 {
        assert!(matches!(post(&uplink).await, Outcome::Sent(_)));
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_shown_to_the_next_address_under_the_same_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::new((2020, 2030)));
    let losing = |asked: &Asked, by: &Authority| {
        if asked.body["csr_pem"].is_string() { certifying(asked, by) } else { Answer::hang_up() }
    };
    let first = StandIn::start(Arc::clone(&authority), losing).await;
    let second = StandIn::start(authority, certifying).await;
    let addresses = [&first, &second].map(|stand_in| stand_in.address["https://".len()..].to_owned()).into();
    let uplink = enrolled(&first, dir.path(), &TimeSource::manual(NOW), Settings { addresses, proxy: None }).await;
    assert!(matches!(post(&uplink).await, Outcome::RetryAfter { .. }));
    assert!(second.asked().is_empty(), "its answer was lost, not the message");
    assert!(matches!(post(&uplink).await, Outcome::Sent(_)), "the next try goes to the next address");
}

#[tokio::test]
async fn a_proxy_gets_the_name_and_password_and_carries_the_tunnel() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(Arc::new(Authority::new((2020, 2030))), certifying).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy {
        url: format!("http://{}", listener.local_addr().unwrap()),
        username: Some("box".into()),
        password: "geheim".into(),
    };
    let target = stand_in.address["https://".len()..].to_owned();
    let mut tunnel = tokio::task::JoinSet::new();
    tunnel.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).await.unwrap();
        }
        stream.get_mut().write_all(b"HTTP/1.1 200 ok\r\n\r\n").await.unwrap();
        let mut out = tokio::net::TcpStream::connect(&target).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut stream, &mut out).await);
        head
    });
    let uplink =
        enrolled(&stand_in, dir.path(), &TimeSource::manual(NOW), Settings { addresses: Vec::new(), proxy: Some(proxy) }).await;
    assert!(matches!(post(&uplink).await, Outcome::Sent(_)));
    drop(uplink);
    let head = tunnel.join_next().await.unwrap().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("connect 127.0.0.1:") && head.contains("proxy-authorization: basic ym94omdlagvpbq=="), "{head}");
}
