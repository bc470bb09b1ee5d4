//! What the door refuses: strangers, odd spellings, other CAs, bombs, depth, size, slowness, another's name. Others are unharmed.

use std::io::Read as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

both_databases!(
    every_route_is_closed_to_strangers_and_to_odd_spellings,
    a_certificate_of_another_authority_does_not_get_through_the_handshake,
    what_is_too_large_too_deep_or_no_message_is_refused_and_others_are_unharmed,
    a_refusal_is_heard_whatever_is_still_on_its_way,
    another_appliances_name_in_a_body_is_refused_and_recorded,
    health_is_open_and_figures_are_for_this_machine_only,
    too_many_requests_are_told_to_wait_and_faults_last
);

async fn every_route_is_closed_to_strangers_and_to_odd_spellings(db: Db) {
    let house = House::open(db, 1).await;
    let mine = house.enrol().await;
    let stranger = house.client(None);
    for path in [PATH_REPORTS, PATH_POLL] {
        let (status, refused) =
            read::<()>(stranger.post(format!("{}{path}", house.base())).body("{}").send().await.expect("answers")).await;
        assert_eq!((status, refused.expect_err("refused").error.as_str()), (StatusCode::UNAUTHORIZED, "not_enrolled"), "{path}");
    }
    for path in [PATH_ENROL, PATH_RENEW, PATH_REPORTS, PATH_POLL] {
        let got = mine.client.get(format!("{}{path}", house.base())).send().await.expect("answers");
        assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for path in [
        "/",
        "//agent/v1/reports",
        "/agent/v1/reports/",
        "/agent//v1/reports",
        "/agent/v1/Reports",
        "/agent/v1/%72eports",
        "/agent/v1/reports;x=1",
        "/agent/v1/./reports",
        "/agent/v1/x/../reports",
        "/agent/v1/reports?x=1",
        "/agent/v1/reports%2f",
        "/agent/v2/reports",
        "/metrics",
        "/api/v1/tickets",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        let answer = raw(&house, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

/// What the listener answers to bytes sent by hand.
async fn raw(house: &House, bytes: &[u8]) -> String {
    let mut stream = raw_connection(house).await;
    stream.write_all(bytes).await.expect("writes");
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer).await);
    answer
}

async fn raw_connection(house: &House) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls_pki_types::CertificateDer::from_pem_slice(house.authority.roots_pem().as_bytes()).expect("pem");
    roots.add(root).expect("a root");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(house.serving.address).await.expect("connects");
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake")
}

async fn a_certificate_of_another_authority_does_not_get_through_the_handshake(db: Db) {
    let house = House::open(db, 1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let rng = SystemRandom::new();
    authority::create(folder.path(), &rng, house.world.time.now()).expect("keys");
    let other = Authority::load(folder.path()).expect("keys");
    let mine = house.enrol().await;
    let key = rcgen::KeyPair::generate().expect("key");
    let csr = authority::GoodRequest::read(&csr_of(&key)).expect("good");
    let forged = other.sign_appliance(&csr, &mine.reply.appliance, &rng, house.world.time.now()).expect("signs");
    let client = house.client(Some(format!("{}{}", forged.chain_pem, key.serialize_pem())));
    let refused = client.post(format!("{}{PATH_REPORTS}", house.base())).body("{}").send().await;
    assert!(refused.is_err());
}

async fn what_is_too_large_too_deep_or_no_message_is_refused_and_others_are_unharmed(db: Db) {
    let house = House::open(db, 2).await;
    let (hostile, mut other) = (house.enrol().await, house.enrol().await);
    let send = |body: Vec<u8>, encoding: &'static str| {
        let request =
            hostile.client.post(format!("{}{PATH_REPORTS}", house.base())).header("Content-Encoding", encoding).body(body);
        async move { read::<()>(request.send().await.expect("answers")).await }
    };
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(1 << 28), 1).expect("packs");
    let deep = format!("{{\"version\":1,\"records\":{}", "[".repeat(200_000)).into_bytes();
    let rows = [
        ("a bomb", send(bomb, "zstd").await, StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        ("2 MiB", send(vec![b' '; 2 << 20], "identity").await, StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        ("12 MiB", send(vec![b' '; 12 << 20], "identity").await, StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        ("depth", send(deep, "identity").await, StatusCode::BAD_REQUEST, "bad_message"),
        ("no JSON", send(b"\0\xff".to_vec(), "identity").await, StatusCode::BAD_REQUEST, "bad_message"),
        ("no zstd", send(b"hello".to_vec(), "zstd").await, StatusCode::BAD_REQUEST, "bad_message"),
        ("gzip", send(b"hello".to_vec(), "gzip").await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"),
    ];
    for (sentence, (status, refused), expected, word) in rows {
        assert_eq!((status, refused.expect_err("refused").error.as_str()), (expected, word), "{sentence}");
    }
    let slow = {
        let mut stream = raw_connection(&house).await;
        stream.write_all(b"POST /agent/v1/enroll HTTP/1.1\r\nHost: localhost\r\nContent-").await.expect("writes");
        stream
    };
    other.say(vec![other.test(1)]).await;
    drop(slow);
    let mut newer = other.report(vec![]);
    newer.version = 99;
    assert_eq!(other.send(&newer).await.0, StatusCode::BAD_REQUEST);
    let many = (1..=501).map(|seq| other.test(seq)).collect();
    let many = other.report(many);
    assert_eq!(other.send(&many).await.0, StatusCode::BAD_REQUEST);
}

async fn a_refusal_is_heard_whatever_is_still_on_its_way(db: Db) {
    let house = House::open(db, 1).await;
    let mine = house.enrol().await;
    let stranger = house.client(None);
    let body = vec![b' '; 6 << 20];
    for (client, path, encoding, expected) in [
        (&mine.client, "/agent/v1/nothing", "identity", StatusCode::NOT_FOUND),
        (&mine.client, PATH_REPORTS, "gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (&stranger, PATH_REPORTS, "identity", StatusCode::UNAUTHORIZED),
        (&stranger, PATH_ENROL, "identity", StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = client.post(format!("{}{path}", house.base())).header("Content-Encoding", encoding).body(body.clone());
        assert_eq!(request.send().await.expect("an answer").status(), expected, "{path}");
    }
}

async fn another_appliances_name_in_a_body_is_refused_and_recorded(db: Db) {
    let house = House::open(db, 2).await;
    let (mut mine, other) = (house.enrol().await, house.enrol().await);
    let mut claim = serde_json::to_value(mine.report(vec![mine.test(1)])).expect("json");
    claim["appliance"] = serde_json::json!(other.reply.appliance);
    let (status, refused) = post::<()>(&mine.client, &house.base(), PATH_REPORTS, &claim).await;
    assert_eq!((status, refused.expect_err("refused").error.as_str()), (StatusCode::FORBIDDEN, "identity_disagrees"));
    assert_eq!(house.events("identity_disagreed").await, 1);
    assert_eq!(house.events("test_received").await, 0);
    claim["appliance"] = serde_json::json!(mine.reply.appliance);
    assert_eq!(post::<serde_json::Value>(&mine.client, &house.base(), PATH_REPORTS, &claim).await.0, StatusCode::OK);
}

async fn too_many_requests_are_told_to_wait_and_faults_last(db: Db) {
    let house = House::open(db, 2).await;
    let (mut mine, mut other) = (house.enrol().await, house.enrol().await);
    let sample = |mine: &Box, seq| {
        let samples = mainstay_shared::record::Samples { from: UnixMs(0), to: UnixMs(300_000), metrics: Default::default() };
        let mut record = mine.record(seq, Payload::Samples(samples));
        record.id.lane = Lane::Sample;
        record
    };
    let mut samples_refused_at = None;
    for seq in 1..150 {
        let report = mine.report(vec![sample(&mine, seq)]);
        let (status, reply) = mine.send(&report).await;
        match reply {
            Ok(reply) => mine.nonce = Some(reply.nonce),
            Err(error) => {
                assert_eq!((status, error.error.as_str()), (StatusCode::TOO_MANY_REQUESTS, "slow_down"));
                samples_refused_at = Some(seq);
                break;
            }
        }
    }
    assert!(samples_refused_at.is_some(), "samples wait while half of the allowance is left");
    mine.say(vec![mine.test(1)]).await;
    other.say(vec![other.test(1)]).await;
}

async fn health_is_open_and_figures_are_for_this_machine_only(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    mine.say(vec![mine.fault(1, "down")]).await;
    let router = crate::metrics::watched(house.serving.counts.clone()).with_state(house.world.clone());
    let address = crate::server::serve_web(&house.world, router, &house._lifecycle.0).await.expect("serves");
    let get = |path: &str, header: &'static str| {
        let request = reqwest::Client::new().get(format!("http://{address}{path}")).header(header, "10.0.0.1");
        async move { request.send().await.expect("answers") }
    };
    let health = get("/healthz", "x-nothing").await;
    assert_eq!((health.status(), health.text().await.expect("text").contains("\"ok\"")), (StatusCode::OK, true));
    let figures = get("/metrics", "x-nothing").await.text().await.expect("text");
    for line in
        ["mainstay_intake_records_total{lane=\"fault\"} 1", "mainstay_tickets_open{severity=", "mainstay_database{engine="]
    {
        assert!(figures.contains(line), "{line} is missing in {figures}");
    }
    assert!(!figures.contains(mine.reply.appliance.as_str()));
    for relayed in ["x-forwarded-for", "forwarded"] {
        assert_eq!(get("/metrics", relayed).await.status(), StatusCode::NOT_FOUND, "{relayed}");
    }
}
