//! One HTTPS client to the one service: several addresses in turn, an HTTP proxy if one is set, answers limited in size.
//!
//! Bodies are JSON, compressed by zstd. Every failure becomes an `Outcome`; an error text names the address and the cause and
//! never a secret (R33). Redirects are not followed; the environment's proxy settings are ignored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::api::ErrorBody;
use mainstay_shared::limits::MAX_BODY_BYTES;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::Identity;
use super::rules::{self, Verdict};
use super::tls::{self, Trust};
use super::{Outcome, TrustedClock};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer longer than this is not read to its end.
const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES;

/// An HTTP proxy on the way.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// `http://host:port`.
    pub(crate) url: String,
    /// For basic authentication.
    pub(crate) username: Option<String>,
    /// Read from its file at start; never logged.
    pub(crate) password: String,
}

/// How the way out is configured.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// Replace the addresses of the enrolment; `host:port` each.
    pub(crate) addresses: Vec<String>,
    /// If one is to be used.
    pub(crate) proxy: Option<Proxy>,
}

/// The client, under the present identity.
pub(crate) struct Uplink {
    settings: Settings,
    clock: TrustedClock,
    session: Mutex<Arc<Session>>,
    /// Index of the address that answered last.
    preferred: AtomicUsize,
}

struct Session {
    identity: Identity,
    http: reqwest::Client,
}

impl Uplink {
    /// A client that shows `identity`.
    ///
    /// # Errors
    /// When the identity or the proxy can't be used.
    pub(crate) fn new(identity: Identity, settings: Settings, clock: TrustedClock) -> anyhow::Result<Self> {
        let session = Mutex::new(Arc::new(Session::new(identity, &settings, &clock)?));
        Ok(Self { settings, clock, session, preferred: AtomicUsize::new(0) })
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The present identity.
    pub(crate) fn identity(&self) -> Identity {
        self.session().identity.clone()
    }

    /// The clock that certificates are judged by.
    pub(crate) fn clock(&self) -> &TrustedClock {
        &self.clock
    }

    /// Goes on under a renewed identity; requests under way finish under the old one.
    ///
    /// # Errors
    /// When the identity can't be used; the old one stays.
    pub(crate) fn replace_identity(&self, identity: Identity) -> anyhow::Result<()> {
        let session = Arc::new(Session::new(identity, &self.settings, &self.clock)?);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        Ok(())
    }

    /// Posts `body` over mTLS, to the address that answered last; the others follow as long as none could be connected to.
    pub(crate) async fn post<B: Serialize, A: DeserializeOwned>(&self, path: &str, body: &B, timeout: Duration) -> Outcome<A> {
        let session = self.session();
        let addresses = self.settings.addresses_or(&session.identity.addresses);
        post_in_turn(&session.http, &addresses, &self.preferred, path, body, timeout, &self.clock).await
    }

    /// The client and the address that answered last.
    pub(super) fn way(&self) -> (reqwest::Client, Option<String>) {
        let session = self.session();
        let addresses = self.settings.addresses_or(&session.identity.addresses);
        let at = self.preferred.load(Ordering::Relaxed) % addresses.len().max(1);
        (session.http.clone(), addresses.get(at).cloned())
    }

    /// The client and every address.
    pub(super) fn ways(&self) -> (reqwest::Client, Vec<String>) {
        let session = self.session();
        (session.http.clone(), self.settings.addresses_or(&session.identity.addresses))
    }

    /// Posts `body` without showing a certificate: the renewal of an expired one.
    ///
    /// # Errors
    /// When no such client can be made.
    pub(super) async fn post_anonymously<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        timeout: Duration,
    ) -> anyhow::Result<Outcome<A>> {
        let session = self.session();
        let trust = Trust::Roots(session.identity.roots());
        let http = http_client(tls::client_config(trust, None, &self.clock)?, self.settings.proxy.as_ref(), true)?;
        let addresses = self.settings.addresses_or(&session.identity.addresses);
        Ok(post_in_turn(&http, &addresses, &self.preferred, path, body, timeout, &self.clock).await)
    }
}

impl Session {
    fn new(identity: Identity, settings: &Settings, clock: &TrustedClock) -> anyhow::Result<Self> {
        let config = tls::client_config(Trust::Roots(identity.roots()), Some(&identity), clock)?;
        Ok(Self { http: http_client(config, settings.proxy.as_ref(), true)?, identity })
    }
}

impl Settings {
    /// The configured addresses, else `enrolled`.
    fn addresses_or(&self, enrolled: &[String]) -> Vec<String> {
        if self.addresses.is_empty() {
            enrolled.to_vec()
        } else {
            self.addresses.iter().map(|a| format!("https://{a}")).collect()
        }
    }
}

