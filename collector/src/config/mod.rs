//! The collector's settings: a TOML file, read once at start, checked whole before anything runs.
//!
//! Raw serde structs with `deny_unknown_fields` become the checked, typed [`Config`]. Secrets are never in it: it names files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::customers::Language;

mod file;

pub(crate) use file::{BadConfig, DEFAULT_PATH, duration, load};

/// The checked settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What the vendor's service is called in texts and mails.
    pub(crate) service_name: String,
    /// The vendor's language: internal mails, the sign-in page before a choice.
    pub(crate) language: Language,
    /// Where keys and, by default, the database stand. 0700.
    pub(crate) data_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://...`.
    pub(crate) database_url: String,
    /// Where agents connect (mTLS, own listener).
    pub(crate) agents_listen: SocketAddr,
    /// The one service's addresses as agents reach them, `https://host:port`: written into join strings and the server certificate.
    pub(crate) agents_addresses: Vec<String>,
    /// Where browsers and API clients connect.
    pub(crate) web_listen: SocketAddr,
    /// The console's address as people reach it: links in mails, Origin checks. Without trailing slash.
    pub(crate) web_public_url: String,
    /// PEM files for the browsers' listener; without them it speaks plain HTTP and must listen on a loopback address.
    pub(crate) web_tls: Option<WebTls>,
    /// The way out for mail; without it notices wait and the console says so.
    pub(crate) mail: Option<MailConfig>,
    /// An address pinged regularly, so that someone else learns that the collector died.
    pub(crate) watch: Option<WatchConfig>,
    /// Where the release engineers publish signed files; without it no patch is offered.
    pub(crate) releases: Option<ReleasesConfig>,
    /// An appliance without goodbye is silent after this long without a request (DESIGN, Silence: 5 min).
    pub(crate) silence_after: Duration,
    /// The same fault within this time reopens its ticket (DESIGN: 15 min).
    pub(crate) flap_window: Duration,
    /// A recovered ticket without an objection closes after this long.
    pub(crate) close_recovered_after: Duration,
    /// Logs as JSON instead of text.
    pub(crate) log_json: bool,
}

/// The browsers' certificate.
#[derive(Debug, Clone)]
pub(crate) struct WebTls {
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// How mail leaves.
#[derive(Debug, Clone)]
pub(crate) struct MailConfig {
    pub(crate) server: String,
    pub(crate) port: u16,
    pub(crate) security: MailSecurity,
    /// PEM of a private CA to trust beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) username: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// `Name <address>`.
    pub(crate) from: String,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailSecurity {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, required.
    StartTls,
    /// None: accepted for a loopback server only.
    None,
}

/// The outside watch.
#[derive(Debug, Clone)]
pub(crate) struct WatchConfig {
    pub(crate) url: String,
    pub(crate) interval: Duration,
}

/// The repository of signed files. Read only, from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleasesConfig {
    pub(crate) from: ReleasesFrom,
    /// The first root that this service trusts; without it, the repository's own `metadata/1.root.json`.
    pub(crate) root: Option<PathBuf>,
}

/// Where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReleasesFrom {
    /// The folder that `mainstay-release publish` writes.
    Dir(PathBuf),
    /// A bucket that holds the same.
    Bucket(BucketConfig),
}

/// A bucket of an S3-compatible store, addressed by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketConfig {
    /// `https://host[:port]`.
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) region: String,
    /// Before `metadata/` and `files/`: empty, or ending in `/`.
    pub(crate) prefix: String,
    pub(crate) access_key_id: String,
    /// The secret key is its first line.
    pub(crate) secret_key_file: PathBuf,
}
