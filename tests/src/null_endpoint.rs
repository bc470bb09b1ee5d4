//! An endpoint that answers every report with an empty acknowledgement and keeps nothing: what the load generator, TLS and the
//! machine allow at most. A benchmark's figure stands beside this one, from the same run.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use mainstay_shared::enrolment::EnrolReply;
use mainstay_shared::ids::{ApplianceId, CollectorEpoch, Nonce};
use mainstay_shared::report::ReportReply;
use mainstay_shared::time_source::UnixMs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::browser::install_crypto;
use crate::wire::WireAgent;

/// The endpoint with its own CA; it ends when dropped.
#[derive(Debug)]
pub struct NullEndpoint {
    base: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    _tasks: JoinSet<()>,
}

impl NullEndpoint {
    /// Starts one, with mutual TLS as the collector has it.
    ///
    /// # Errors
    /// When keys can't be made or no port bound.
    pub async fn start() -> Result<Self> {
        install_crypto();
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".into()])?.signed_by(&key, &issuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(issuer.der().to_vec()))?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![leaf.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("https://{}", listener.local_addr()?);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let answer = Arc::new(http_answer()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                connections.spawn(async move { serve(acceptor, stream, &answer).await.unwrap_or_default() });
            }
        });
        Ok(Self { base, issuer, _tasks: tasks })
    }

    /// A peer that it believes.
    ///
    /// # Errors
    /// When a key can't be made.
    pub fn peer(&self) -> Result<WireAgent> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(Vec::new())?.signed_by(&key, &self.issuer)?;
        let enrolment = EnrolReply {
            appliance: ApplianceId::random(&SystemRandom::new()),
            chain_pem: leaf.pem(),
            roots_pem: self.issuer.pem(),
            receipt_key: String::new(),
        };
        WireAgent::with_identity(&self.base, enrolment, &key)
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

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, answer: &[u8]) -> Result<()> {
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
