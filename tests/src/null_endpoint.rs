//! An endpoint that answers every report with an empty acknowledgement and keeps nothing: what the load generator, TLS and the
//! machine allow at most. A benchmark's figure stands beside this one, from the same run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use mainstay_shared::ids::{CollectorEpoch, Nonce};
use mainstay_shared::report::ReportReply;
use mainstay_shared::time_source::UnixMs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::browser::install_crypto;
use crate::load::enrol::client_tls;
use crate::patience::{SOON, eventually};
use crate::postgres::free_port;
use crate::process::Daemon;

const ROOT: &str = "root.pem";
const LEAF: &str = "leaf.pem";
const KEY: &str = "key.pem";
const AT: &str = "address";

/// The endpoint with its own CA, a process of its own; it ends when dropped.
#[derive(Debug)]
pub struct NullEndpoint {
    address: SocketAddr,
    issuer: CertifiedIssuer<'static, KeyPair>,
    daemon: Daemon,
    _folder: TempDir,
}

impl NullEndpoint {
    /// Starts one, with mutual TLS as the collector has it: `command` must lead to [`serve`] with the folder as its argument.
    ///
    /// # Errors
    /// When keys can't be made or it does not start.
    pub async fn start(mut command: Command) -> Result<Self> {
        install_crypto();
        let folder = tempfile::Builder::new().prefix("mainstay-null-").tempdir()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".into()])?.signed_by(&key, &issuer)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        for (name, text) in [(ROOT, issuer.pem()), (LEAF, leaf.pem()), (KEY, key.serialize_pem()), (AT, address.to_string())] {
            std::fs::write(folder.path().join(name), text)?;
        }
        command.arg(folder.path());
        let mut daemon = Daemon::start("the null endpoint", command, &folder.path().join("log"))?;
        eventually("the null endpoint to listen", SOON, async || {
            daemon.must_run()?;
            Ok(TcpStream::connect(address).await.is_ok().then_some(()))
        })
        .await?;
        Ok(Self { address, issuer, daemon, _folder: folder })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The TLS of a peer that it believes.
    ///
    /// # Errors
    /// When a key can't be made.
    pub fn peer(&self) -> Result<ClientConfig> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(Vec::new())?.signed_by(&key, &self.issuer)?;
        client_tls(&leaf.pem(), &self.issuer.pem(), &key)
    }
}

/// The endpoint's process: serves what [`NullEndpoint::start`] put into `folder` until it is killed.
///
/// # Errors
/// When the folder is incomplete or the port taken.
pub async fn serve(folder: &Path) -> Result<()> {
    install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join(ROOT)).ok().context(ROOT)?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let leaf = CertificateDer::from_pem_file(folder.join(LEAF)).ok().context(LEAF)?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).ok().context(KEY)?;
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![leaf], key)?;
    let listener = TcpListener::bind(std::fs::read_to_string(folder.join(AT))?).await?;
    let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(http_answer()?));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        connections.spawn(async move { converse(acceptor, stream, &answer).await.unwrap_or_default() });
    }
}

fn http_answer() -> Result<Vec<u8>> {
    let rng = SystemRandom::new();
    let body = serde_json::to_string(&ReportReply {
        acks: Vec::new(),
        nonce: Nonce::random(&rng),
        collector_epoch: CollectorEpoch::random(&rng),
        received_at: UnixMs(0),
        refused: Vec::new(),
        receipt: None,
        held: false,
    })?;
    let length = body.len();
    Ok(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream, answer: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let mut body = Vec::new();
    loop {
        let mut length = None;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length.context("a request with a length")?, 0);
        stream.read_exact(&mut body).await?;
        stream.write_all(answer).await?;
        stream.flush().await?;
    }
}
