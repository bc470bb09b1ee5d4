//! The file behind the link of a mail (`https://host/p/TOKEN`), asked for by the form that its page has, and only by that (R18).
//!
//! The page is what the customer's browser opens, so the machine's roots are trusted beside those of the enrolment; no certificate of ours
//! is shown. Whoever could read the line would learn the token and the file, and forge neither consent nor signature. It must never follow
//! a redirect, nor write the token into an error.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LOCATION, RANGE};
use reqwest::{Response, Url};
use rustls_pki_types::CertificateDer;

use super::client::{Proxy, http_client, with_causes};
use super::fetch::{Body, MAX_TAG_CHARS, STALLED, begin_of_range};
use super::tls::{self, Trust};
use super::{Identity, TrustedClock};

const TOKEN_CHARS: usize = 64;

/// A mail's link.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Link {
    url: Url,
    loopback: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a link at {}", self.host())
    }
}

impl Link {
    /// Whether a person means a link, rather than a file or a hash.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with("https://") || text.starts_with("http://")
    }

    /// The link of a mail; what follows the token (a language) is left out.
    ///
    /// # Errors
    /// Says what was expected, without the token.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected the link of the mail as it stands there: https://HOST/p/ and 64 letters and digits";
        let mut url: Url = text.trim().parse().map_err(|_| EXPECTED)?;
        let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err("expected a link that begins with https://");
        }
        let token = url.path().strip_prefix("/p/").unwrap_or_default().trim_end_matches('/').to_owned();
        if token.len() != TOKEN_CHARS || !token.bytes().all(|b| b.is_ascii_hexdigit()) || !url.username().is_empty() {
            return Err(EXPECTED);
        }
        url.set_path(&format!("/p/{token}"));
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, loopback })
    }

    /// With the token: for nobody but the one who asks.
    pub(crate) fn to_secret_text(&self) -> String {
        self.url.to_string()
    }

    /// The name under which its file is kept; tells nothing of the token.
    pub(crate) fn file_stem(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, self.url.as_str().as_bytes());
        hex::encode(&hash.as_ref()[..8])
    }

    /// Where it leads, without the token.
    pub(crate) fn host(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// What the link's page answered.
#[derive(Debug)]
pub(crate) enum LinkAnswer {
    /// The file, or the rest of it.
    File {
        /// Its bytes.
        body: Body,
        /// Bytes of the whole file, where it was told.
        total_bytes: Option<u64>,
    },
    /// The page says no, by its own word (`refused_offer_over`, ...).
    No(String),
    /// No such link, or no longer.
    Gone,
    /// Something that is no signed file: what it calls itself.
    NoFile(String),
    /// The file there is shorter than what we have.
    Shorter,
    /// Nobody answered, or not now.
    Later(String),
}

/// The way to links.
pub(crate) struct LinkWay(reqwest::Client);

impl LinkWay {
    /// For `link`: the machine's own addresses are reached without the proxy.
    ///
    /// # Errors
    /// When the proxy's address can't be used.
    pub(crate) fn to(
        link: &Link,
        roots: Vec<CertificateDer<'static>>,
        proxy: Option<&Proxy>,
        clock: &TrustedClock,
    ) -> anyhow::Result<Self> {
        let config = tls::client_config(Trust::Roots(roots), None, clock)?;
        Ok(Self(http_client(config, proxy.filter(|_| !link.loopback), !link.loopback)?))
    }

    /// Asks for the file from byte `from` on; the tag that came with the bytes before makes a changed file begin anew.
    pub(crate) async fn ask(&self, link: &Link, from: u64, tag: Option<&str>) -> LinkAnswer {
        let mut url = link.url.clone();
        url.set_path(&format!("{}/download", link.url.path()));
        let mut request = self.0.post(url).header(ACCEPT, "application/octet-stream").body("");
        if let (Some(tag), true) = (tag, from > 0) {
            request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, tag);
        }
        match tokio::time::timeout(STALLED, request.send()).await {
            Ok(Ok(response)) => judge(response),
            Ok(Err(error)) => LinkAnswer::Later(with_causes(&error.without_url())),
            Err(_) => LinkAnswer::Later(format!("no answer within {} s", STALLED.as_secs())),
        }
    }
}

