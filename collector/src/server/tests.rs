//! Stories at the agents' door: the real listener, real TLS, real databases; the agent is a plain HTTPS client with a key.

use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::api::{ErrorBody, PATH_ENROL, PATH_POLL, PATH_RENEW, PATH_REPORTS};
use mainstay_shared::directive::Ask;
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest, Hardware, RenewRequest};
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::ids::{Epoch, Lane, Nonce, RecordId, random_hex_128};
use mainstay_shared::record::{Payload, Record, TestMessage};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use reqwest::StatusCode;
use ring::rand::SystemRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::appliances::authority::{self, Authority};
use crate::appliances::store::tests::seed;
use crate::audit;
use crate::config::{Config, ReleasesConfig, ReleasesFrom};
use crate::customers::Language;
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::db::{Turn, transact};
use crate::flow::appliance_acts::{Acted, ApplianceAct, act};
use crate::flow::{World, changes};
use crate::lifecycle::{Lifecycle, Waiting};
use crate::releases::place::Place;
use crate::server::{Serving, serve_agents};

mod enrolment;
mod refusals;
mod reports;
mod repository;

/// A serving collector.
pub(super) struct House {
    pub(super) world: World,
    serving: Serving,
    authority: Arc<Authority>,
    _lifecycle: (Lifecycle, Waiting),
    _keys: tempfile::TempDir,
}

/// A box: its key and, once enrolled, its identity and how it speaks.
pub(super) struct Box {
    key: rcgen::KeyPair,
    pub(super) reply: EnrolReply,
    pub(super) client: reqwest::Client,
    base: String,
    pub(super) epoch: Epoch,
    attempt: u64,
    pub(super) nonce: Option<Nonce>,
}

pub(super) fn config(keys: &std::path::Path) -> Config {
    Config {
        service_name: "Test".to_owned(),
        language: Language::En,
        data_dir: keys.to_owned(),
        database_url: String::new(),
        agents_listen: ([127, 0, 0, 1], 0).into(),
        agents_addresses: vec!["https://127.0.0.1:1".to_owned(), "https://localhost:1".to_owned()],
        web_listen: ([127, 0, 0, 1], 0).into(),
        web_public_url: "http://127.0.0.1:1".to_owned(),
        web_tls: None,
        mail: None,
        watch: None,
        releases: Some(ReleasesConfig { from: ReleasesFrom::Dir(keys.join("repository")), root: None }),
        silence_after: Duration::from_secs(300),
        flap_window: Duration::from_secs(900),
        close_recovered_after: Duration::from_secs(86_400),
        log_json: false,
    }
}

impl House {
    /// Opens the door over `db`, with one customer `t` whose token `token-t` has so many uses. Time moves by hand.
    pub(super) async fn open(db: Db, uses: i64) -> Self {
        let house = Self::over(db).await;
        seed(&house.world.db, "t", uses).await.expect("seeds");
        house
    }

    async fn over(db: Db) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let keys = tempfile::tempdir().expect("a folder");
        let time = TimeSource::manual(TimeSource::system().now());
        let rng = SystemRandom::new();
        authority::create(keys.path(), &rng, time.now()).expect("keys");
        let authority = Arc::new(Authority::load(keys.path()).expect("keys"));
        first_row(&db).await.expect("the collector's row");
        let (publish, changes) = watch::channel(0);
        let config = Arc::new(config(keys.path()));
        let repository = config.releases.as_ref().map(|it| Arc::new(Place::open(it, keys.path()).expect("opens")));
        let world = World { config, db, time, rng, changes, look_now: Arc::new(Notify::new()), repository };
        let lifecycle = Lifecycle::begin();
        lifecycle.0.spawn("changes", changes::run(world.clone(), publish, lifecycle.0.stop()));
        let serving = serve_agents(&world, Arc::clone(&authority), &lifecycle.0).await.expect("serves");
        Self { world, serving, authority, _lifecycle: lifecycle, _keys: keys }
    }

    pub(super) fn base(&self) -> String {
        format!("https://{}", self.serving.address)
    }

    /// A client that trusts only our root, showing `identity` (PEM of chain and key) if there is one.
    pub(super) fn client(&self, identity: Option<String>) -> reqwest::Client {
        let roots = reqwest::Certificate::from_pem_bundle(self.authority.roots_pem().as_bytes()).expect("roots");
        let builder = reqwest::Client::builder().tls_certs_only(roots).timeout(Duration::from_secs(90));
        let builder = match identity {
            Some(pem) => builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).expect("identity")),
            None => builder,
        };
        builder.build().expect("a client")
    }

    pub(super) async fn enrol(&self) -> Box {
        let key = rcgen::KeyPair::generate().expect("key");
        let (status, reply) =
            post::<EnrolReply>(&self.client(None), &self.base(), PATH_ENROL, &enrol_request(&key, "secret")).await;
        assert_eq!(status, StatusCode::OK, "{:?}", reply.err());
        let reply = reply.expect("a reply");
        let client = self.client(Some(format!("{}{}", reply.chain_pem, key.serialize_pem())));
        let epoch = Epoch::random(&self.world.rng);
        Box { key, reply, client, base: self.base(), epoch, attempt: 0, nonce: None }
    }

    pub(super) async fn act(&self, of: &Box, wish: ApplianceAct) -> Acted {
        act(&self.world, "staff:op", ("t", of.reply.appliance.as_str()), &wish).await.expect("acts")
    }

    /// How many events of that kind the tenant's chain holds; the chain must be whole.
    pub(super) async fn events(&self, kind: &str) -> i64 {
        assert!(matches!(audit::verify(&self.world.db, "t").await.expect("verifies"), audit::Verdict::Whole { .. }));
        self.count("SELECT COUNT(*) FROM events WHERE tenant_id = 't' AND kind = $1", kind).await
    }

    pub(super) async fn count(&self, sql: &'static str, bound: &str) -> i64 {
        let mut conn = self.world.db.read().await.expect("reads");
        sqlx::query_scalar(sql).bind(bound).fetch_one(&mut *conn).await.expect("counts")
    }
}

