//! A collector that only keeps a ledger: it enrols, takes records, acknowledges, and remembers every record word for word.
//! For proofs about the agent: it notices a record told under two ids, two records under one, and a nonce that comes too late.
//! It decides nothing that a collector decides; stories with tickets use the real one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mainstay_shared::api::{PATH_ENROL, PATH_POLL, PATH_REPORTS};
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest, JoinString};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::ids::{ApplianceId, CollectorEpoch, Lane, Nonce, RecordId};
use mainstay_shared::record::Record;
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use ring::digest;
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::browser::install_crypto;

const MAX_BODY_BYTES: usize = 8 << 20;

/// What was told so far.
#[derive(Debug, Default)]
struct Book {
    taken: BTreeMap<RecordId, Record>,
    wrong: Vec<String>,
    newest_nonce: Option<Nonce>,
    nonce_before: Option<Nonce>,
    newest_was_echoed: bool,
    enrolled_by: Option<String>,
}

#[derive(Debug)]
struct Desk {
    book: Mutex<Book>,
    away: AtomicBool,
    /// Every so many answers one is lost; 0: none.
    loses_every: AtomicU64,
    reports: AtomicU64,
    epoch: CollectorEpoch,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    time: TimeSource,
}

/// The running ledger; it ends when dropped.
#[derive(Debug)]
pub struct Ledger {
    desk: Arc<Desk>,
    join: JoinString,
    _tasks: JoinSet<()>,
}

impl Ledger {
    /// Starts one on a free port, with a CA of its own.
    ///
    /// # Errors
    /// When keys can't be made or no port bound.
    pub async fn start() -> Result<Self> {
        install_crypto();
        let key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = ca.self_signed(&key)?;
        let issuer = Issuer::new(ca, key);
        let leaf_key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".into()])?.signed_by(&leaf_key, &issuer)?;
        let server_key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let chain = vec![leaf.der().clone(), root.der().clone()];
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, server_key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let join = JoinString {
            addresses: vec![format!("https://{}", listener.local_addr()?)],
            ca_pin: hex::encode(digest::digest(&digest::SHA256, root.der())),
            token_id: "ledger".into(),
            secret: "once".into(),
        };
        let desk = Arc::new(Desk {
            book: Mutex::default(),
            away: AtomicBool::new(false),
            loses_every: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            epoch: CollectorEpoch::random(&SystemRandom::new()),
            issuer,
            root_pem: root.pem(),
            time: TimeSource::system(),
        });
        let (acceptor, serving) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&desk));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (acceptor, desk) = (acceptor.clone(), Arc::clone(&serving));
                connections.spawn(async move { serve(acceptor, stream, &desk).await.unwrap_or_default() });
            }
        });
        Ok(Self { desk, join, _tasks: tasks })
    }

    /// A join string for it, for one enrolment.
    #[must_use]
    pub fn join(&self) -> &JoinString {
        &self.join
    }

    /// While away it hangs up on every request, having taken nothing.
    pub fn be_away(&self, away: bool) {
        self.desk.away.store(away, Ordering::SeqCst);
    }

    /// From now on every `n`th answer to a report is lost after the records were taken; 0: none.
    pub fn lose_every(&self, n: u64) {
        self.desk.loses_every.store(n, Ordering::SeqCst);
    }

    /// Every record taken so far.
    #[must_use]
    pub fn taken(&self) -> BTreeMap<RecordId, Record> {
        self.desk.book().taken.clone()
    }

    /// What no agent may do and this one did, in words.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.desk.book().wrong.clone()
    }
}

impl Desk {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn certify(&self, request: &EnrolRequest) -> Result<EnrolReply> {
        // The same attempt repeated is the same enrolment; another one would find the secret used up.
        let mut book = self.book();
        let first = book.enrolled_by.get_or_insert_with(|| request.attempt_id.clone()).clone();
        if first != request.attempt_id {
            book.wrong.push(format!("the one-use secret was used by attempt {first}, then by {}", request.attempt_id));
        }
        drop(book);
        let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem)?;
        Ok(EnrolReply {
            appliance: ApplianceId::random(&SystemRandom::new()),
            chain_pem: csr.signed_by(&self.issuer)?.pem(),
            roots_pem: self.root_pem.clone(),
            receipt_key: "00".repeat(32),
        })
    }

    fn take(&self, request: ReportRequest) -> ReportReply {
        let mut book = self.book();
        book.check_nonce(request.nonce_echo.as_ref());
        let nonce = Nonce::random(&SystemRandom::new());
        book.nonce_before = request.nonce_echo;
        book.newest_nonce = Some(nonce.clone());
        book.newest_was_echoed = false;
        let mut highest: BTreeMap<(String, Lane), RecordId> = BTreeMap::new();
        for record in request.records {
            highest.insert((record.id.epoch.to_string(), record.id.lane), record.id.clone());
            match book.taken.get(&record.id) {
                Some(before) if before.hash() != record.hash() => {
                    let told = format!("{}: told as {:?}, then as {:?}", record.id, before.payload, record.payload);
                    book.wrong.push(told);
                }
                Some(_) => {}
                None => {
                    book.taken.insert(record.id.clone(), record);
                }
            }
        }
        ReportReply {
            acks: highest.into_values().collect(),
            nonce,
            collector_epoch: self.epoch.clone(),
            received_at: self.time.now(),
            refused: Vec::new(),
            receipt: None,
            held: false,
        }
    }

    async fn answer(&self, path: &str, json: &[u8]) -> Result<Option<String>> {
        if self.away.load(Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(match path {
            PATH_ENROL => Some(serde_json::to_string(&self.certify(&serde_json::from_slice(json)?)?)?),
            PATH_REPORTS => {
                let reply = serde_json::to_string(&self.take(serde_json::from_slice(json)?))?;
                let (count, every) = (self.reports.fetch_add(1, Ordering::SeqCst) + 1, self.loses_every.load(Ordering::SeqCst));
                (every == 0 || !count.is_multiple_of(every)).then_some(reply)
            }
            PATH_POLL => {
                let request: PollRequest = serde_json::from_slice(json)?;
                tokio::time::sleep(Duration::from_secs(u64::from(request.wait_s))).await;
                let (now, collector_epoch) = (self.time.now(), self.epoch.clone());
                Some(serde_json::to_string(&PollReply { directives: Vec::new(), now, collector_epoch })?)
            }
            _ => None,
        })
    }
}

impl Book {
    /// The newest nonce, or, while that one was not echoed, the one before: anything older would be taken for a clone.
    fn check_nonce(&mut self, echo: Option<&Nonce>) {
        if echo == self.newest_nonce.as_ref() {
            self.newest_was_echoed = true;
        } else if self.newest_was_echoed || echo != self.nonce_before.as_ref() {
            self.wrong.push(format!("nonce {echo:?} was echoed: the collector would hold this appliance as a clone"));
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, desk: &Desk) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    loop {
        let (mut path, mut length) = (String::new(), None);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length.context("a request with a length")?.min(MAX_BODY_BYTES)];
        stream.read_exact(&mut body).await?;
        let json = zstd::bulk::decompress(&body, MAX_BODY_BYTES)?;
        let Some(text) = desk.answer(&path, &json).await? else { return Ok(()) };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
    }
}
