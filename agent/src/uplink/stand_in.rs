//! A stand-in for the collector's listener, for tests only: its own CA, real TLS, HTTP/1.1 by hand, answers from a closure.
//!
//! The stories against the real collector live in the `tests` crate; this one says what a collector would never say.

use std::sync::{Arc, Mutex};

use mainstay_shared::enrolment::{EnrolReply, JoinString};
use mainstay_shared::ids::ApplianceId;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) body: serde_json::Value,
    pub(crate) showed_certificate: bool,
}

/// An answer to give.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
    /// Close the connection without a word.
    pub(crate) hang_up: bool,
}

impl Answer {
    pub(crate) fn json(body: &impl serde::Serialize) -> Self {
        Self { status: 200, headers: String::new(), body: serde_json::to_string(body).unwrap(), hang_up: false }
    }

    pub(crate) fn error(status: u16, word: &str) -> Self {
        Self { status, headers: String::new(), body: format!(r#"{{"error":"{word}","message":"because"}}"#), hang_up: false }
    }

    pub(crate) fn hang_up() -> Self {
        Self { status: 0, headers: String::new(), body: String::new(), hang_up: true }
    }
}

/// The vendor's CA and receipt key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
    pub(crate) receipt_key: Ed25519KeyPair,
    pub(crate) appliance: ApplianceId,
    /// Validity of the certificates it issues, as (begin year, end year).
    pub(crate) years: (i32, i32),
}

impl Authority {
    pub(crate) fn new(years: (i32, i32)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1 + 10, 1, 1);
        let root = params.self_signed(&key).unwrap();
        let rng = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        let receipt_key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Self { issuer: Issuer::new(params, key), root, receipt_key, appliance: ApplianceId::random(&rng), years }
    }

    fn leaf(&self, mut params: CertificateParams) -> CertificateParams {
        params.not_before = rcgen::date_time_ymd(self.years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.years.1, 1, 1);
        params
    }

    /// The answer to an enrolment or renewal with that request.
    pub(crate) fn certify(&self, csr_pem: &str) -> EnrolReply {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = self.leaf(request.params);
        EnrolReply {
            appliance: self.appliance.clone(),
            chain_pem: request.signed_by(&self.issuer).unwrap().pem(),
            roots_pem: self.root.pem(),
            receipt_key: hex::encode(self.receipt_key.public_key()),
        }
    }
}

/// The running stand-in; it ends when dropped.
pub(crate) struct StandIn {
    pub(crate) address: String,
    pub(crate) authority: Arc<Authority>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _accepting: tokio::task::JoinSet<()>,
}

type Answering = dyn Fn(&Asked, &Authority) -> Answer + Send + Sync;

impl StandIn {
    /// Starts one under `authority` that answers by `answer`.
    pub(crate) async fn start(
        authority: Arc<Authority>,
        answer: impl Fn(&Asked, &Authority) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let acceptor = acceptor(&authority);
        let (answer, log, by) = (Arc::new(answer) as Arc<Answering>, Arc::clone(&asked), Arc::clone(&authority));
        let mut accepting = tokio::task::JoinSet::new();
        accepting.spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, log, by) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log), Arc::clone(&by));
                serving.spawn(async move { drop(serve(stream, acceptor, &*answer, &log, &by).await) });
            }
        });
        Self { address, authority, asked, _accepting: accepting }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A join string for it.
    pub(crate) fn join(&self) -> JoinString {
        let pin = ring::digest::digest(&ring::digest::SHA256, self.authority.root.der());
        JoinString {
            addresses: vec![self.address.clone()],
            ca_pin: hex::encode(pin),
            token_id: "t1".into(),
            secret: "once".into(),
        }
    }
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = authority.leaf(CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap());
    let leaf = params.signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            chain(leaf.der(), authority.root.der()),
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn chain(leaf: &CertificateDer<'static>, root: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
    vec![leaf.clone(), root.clone()]
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    answer: &Answering,
    log: &Mutex<Vec<Asked>>,
    authority: &Authority,
) -> std::io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let showed_certificate = stream.get_ref().1.peer_certificates().is_some();
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
        let length =
            head.iter().find_map(|h| h.to_ascii_lowercase().strip_prefix("content-length:").map(|l| l.trim().parse().unwrap()));
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let json = zstd::bulk::decompress(&body, 8 << 20)?;
        let asked = Asked { path, body: serde_json::from_slice(&json)?, showed_certificate };
        log.lock().unwrap().push(asked.clone());
        let said = answer(&asked, authority);
        if said.hang_up {
            return Ok(());
        }
        let text =
            format!("HTTP/1.1 {} X\r\n{}content-length: {}\r\n\r\n{}", said.status, said.headers, said.body.len(), said.body);
        stream.get_mut().write_all(text.as_bytes()).await?;
        stream.get_mut().flush().await?;
    }
}