async fn first_row(db: &Db) -> anyhow::Result<()> {
    transact!(db, Turn::Console, |tx| {
        sqlx::query("INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, $1, 1, 1)")
            .bind(random_hex_128(&SystemRandom::new()))
            .execute(&mut *tx)
            .await?;
        Ok(())
    });
    Ok(())
}

pub(super) fn csr_of(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).expect("csr").pem().expect("pem")
}

pub(super) fn enrol_request(key: &rcgen::KeyPair, secret: &str) -> EnrolRequest {
    EnrolRequest {
        version: 1,
        token_id: "token-t".to_owned(),
        secret: secret.to_owned(),
        csr_pem: csr_of(key),
        hostname: "node-a\u{202E}".to_owned(),
        hardware: Hardware { vendor: "v".into(), model: "m".into(), serial: "Default string".into() },
        agent_version: "0.1.0".to_owned(),
        attempt_id: random_hex_128(&SystemRandom::new()),
    }
}

/// Posts a message; the reply, or the error body.
pub(super) async fn post<T: DeserializeOwned>(
    client: &reqwest::Client,
    base: &str,
    path: &str,
    message: &impl Serialize,
) -> (StatusCode, Result<T, ErrorBody>) {
    let body = zstd::encode_all(serde_json::to_vec(message).expect("json").as_slice(), 3).expect("packs");
    let request = client.post(format!("{base}{path}")).header("Content-Encoding", "zstd").body(body);
    read(request.send().await.expect("an answer")).await
}

pub(super) async fn read<T: DeserializeOwned>(response: reqwest::Response) -> (StatusCode, Result<T, ErrorBody>) {
    let status = response.status();
    let bytes = response.bytes().await.expect("a body");
    if status == StatusCode::OK {
        (status, Ok(serde_json::from_slice(&bytes).expect("a reply")))
    } else {
        (status, Err(serde_json::from_slice(&bytes).expect("an error body")))
    }
}

impl Box {
    /// The next report with these records, not yet sent.
    pub(super) fn report(&mut self, records: Vec<Record>) -> ReportRequest {
        self.attempt += 1;
        ReportRequest {
            version: 1,
            epoch: self.epoch.clone(),
            attempt: self.attempt,
            nonce_echo: self.nonce.clone(),
            sent_at: UnixMs(0),
            sent_mono_ms: 10_000,
            records,
        }
    }

    pub(super) async fn send(&self, report: &ReportRequest) -> (StatusCode, Result<ReportReply, ErrorBody>) {
        post(&self.client, &self.base, PATH_REPORTS, report).await
    }

    /// Sends the next report and keeps its nonce, as a healthy agent does.
    pub(super) async fn say(&mut self, records: Vec<Record>) -> ReportReply {
        let report = self.report(records);
        let (status, reply) = self.send(&report).await;
        let reply = reply.unwrap_or_else(|error| panic!("{status}: {error:?}"));
        self.nonce = Some(reply.nonce.clone());
        reply
    }

    pub(super) fn poll(&self, wait_s: u32) -> PollRequest {
        PollRequest {
            version: 1,
            epoch: self.epoch.clone(),
            sent_at: UnixMs(0),
            wait_s,
            values: [("cpu.busy_percent".to_owned(), 3.5)].into(),
            services: [("web".to_owned(), mainstay_shared::check::ServiceState::Up)].into(),
            backlog: 0,
            done: Vec::new(),
            patches: Vec::new(),
        }
    }

    pub(super) fn restart(&mut self) {
        self.epoch = Epoch::random(&SystemRandom::new());
        self.attempt = 0;
    }

    pub(super) fn record(&self, seq: u64, payload: Payload) -> Record {
        let id = RecordId { epoch: self.epoch.clone(), lane: Lane::Fault, seq };
        Record { id, at: UnixMs(5), mono_ms: 4_000, payload }
    }

    pub(super) fn test(&self, seq: u64) -> Record {
        self.record(seq, Payload::Test(TestMessage { mark: format!("mark {seq}"), note: "by hand".into() }))
    }

    pub(super) fn fault(&self, seq: u64, summary: &str) -> Record {
        let change = FaultChange {
            kind: FaultChangeKind::Raised,
            key: FaultKey::new("service:web", "service_down"),
            episode: None,
            level: Level::Serious,
            summary: summary.to_owned(),
            grounds: FaultGrounds::default(),
            at: UnixMs(5),
            present_at_start: false,
        };
        self.record(seq, Payload::Fault(change))
    }

    /// The same box a second time, as cloning its disk makes one.
    pub(super) fn copy(&self) -> Self {
        let key = rcgen::KeyPair::from_pem(&self.key.serialize_pem()).expect("key");
        let (epoch, nonce) = (self.epoch.clone(), self.nonce.clone());
        Self {
            key,
            reply: self.reply.clone(),
            client: self.client.clone(),
            base: self.base.clone(),
            epoch,
            attempt: self.attempt,
            nonce,
        }
    }

    pub(super) fn csr(&self) -> String {
        csr_of(&self.key)
    }
}