fn judge(response: Response) -> LinkAnswer {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let tag = header(ETAG).filter(|tag| tag.starts_with('"') && tag.len() <= MAX_TAG_CHARS);
    let kind = header(CONTENT_TYPE).unwrap_or_default();
    let from = header(CONTENT_RANGE).as_deref().and_then(begin_of_range);
    match (response.status().as_u16(), from) {
        (200 | 206, _) if !kind.starts_with("application/octet-stream") => LinkAnswer::NoFile(kind),
        (200, _) => {
            let total_bytes = response.content_length();
            LinkAnswer::File { body: Body { response, from: 0, tag }, total_bytes }
        }
        (206, Some(from)) => {
            let total_bytes = response.content_length().map(|rest| from + rest);
            LinkAnswer::File { body: Body { response, from, tag }, total_bytes }
        }
        (303, _) => match header(LOCATION).as_deref().and_then(|to| to.split_once("said=")) {
            Some((_, word)) => LinkAnswer::No(word.split('&').next().unwrap_or_default().to_owned()),
            None => LinkAnswer::NoFile("a redirect".to_owned()),
        },
        (301 | 302 | 307 | 308, _) => LinkAnswer::NoFile("a redirect".to_owned()),
        (404 | 410, _) => LinkAnswer::Gone,
        (416, _) => LinkAnswer::Shorter,
        (408 | 425 | 429 | 500..=599, _) => LinkAnswer::Later(format!("status {}", response.status().as_u16())),
        (status, _) => LinkAnswer::NoFile(format!("status {status}")),
    }
}

/// The machine's roots (`SSL_CERT_FILE` replaces them) and those of the enrolment; what the verifier can't use is left out.
pub(crate) fn system_roots(enrolled: Option<&Identity>) -> Vec<CertificateDer<'static>> {
    let usable = |root: &CertificateDer<'static>| rustls::RootCertStore::empty().add(root.clone()).is_ok();
    let mut roots = rustls_native_certs::load_native_certs().certs;
    roots.extend(enrolled.map(Identity::roots).unwrap_or_default());
    roots.retain(usable);
    roots
}

/// How long to wait before try number `tries` after one that brought nothing.
pub(crate) fn wait_before(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_link_of_a_mail_is_taken_for_one() {
        let token = "0123456789abcdef".repeat(4);
        let rows = [
            ("as it stands in the mail", format!("https://mainstay.example.com/p/{token}"), true),
            ("with its language", format!("https://mainstay.example.com:8443/p/{token}?l=en#top"), true),
            ("with blanks around it", format!(" https://mainstay.example.com/p/{token}\n"), true),
            ("in clear text to this machine", format!("http://127.0.0.1:8080/p/{token}"), true),
            ("in clear text over the network", format!("http://mainstay.example.com/p/{token}"), false),
            ("cut off by the mail program", format!("https://mainstay.example.com/p/{}", &token[..40]), false),
            ("another page", "https://mainstay.example.com/tickets".to_owned(), false),
            ("with a name before the host", format!("https://a@mainstay.example.com/p/{token}"), false),
            ("no address", "mainstay.example.com".to_owned(), false),
        ];
        for (sentence, text, good) in rows {
            let parsed = Link::parse(&text);
            assert_eq!(parsed.is_ok(), good, "{sentence}");
            if let Ok(link) = parsed {
                assert!(link.to_secret_text().ends_with(&token), "{sentence}");
                assert!(!format!("{link:?} {} {}", link.host(), link.file_stem()).contains(&token), "{sentence}");
            }
        }
    }
}
