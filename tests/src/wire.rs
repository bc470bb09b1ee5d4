//! An agent made of nothing but the wire: its own key, its own certificate, any bytes it likes. For what the real agent never
//! sends (hostile peers, repeated and forged records) and for load.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use mainstay_shared::api::{ErrorBody, PATH_ENROL, PATH_POLL, PATH_REPORTS, WIRE_VERSION};
use mainstay_shared::check::ServiceState;
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest, Hardware, JoinString};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::ids::{Epoch, Lane, Nonce, RecordId, random_hex_128};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Identity, StatusCode};
use ring::rand::SystemRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::browser::install_crypto;

/// What the collector answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// `Retry-After` in seconds, if it was given.
    pub retry_after_s: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as a message, if the request was taken.
    ///
    /// # Errors
    /// Otherwise names the status and the body.
    pub fn good<T: DeserializeOwned>(&self) -> Result<T> {
        if self.status != StatusCode::OK {
            bail!("{}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        serde_json::from_slice(&self.body).context("the collector's answer")
    }

    /// The stable word of a refusal.
    ///
    /// # Errors
    /// When the body is no [`ErrorBody`].
    pub fn refusal(&self) -> Result<String> {
        let shown = || format!("{}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(serde_json::from_slice::<ErrorBody>(&self.body).with_context(shown)?.error)
    }
}

/// An enrolled peer under the test's control.
#[derive(Debug, Clone)]
pub struct WireAgent {
    client: Client,
    base: String,
    /// What the collector said at enrolment.
    pub enrolment: EnrolReply,
    /// Its present epoch; a test may take another.
    pub epoch: Epoch,
    /// The newest nonce it holds; a rewound peer puts back an older one.
    pub nonce: Option<Nonce>,
    /// Counts its reports.
    pub attempt: u64,
    next_seq: [u64; 2],
    time: TimeSource,
}

/// A request to enrol with `join`, and the key that belongs to it.
///
/// # Errors
/// When a key can't be made.
pub fn enrol_request(join: &JoinString, hostname: &str, serial: &str) -> Result<(EnrolRequest, KeyPair)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::new(Vec::new())?.serialize_request(&key)?;
    let request = EnrolRequest {
        version: WIRE_VERSION,
        token_id: join.token_id.clone(),
        secret: join.secret.clone(),
        csr_pem: csr.pem()?,
        hostname: hostname.to_owned(),
        hardware: Hardware { vendor: "Test".into(), model: "T-1000".into(), serial: serial.to_owned() },
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        attempt_id: random_hex_128(&SystemRandom::new()),
    };
    Ok((request, key))
}

/// A client without a certificate that believes whatever it connects to: for refusals only.
///
/// # Errors
/// When the TLS library refuses.
pub fn stranger() -> Result<Client> {
    install_crypto();
    Ok(Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?)
}

impl WireAgent {
    /// Enrols at `base` (`https://127.0.0.1:PORT`) with `join`.
    ///
    /// # Errors
    /// When the collector refuses.
    pub async fn enrol(base: &str, join: &JoinString, hostname: &str) -> Result<Self> {
        let serial = random_hex_128(&SystemRandom::new());
        let (request, key) = enrol_request(join, hostname, &serial)?;
        let answer = send(&stranger()?, &format!("{base}{PATH_ENROL}"), serde_json::to_vec(&request)?, None).await?;
        Self::with_identity(base, answer.good()?, &key)
    }

    /// A peer that holds a certificate already.
    ///
    /// # Errors
    /// When certificate and key don't fit.
    pub fn with_identity(base: &str, enrolment: EnrolReply, key: &KeyPair) -> Result<Self> {
        install_crypto();
        let identity = Identity::from_pem(format!("{}\n{}", enrolment.chain_pem, key.serialize_pem()).as_bytes())?;
        let roots = Certificate::from_pem_bundle(enrolment.roots_pem.as_bytes())?;
        let client = Client::builder().tls_certs_only(roots).identity(identity).no_proxy().build()?;
        Ok(Self {
            client,
            base: base.to_owned(),
            enrolment,
            epoch: Epoch::random(&SystemRandom::new()),
            nonce: None,
            attempt: 0,
            next_seq: [1, 1],
            time: TimeSource::system(),
        })
    }

    /// The same peer, speaking to another node of the service.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// A new run of the agent: another epoch, counting from 1.
    pub fn restart(&mut self) {
        self.epoch = Epoch::random(&SystemRandom::new());
        self.attempt = 0;
        self.next_seq = [1, 1];
    }

    /// The next record of `lane`.
    pub fn record(&mut self, lane: Lane, payload: Payload) -> Record {
        let next = &mut self.next_seq[usize::from(lane == Lane::Sample)];
        let id = RecordId { epoch: self.epoch.clone(), lane, seq: *next };
        *next += 1;
        let mono_ms = u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX);
        Record { id, at: self.time.now(), mono_ms, payload }
    }

    /// A report with these records, counted, echoing the nonce it holds.
    pub fn report_of(&mut self, records: Vec<Record>) -> ReportRequest {
        self.attempt += 1;
        ReportRequest {
            version: WIRE_VERSION,
            epoch: self.epoch.clone(),
            attempt: self.attempt,
            nonce_echo: self.nonce.clone(),
            sent_at: self.time.now(),
            sent_mono_ms: u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX),
            records,
        }
    }

    /// Sends these records and keeps the acknowledgement, as a good agent does.
    ///
    /// # Errors
    /// When the report is refused.
    pub async fn report(&mut self, records: Vec<Record>) -> Result<ReportReply> {
        let request = self.report_of(records);
        let reply: ReportReply = self.send(PATH_REPORTS, &request).await?.good()?;
        self.nonce = Some(reply.nonce.clone());
        Ok(reply)
    }

    /// One heartbeat that waits for nothing and tells nothing.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn beat(&self) -> Result<PollReply> {
        self.beat_telling(BTreeMap::new()).await
    }

    /// One heartbeat that tells these services' states.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn beat_telling(&self, services: BTreeMap<String, ServiceState>) -> Result<PollReply> {
        let request = PollRequest {
            version: WIRE_VERSION,
            epoch: self.epoch.clone(),
            sent_at: self.time.now(),
            wait_s: 0,
            values: BTreeMap::new(),
            services,
            backlog: 0,
            done: Vec::new(),
            patches: Vec::new(),
        };
        self.send(PATH_POLL, &request).await?.good()
    }

    /// Sends a message as JSON compressed with zstd.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, path: &str, message: &impl Serialize) -> Result<Answer> {
        self.send_bytes(path, zstd::encode_all(serde_json::to_vec(message)?.as_slice(), 3)?, Some("zstd")).await
    }

    /// Sends any bytes under any encoding.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_bytes(&self, path: &str, body: Vec<u8>, encoding: Option<&str>) -> Result<Answer> {
        send(&self.client, &format!("{}{path}", self.base), body, encoding).await
    }
}

/// Posts bytes as `application/json`.
///
/// # Errors
/// When there is no answer.
pub async fn send(client: &Client, url: &str, body: Vec<u8>, encoding: Option<&str>) -> Result<Answer> {
    let mut request = client.post(url).header("Content-Type", "application/json").body(body);
    if let Some(encoding) = encoding {
        request = request.header("Content-Encoding", encoding);
    }
    let response = request.send().await.with_context(|| format!("asking {url}"))?;
    let retry_after_s = response.headers().get("Retry-After").and_then(|v| v.to_str().ok()?.parse().ok());
    Ok(Answer { status: response.status(), retry_after_s, body: response.bytes().await?.to_vec() })
}
