//! Fetches a file of the repository in pieces, from any place in it, over the same mTLS as everything else.
//!
//! It carries bytes and judges none of them. A connection that stalls is given up; what came before stays with the caller. It must never
//! follow a redirect nor send anything but the range that is wanted.

use std::time::Duration;

use mainstay_shared::api::{ErrorBody, PATH_REPOSITORY};
use mainstay_shared::limits::clean_text;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE, RETRY_AFTER};

use super::client::{Uplink, with_causes};
use super::{Outcome, rules};

/// Nothing for so long: the connection is dead.
pub(super) const STALLED: Duration = Duration::from_secs(60);
/// One address gets so long to answer at all.
const ANSWERS: Duration = Duration::from_secs(15);
/// The longest refusal that is read.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// The longest tag that is kept.
pub(super) const MAX_TAG_CHARS: usize = 200;

/// The begin of a file, or of the rest of it.
#[derive(Debug)]
pub(crate) struct Body {
    pub(super) response: reqwest::Response,
    /// Where in the file it begins.
    pub(crate) from: u64,
    /// Tells one content of that name from another.
    pub(crate) tag: Option<String>,
}

impl Uplink {
    /// Asks for `path` from byte `from`; the tag that came with the bytes before makes a changed file begin anew.
    pub(crate) async fn fetch(&self, path: &str, from: u64, tag: Option<&str>) -> Outcome<Body> {
        let (http, address) = self.way();
        let Some(address) = address else {
            return Outcome::RetryAfter { after: None, why: "no address of the collector is known".to_owned() };
        };
        let mut request = http.get(format!("{}{path}", address.trim_end_matches('/')));
        if let (Some(tag), true) = (tag, from > 0) {
            request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, tag);
        }
        let response = match tokio::time::timeout(STALLED, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let why = format!("{address}: {}", with_causes(&error.without_url()));
                return Outcome::RetryAfter { after: None, why };
            }
            Err(_) => return Outcome::RetryAfter { after: None, why: format!("{address}: no answer") },
        };
        self.judge_fetch(response).await
    }

    /// Whether the collector answers this appliance, at any of its addresses: which one, or why none does. Nothing is asked that would change
    /// anything there.
    pub(crate) async fn reach(&self) -> Result<String, String> {
        let (http, addresses) = self.ways();
        let mut why = "no address of the collector is known".to_owned();
        for address in addresses {
            let request = http.get(format!("{}{PATH_REPOSITORY}timestamp.json", address.trim_end_matches('/'))).timeout(ANSWERS);
            match request.send().await {
                // Without a repository it says so: it has answered all the same.
                Ok(response) if response.status().is_success() || matches!(response.status().as_u16(), 403 | 404) => {
                    return Ok(address);
                }
                Ok(response) => why = format!("{address}: status {}", response.status().as_u16()),
                Err(error) => why = format!("{address}: {}", with_causes(&error.without_url())),
            }
        }
        Err(why)
    }

    async fn judge_fetch(&self, response: reqwest::Response) -> Outcome<Body> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let tag = header(ETAG).filter(|tag| tag.starts_with('"') && tag.len() <= MAX_TAG_CHARS);
        let status = response.status().as_u16();
        match (status, header(CONTENT_RANGE).as_deref().and_then(begin_of_range)) {
            (200, _) => Outcome::Sent(Body { response, from: 0, tag }),
            (206, Some(from)) => Outcome::Sent(Body { response, from, tag }),
            _ => {
                let after = header(RETRY_AFTER).and_then(|text| rules::retry_after(&text, self.clock().now()));
                refusal(response, after).await
            }
        }
    }
}

impl Body {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// Why the rest does not come.
    pub(crate) async fn piece(&mut self) -> Result<Option<impl AsRef<[u8]> + Send + 'static>, String> {
        match tokio::time::timeout(STALLED, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(with_causes(&error.without_url())),
            Err(_) => Err("the connection stalled".to_owned()),
        }
    }
}

async fn refusal(mut response: reqwest::Response, after: Option<Duration>) -> Outcome<Body> {
    let status = response.status().as_u16();
    let mut text = Vec::new();
    while let Ok(Ok(Some(piece))) = tokio::time::timeout(STALLED, response.chunk()).await {
        if text.len() + piece.len() > MAX_REFUSAL_BYTES {
            break;
        }
        text.extend_from_slice(&piece);
    }
    let said = serde_json::from_slice(&text).unwrap_or_else(|_| ErrorBody { error: String::new(), message: String::new() });
    let message = clean_text(&said.message, 300);
    match status {
        401 => Outcome::NotEnrolled { message },
        403 | 404 | 410 | 416 => Outcome::Refused { word: said.error, message: format!("status {status} {message}") },
        _ => Outcome::RetryAfter { after, why: format!("status {status} {message}").trim_end().to_owned() },
    }
}

/// `bytes 5-9/10` begins at 5.
pub(super) fn begin_of_range(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
