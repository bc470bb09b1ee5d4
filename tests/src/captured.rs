//! A collector in an enemy's hands: at its address, with its issuing CA and its online signing keys, saying to the appliances whatever it
//! is told to say. What it can't have is the vendor's offline keys.
//!
//! It takes every report, so that an appliance believes itself heard, and remembers what was said of signed files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mainstay_patchkit::authoring::{Envelope, Named, SigningKey, snapshot_text, timestamp_text};
use mainstay_patchkit::manifest::Manifest;
use mainstay_patchkit::sample::{DAY_MS, PRODUCT};
use mainstay_shared::api::{PATH_POLL, PATH_REPORTS, PATH_REPOSITORY};
use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::ids::{CollectorEpoch, Nonce, random_hex_128};
use mainstay_shared::patch::{Offer, PatchKind, PatchReport};
use mainstay_shared::record::Payload;
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use rcgen::{CertificateParams, Issuer, KeyPair};
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::browser::install_crypto;
use crate::collector::Collector;

/// How long it keeps a poll for which it has nothing.
const KEEPS: Duration = Duration::from_millis(500);

/// The enemy.
#[derive(Debug)]
pub struct Captured {
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    epoch: CollectorEpoch,
    says: Mutex<Says>,
    heard: Mutex<Heard>,
}

/// What it says.
#[derive(Debug, Default)]
struct Says {
    directives: Vec<Directive>,
    files: BTreeMap<String, Vec<u8>>,
    /// Signed files of which only so many bytes come before the line is cut.
    cut_after: Option<usize>,
}

/// What it was told and asked.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Polls.
    pub polls: u64,
    /// Directives that the appliance says to have acted on.
    pub done: BTreeSet<String>,
    /// What it says of signed files.
    pub patches: Vec<PatchReport>,
    /// Bytes of signed files that were sent to it.
    pub file_bytes: u64,
}

impl Captured {
    /// Takes the place of a collector that has been stopped, with what stands in its folder.
    ///
    /// # Errors
    /// When a key is missing, or the collector still serves.
    pub async fn take_over(collector: &Collector) -> Result<Self> {
        install_crypto();
        let acceptor = acceptor(&collector.path("data/keys"), &collector.agents_listen())?;
        let listener = TcpListener::bind(collector.agents_listen()).await.context("the captured collector's address")?;
        let epoch = CollectorEpoch::random(&SystemRandom::new());
        let shared = Arc::new(Shared { epoch, says: Mutex::default(), heard: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { shared, _serving: serving })
    }

    /// From now on it asks for this too, in every answer until the appliance says that it has acted.
    pub fn asks(&self, ask: Ask) -> String {
        let id = random_hex_128(&SystemRandom::new());
        let expires_at = TimeSource::system().now().plus_ms(DAY_MS);
        lock(&self.shared.says).directives.push(Directive { id: id.clone(), ask, expires_at });
        id
    }

    /// Offers a file under a new offer; the offer's id.
    pub fn offers(&self, kind: PatchKind, file: &str, bytes: &[u8]) -> String {
        let offer = offer_of(kind, file, bytes);
        let offer_id = offer.offer_id.clone();
        self.puts(&format!("files/{file}"), bytes.to_vec());
        self.asks(Ask::Offered(offer));
        offer_id
    }

    /// Puts a file into its repository: `metadata/NAME` or `files/NAME`.
    pub fn puts(&self, path: &str, bytes: Vec<u8>) {
        lock(&self.shared.says).files.insert(path.to_owned(), bytes);
    }

    /// Signed files break off after so many bytes; none: they come whole.
    pub fn cuts_files_after(&self, bytes: Option<usize>) {
        lock(&self.shared.says).cut_after = bytes;
    }

    /// What it heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.shared.heard).clone()
    }

    /// What the appliance said last of an offer, as `step/reason`.
    #[must_use]
    pub fn last_word(&self, offer_id: &str) -> Option<String> {
        let heard = self.heard();
        let last = heard.patches.iter().rev().find(|report| report.offer_id.as_deref() == Some(offer_id))?;
        let step = serde_json::to_value(last.step).ok()?;
        Some(format!("{}/{}", step.as_str()?, last.reason))
    }
}

/// An offer of a file under a new id.
#[must_use]
pub fn offer_of(kind: PatchKind, file: &str, bytes: &[u8]) -> Offer {
    Offer {
        offer_id: random_hex_128(&SystemRandom::new()),
        kind,
        file: file.to_owned(),
        sha256: hex::encode(mainstay_patchkit::crypto::sha256(bytes)),
        bytes: bytes.len() as u64,
        product: PRODUCT.to_owned(),
        version: "9.9.9".to_owned(),
    }
}

/// The two online keys.
#[derive(Debug)]
pub struct OnlineKeys {
    snapshot: [u8; 32],
    timestamp: [u8; 32],
}

impl OnlineKeys {
    /// As they stand in a collector's folder.
    ///
    /// # Errors
    /// When they don't.
    pub fn of(collector: &Collector) -> Result<Self> {
        let read = |name: &str| {
            let seed: Option<[u8; 32]> = std::fs::read(collector.path("data/keys").join(name))?.try_into().ok();
            seed.context("32 bytes")
        };
        Ok(Self { snapshot: read("tuf-snapshot.key")?, timestamp: read("tuf-timestamp.key")? })
    }

    /// Of these numbers of the sample vendor's.
    #[must_use]
    pub fn numbered(snapshot: u8, timestamp: u8) -> Self {
        Self { snapshot: [snapshot; 32], timestamp: [timestamp; 32] }
    }