/// Posts once, before there is an identity, to a server whose chain holds the pinned CA.
///
/// # Errors
/// When no client can be made.
pub(super) async fn post_pinned<B: Serialize, A: DeserializeOwned>(
    addresses: &[String],
    pin: [u8; 32],
    settings: &Settings,
    clock: &TrustedClock,
    path: &str,
    body: &B,
) -> anyhow::Result<Outcome<A>> {
    let http = http_client(tls::client_config(Trust::Pin(pin), None, clock)?, settings.proxy.as_ref(), true)?;
    let preferred = AtomicUsize::new(0);
    Ok(post_in_turn(&http, addresses, &preferred, path, body, Duration::from_secs(60), clock).await)
}

pub(super) fn http_client(tls: rustls::ClientConfig, proxy: Option<&Proxy>, https_only: bool) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(https_only)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("mainstay-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_max_idle_per_host(2);
    if let Some(proxy) = proxy {
        // The URL may be wrong in a way that only reqwest sees; its error does not repeat the password, which stands elsewhere.
        let mut way = reqwest::Proxy::all(&proxy.url).context("proxy.url: expected \"http://host:port\"")?;
        if let Some(username) = &proxy.username {
            way = way.basic_auth(username, &proxy.password);
        }
        builder = builder.proxy(way);
    }
    builder.build().context("the HTTPS client can't be made")
}

async fn post_in_turn<B: Serialize, A: DeserializeOwned>(
    http: &reqwest::Client,
    addresses: &[String],
    preferred: &AtomicUsize,
    path: &str,
    body: &B,
    timeout: Duration,
    clock: &TrustedClock,
) -> Outcome<A> {
    let compressed = match compress(body) {
        Ok(compressed) => compressed,
        Err(error) => return Outcome::RetryAfter { after: None, why: format!("{error:#}") },
    };
    let first = preferred.load(Ordering::Relaxed);
    let mut why = "no address of the collector is known".to_owned();
    for turn in 0..addresses.len() {
        let at = (first + turn) % addresses.len();
        let url = format!("{}{path}", addresses[at].trim_end_matches('/'));
        let request = http.post(&url).timeout(timeout).header(CONTENT_TYPE, "application/json").header(CONTENT_ENCODING, "zstd");
        match request.body(compressed.clone()).send().await {
            Ok(response) => {
                preferred.store(at, Ordering::Relaxed);
                return read_answer(response, clock).await;
            }
            Err(error) => {
                let reached = !error.is_connect();
                // Without the path, so that the same trouble of polls and reports reads the same.
                why = format!("{}: {}", addresses[at], with_causes(&error.without_url()));
                if reached {
                    // It may have been taken and only its answer lost: the same message must not be seen twice by one service.
                    preferred.store((at + 1) % addresses.len(), Ordering::Relaxed);
                    break;
                }
            }
        }
    }
    Outcome::RetryAfter { after: None, why }
}

fn compress<B: Serialize>(body: &B) -> anyhow::Result<Vec<u8>> {
    let json = serde_json::to_vec(body).context("the message can't be written as JSON")?;
    zstd::bulk::compress(&json, 3).context("the message can't be compressed")
}

async fn read_answer<A: DeserializeOwned>(mut response: reqwest::Response, clock: &TrustedClock) -> Outcome<A> {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = after.and_then(|text| rules::retry_after(&text, clock.now()));
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= MAX_ANSWER_BYTES => bytes.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                let why = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
                return Outcome::RetryAfter { after, why };
            }
            Ok(None) => break,
            Err(error) => return Outcome::RetryAfter { after, why: with_causes(&error) },
        }
    }
    let said: ErrorBody =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody { error: String::new(), message: String::new() });
    let message = mainstay_shared::limits::clean_text(&said.message, 300);
    match rules::judge(status, &said.error) {
        Verdict::Taken => match serde_json::from_slice(&bytes) {
            Ok(answer) => Outcome::Sent(answer),
            Err(error) => Outcome::RetryAfter { after: None, why: format!("the answer is not understood: {error}") },
        },
        Verdict::Wait => {
            Outcome::RetryAfter { after, why: format!("status {status} {} {message}", said.error).trim_end().to_owned() }
        }
        Verdict::Refused => Outcome::Refused { word: said.error, message },
        Verdict::NotEnrolled => Outcome::NotEnrolled { message },
        Verdict::Stale => Outcome::Stale { message },
    }
}

/// The error and its causes in one line; reqwest's own text stops at "error sending request".
pub(super) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
