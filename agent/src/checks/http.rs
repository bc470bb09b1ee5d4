//! A web request: status, body, time, and the days that the certificate has left.
//!
//! Each try is a connection of its own, without proxy, redirects, or resumed sessions, so that it meets what a customer would
//! meet. Certificates are judged by the collector's time where it is known, not the bare clock: a box at 1970, or far ahead, must
//! not call a service down for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mainstay_shared::check::ServiceState;
use mainstay_shared::time_source::TimeSource;
use reqwest::tls::TlsInfo;
use reqwest::{Client, Method, Response};
use rustls::client::Resumption;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::resolve::{AsideResolver, Unresolved};
use super::tcp::unconnected;
use super::{Checker, Found};
use crate::config::HttpCheck;
use crate::probes::ClockReference;

/// What is expected must come within so much of the body.
const MAX_BODY_BYTES: usize = 256 << 10;
/// Where systems keep the certificates that they trust.
const SYSTEM_BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// TLS configurations by the file of trusted certificates, read again when the file changed.
type Configs = BTreeMap<PathBuf, (Changed, Arc<ClientConfig>)>;
/// When the file was last written, where the system can say.
type Changed = Option<SystemTime>;
/// Clients by their check's object, with the configuration that each was made of; none without TLS.
type Clients = BTreeMap<String, (Option<Arc<ClientConfig>>, Client)>;

/// What is kept between two tries: whom to trust, and each check's client.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    configs: Mutex<Configs>,
    clients: Mutex<Clients>,
}

pub(super) async fn ask(checker: &Checker, check: &HttpCheck, object: &str, limit: Duration) -> Found {
    let began = checker.time.monotonic();
    tokio::time::timeout(limit, converse(checker, check, object, began)).await.unwrap_or_else(|_| Found::timeout(limit))
}

async fn converse(checker: &Checker, check: &HttpCheck, object: &str, began: Duration) -> Found {
    let client = match checker.trust.client(check, checker, object).await {
        Ok(client) => client,
        Err(problem) => return Found::cannot_run(problem),
    };
    let method = if check.head { Method::HEAD } else { Method::GET };
    match client.request(method, &check.url).send().await {
        Ok(response) => judge(checker, check, response, began).await,
        Err(error) => failed(check, &error),
    }
}

async fn judge(checker: &Checker, check: &HttpCheck, mut response: Response, began: Duration) -> Found {
    let status = response.status().as_u16();
    if !check.expect_status.contains(status) {
        return Found::down("status", format!("status {status}"));
    }
    if let Some(expected) = &check.expect_body {
        match body(&mut response).await {
            Ok(body) if body.windows(expected.len()).any(|part| part == expected.as_bytes()) => {}
            Ok(_) => return Found::down("body", format!("status {status}, but {expected:?} is not in the body")),
            Err(error) => return failed(check, &error),
        }
    }
    let took = checker.time.monotonic().saturating_sub(began);
    if let Some(days) = days_left(&response, checker).filter(|days| *days < i64::from(check.cert_warn_days)) {
        return Found::new(
            ServiceState::Degraded,
            "certificate",
            format!("status {status}; the certificate ends in {days} days"),
        );
    }
    match check.slower_than {
        Some(limit) if took > limit => {
            Found::new(ServiceState::Degraded, "slow", format!("status {status} after {} ms", took.as_millis()))
        }
        _ => Found::up(format!("status {status} after {} ms", took.as_millis())),
    }
}

async fn body(response: &mut Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < MAX_BODY_BYTES {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]),
            None => break,
        }
    }
    Ok(body)
}

fn days_left(response: &Response, checker: &Checker) -> Option<i64> {
    let info = response.extensions().get::<TlsInfo>()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(info.peer_certificate()?).ok()?;
    Some((certificate.validity().not_after.timestamp() - checker.clock.now(&checker.time).0 / 1000) / 86_400)
}

/// What a request that got no answer means: the innermost cause says it.
fn failed(check: &HttpCheck, error: &reqwest::Error) -> Found {
    let address = &check.url;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Unresolved>() {
            return Found::new(ServiceState::Unknown, "resolve", error.to_string());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return refused_by_tls(error);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // An I/O error's `source` passes over what it wraps.
            let Some(inner) = error.get_ref() else { return unconnected(address, error) };
            cause = Some(inner);
            continue;
        }
        cause = error.source();
    }
    Found::down("closed", format!("{address} gave no valid answer"))
}

fn refused_by_tls(error: &rustls::Error) -> Found {
    match error {
        rustls::Error::InvalidCertificate(_) => Found::down("certificate", error.to_string()),
        _ => Found::down("tls", error.to_string()),
    }
}

impl Trust {
    /// The client for `check`, made anew when its trusted certificates changed.
    async fn client(&self, check: &HttpCheck, checker: &Checker, object: &str) -> Result<Client, String> {
        let config = if check.url.starts_with("http:") { None } else { Some(self.config(check, checker, object).await?) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_of, client)) = clients.get(object)
            && made_of.as_ref().map(Arc::as_ptr) == config.as_ref().map(Arc::as_ptr)
        {
            return Ok(client.clone());
        }
        let tls = match &config {
            Some(config) => ClientConfig::clone(config),
            None => client_config(RootCertStore::empty(), judging_clock(checker)),
        };
        let client = new_client(tls, checker, object).map_err(|error| error.to_string())?;
        clients.insert(object.to_owned(), (config, client.clone()));
        Ok(client)
    }

    /// The TLS configuration for `check`. Its file may be on a dead mount: it is looked at aside.
    async fn config(&self, check: &HttpCheck, checker: &Checker, object: &str) -> Result<Arc<ClientConfig>, String> {
        let known = self.configs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = check.ca_file.clone();
        let clock = judging_clock(checker);
        let read = move || {
            let file = wanted.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
            let file = file.ok_or("this system has no bundle of trusted certificates: set ca_file")?;
            let changed = std::fs::metadata(&file).and_then(|metadata| metadata.modified()).ok();
            if let Some((then, config)) = known.get(&file)
                && *then == changed
            {
                return Ok((file, changed, Arc::clone(config)));
            }
            let config = client_config(roots(&file)?, clock);
            Ok::<_, String>((file, changed, Arc::new(config)))
        };
        let (file, changed, config) =
            checker.aside.run(object, Duration::from_secs(5), read).await.map_err(|e| e.to_string())??;
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).insert(file, (changed, Arc::clone(&config)));
        Ok(config)
    }
}

/// A client that begins each try with a connection of its own.
fn new_client(tls: ClientConfig, checker: &Checker, object: &str) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .tls_info(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(AsideResolver { aside: checker.aside.clone(), object: object.to_owned() })
        .pool_max_idle_per_host(0)
        .user_agent(concat!("mainstay-agent/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| problem(&error))?;
    let mut roots = RootCertStore::empty();
    // One certificate of a bundle that can't be used must not make the others useless.
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if roots.is_empty() { Err(problem(&"holds no certificate in PEM form")) } else { Ok(roots) }
}

fn client_config(roots: RootCertStore, clock: Clock) -> ClientConfig {
    let mut provider = rustls::crypto::ring::default_provider();
    // Every question costs a handshake, and processors have instructions for SHA-256, not for SHA-384. A server may still choose.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(clock));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has the suites of TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// The time for judging certificates.
#[derive(Debug)]
struct Clock(ClockReference, TimeSource);

fn judging_clock(checker: &Checker) -> Clock {
    Clock(checker.clock.clone(), checker.time.clone())
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = Duration::from_millis(u64::try_from(self.0.now(&self.1).0).ok()?);
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}