    /// A text of any role, signed by both.
    ///
    /// # Errors
    /// When it can't be signed.
    pub fn forge(&self, text: Value) -> Result<Vec<u8>> {
        let mut envelope = Envelope::new(text);
        for seed in [&self.snapshot, &self.timestamp] {
            envelope.sign(&SigningKey::from_seed(seed)?)?;
        }
        Ok(envelope.to_bytes()?)
    }

    /// Snapshot and timestamp of this version over what stands in a vendor's `repository`, with every metadata file of it.
    ///
    /// # Errors
    /// When it can't be read or signed.
    pub fn sign(&self, repository: &Path, version: u64) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        let mut newest: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
        for found in std::fs::read_dir(repository.join("metadata"))? {
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            let bytes = std::fs::read(found.path())?;
            files.push((format!("metadata/{name}"), bytes.clone()));
            let Some((number, role)) = name.split_once('.') else { continue };
            let named = role == "targets.json" || role == format!("{}.json", Manifest::role_name(PRODUCT));
            let number: u64 = number.parse().unwrap_or_default();
            if named && newest.get(role).is_none_or(|(older, _)| *older < number) {
                newest.insert(role.to_owned(), (number, bytes));
            }
        }
        let expires_at = TimeSource::system().now().plus_ms(DAY_MS);
        let signed = |text, seed: &[u8; 32]| {
            let mut envelope = Envelope::new(text);
            envelope.sign(&SigningKey::from_seed(seed)?)?;
            envelope.to_bytes()
        };
        let names = newest.into_iter().map(|(role, (number, bytes))| (role, (number, Named::of(&bytes)))).collect();
        let snapshot = signed(snapshot_text(version, expires_at, &names), &self.snapshot)?;
        let timestamp = signed(timestamp_text(version, expires_at, (version, Named::of(&snapshot))), &self.timestamp)?;
        files.push((format!("metadata/{version}.snapshot.json"), snapshot));
        files.push(("metadata/timestamp.json".to_owned(), timestamp));
        Ok(files)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acceptor(keys: &Path, address: &SocketAddr) -> Result<TlsAcceptor> {
    let root = CertificateDer::from_pem_file(keys.join("root.pem")).ok().context("root.pem")?;
    let issuing = CertificateDer::from_pem_file(keys.join("issuing-ca.pem")).ok().context("issuing-ca.pem")?;
    let issuing_key = KeyPair::from_pem(&std::fs::read_to_string(keys.join("issuing-ca.key"))?)?;
    let issuer = Issuer::from_ca_cert_der(&issuing, issuing_key)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![address.ip().to_string()])?.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).ok().context("a key")?;
    let chain = vec![leaf.der().clone(), issuing, root];
    Ok(TlsAcceptor::from(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private)?)))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move { converse(acceptor, stream, &shared).await.unwrap_or_default() });
    }
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    loop {
        let mut first = String::new();
        let (mut length, mut from) = (0, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if let Some(value) = lower.strip_prefix("range: bytes=") {
                from = value.trim().trim_end_matches('-').parse()?;
            }
            if first.is_empty() {
                first = line;
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (head, content, cut) = shared.answer(&path, &body, from).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&content).await?;
        stream.flush().await?;
        if cut {
            return Ok(stream.shutdown().await?);
        }
    }
}

type Told = (String, Vec<u8>, bool);

impl Shared {
    async fn answer(&self, path: &str, body: &[u8], from: usize) -> Result<Told> {
        if path == PATH_POLL {
            return json(&self.poll(&read(body)?).await);
        }
        if path == PATH_REPORTS {
            return json(&self.report(read(body)?));
        }
        Ok(path.strip_prefix(PATH_REPOSITORY).map_or_else(not_found, |name| self.file(name, from)))
    }

    async fn poll(&self, request: &PollRequest) -> PollReply {
        {
            let mut heard = lock(&self.heard);
            heard.polls += 1;
            heard.done.extend(request.done.iter().cloned());
            lock(&self.says).directives.retain(|directive| !heard.done.contains(&directive.id));
        }
        if lock(&self.says).directives.is_empty() {
            tokio::time::sleep(KEEPS).await;
        }
        let directives = lock(&self.says).directives.clone();
        PollReply { directives, now: TimeSource::system().now(), collector_epoch: self.epoch.clone() }
    }

    fn report(&self, request: ReportRequest) -> ReportReply {
        let acks = request.records.iter().map(|record| record.id.clone()).collect();
        let patches = request.records.into_iter().filter_map(|record| match record.payload {
            Payload::Patch(report) => Some(report),
            _ => None,
        });
        lock(&self.heard).patches.extend(patches);
        ReportReply {
            acks,
            nonce: Nonce::random(&SystemRandom::new()),
            collector_epoch: self.epoch.clone(),
            received_at: TimeSource::system().now(),
            refused: Vec::new(),
            receipt: None,
            held: false,
        }
    }

    fn file(&self, name: &str, from: usize) -> Told {
        let says = lock(&self.says);
        let Some(bytes) = says.files.get(name) else { return not_found() };
        let (from, all) = (from.min(bytes.len()), bytes.len());
        let is_file = name.starts_with("files/");
        let upto = says.cut_after.filter(|_| is_file).map_or(all, |after| after.clamp(from, all));
        if is_file {
            lock(&self.heard).file_bytes += (upto - from) as u64;
        }
        let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
        let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all.saturating_sub(1));
        let head = format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\n{range}Content-Length: {}\r\n\r\n", all - from);
        (head, bytes[from..upto].to_vec(), upto < all)
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(&zstd::decode_all(body)?)?)
}

fn json(message: &impl Serialize) -> Result<Told> {
    let body = serde_json::to_vec(message)?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    Ok((head, body, false))
}

fn not_found() -> Told {
    ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), Vec::new(), false)
}
