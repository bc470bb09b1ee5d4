//! The agent's configuration: `/etc/mainstay/agent.toml`, `agent.d/*.toml` and the service profiles beside it, checked.
//!
//! It is read once at start and handed down as one value. A missing file means the defaults, which are right for most machines.
//! Every error found is told, with file, key, value and what is accepted; nothing runs on a configuration with an error in it.
//! The reference for operators is docs/agent-configuration.md.

mod values;
mod section;
mod files;
mod probes;
mod patches;
mod services;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_shared::check::DeclaredService;
use serde::Serialize;
use toml::{Table, Value};

pub(crate) use patches::PatchSettings;
pub(crate) use probes::{ProbeSettings, Threshold};
use section::{ConfigError, Findings, Section};
pub(crate) use services::{Check, CheckKind, HttpCheck, ProcessCheck, Service, TcpCheck};
use values::Bytes;
#[cfg(test)]
pub(crate) use values::Statuses;

/// Where the configuration is unless the command line names another place.
pub(crate) const DEFAULT_PATH: &str = "/etc/mainstay/agent.toml";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `agent.state_dir`: the spool, keys and certificates.
    pub(crate) state_dir: PathBuf,
    /// `agent.log_format`.
    pub(crate) log_format: LogFormat,
    /// `collector.addresses`, `HOST:PORT` each: replace those of the enrolment. Empty: the enrolment's.
    pub(crate) collector_addresses: Vec<String>,
    /// `[proxy]`, if one is to be used.
    pub(crate) proxy: Option<Proxy>,
    /// `spool.max_size`, bytes on disk.
    pub(crate) spool_max_bytes: u64,
    /// `uplink.poll_wait`: how long a long poll asks to be kept waiting.
    pub(crate) poll_wait: Duration,
    /// `[patches]`.
    pub(crate) patches: PatchSettings,
    /// `[probes]`.
    pub(crate) probes: ProbeSettings,
    /// `[[service]]`, from all files.
    pub(crate) services: Vec<Service>,
    /// The files it was read from.
    files: Vec<PathBuf>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For a person or the journal.
    Text,
    /// One JSON object per line.
    Json,
}

impl values::Accepted for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";
    fn accept(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// An HTTP proxy on the way to the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// `http://HOST:PORT`, without user name and password.
    pub(crate) url: String,
    /// The user name for basic authentication.
    pub(crate) username: Option<String>,
    /// The file whose first line is the password.
    pub(crate) password_file: Option<PathBuf>,
}

/// All that is wrong with a configuration, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What `check-config` tells of a good configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CheckReport {
    /// The files it was read from, in the order of merging.
    pub(crate) files: Vec<PathBuf>,
    /// The names of the declared services.
    pub(crate) services: Vec<String>,
    /// What is accepted and yet may surprise.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// Reads and checks the configuration at `path`, with `agent.d` and `profiles.d` beside it.
    ///
    /// # Errors
    /// All that is wrong in any of the files.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let merged = files::read(path, &mut findings);
        Self::checked(merged, findings)
    }

    /// Reads and checks the text of an `agent.toml` that stands alone.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn from_text(text: &str) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let merged = files::read_text(text, &mut findings);
        Self::checked(merged, findings)
    }

    fn checked(merged: files::Merged, findings: Findings) -> Result<Self, ConfigErrors> {
        let services = services::read(merged.services, &findings);
        let config = read_top(merged.table, services, merged.files, &findings);
        let errors = findings.errors.into_inner();
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// The services as the collector is told of them.
    #[must_use]
    pub fn declared_services(&self) -> Vec<DeclaredService> {
        let declared = |service: &Service| DeclaredService {
            name: service.name.clone(),
            title: service.title.clone(),
            checks: service.checks.iter().map(|check| check.name.clone()).collect(),
            interval_s: u32::try_from(service.interval.as_secs()).unwrap_or(u32::MAX),
            depends_on: service.depends_on.clone(),
        };
        self.services.iter().map(declared).collect()
    }

    /// What `check-config` tells.
    pub(crate) fn check_report(&self) -> CheckReport {
        CheckReport {
            files: self.files.clone(),
            services: self.services.iter().map(|service| service.name.clone()).collect(),
            warnings: self.warnings(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.services.is_empty() {
            warnings.push(
                "severity blind: no [[service]] is declared, so every fault is taken for a general one until a person says otherwise"
                    .to_owned(),
            );
        }
        if self.probes.interval < Duration::from_secs(5) {
            warnings.push(
                "probes.interval is under \"5s\": measuring costs more than the usual half a second of processor time per hour"
                    .to_owned(),
            );
        }
        for service in &self.services {
            let longest = service.checks.iter().map(|check| check.timeout).max().unwrap_or_default();
            let round = longest * u32::from(service.retries + 1) + service.retry_after * u32::from(service.retries);
            if round > Duration::from_secs(300) {
                let name = &service.name;
                warnings.push(format!("service.{name}: time-outs and retries take up to {round:?} before an outage is told"));
            }
        }
        warnings
    }
}

fn read_top(table: Table, services: Vec<Service>, files: Vec<PathBuf>, findings: &Findings) -> Config {
    let mut top = Section::top(table, findings);
    let mut agent = top.section("agent");
    let state_dir = agent.get_where("state_dir", "a full path", |path: &String| path.starts_with('/'));
    let log_format = agent.get_or("log_format", LogFormat::Text);
    agent.finish();

    let mut collector = top.section("collector");
    let good_list = |list: &Vec<String>| list.iter().all(|address| services::is_address(address));
    let collector_addresses = collector
        .get_where("addresses", "a list of HOST:PORT such as [\"mainstay.example.com:8443\"]", good_list)
        .unwrap_or_default();
    collector.finish();

    let proxy = read_proxy(&mut top);

    let mut spool = top.section("spool");
    let good_size = |size: &Bytes| (1 << 20..=1 << 30).contains(&size.0);
    let spool_max = spool.get_where("max_size", "a size from \"1MiB\" to \"1GiB\"", good_size).unwrap_or(Bytes(16 << 20));
    spool.finish();

    let mut uplink = top.section("uplink");
    let good_wait = |wait: &Duration| (5..=60).contains(&wait.as_secs());
    let poll_wait =
        uplink.get_where("poll_wait", "a duration from \"5s\" to \"60s\"", good_wait).unwrap_or(Duration::from_secs(55));
    uplink.finish();

    let patches = patches::read(&mut top);
    let probes = probes::read(&mut top);
    top.finish();
    Config {
        state_dir: state_dir.map_or_else(|| PathBuf::from("/var/lib/mainstay"), PathBuf::from),
        log_format,
        collector_addresses,
        proxy,
        spool_max_bytes: spool_max.0,
        poll_wait,
        patches,
        probes,
        services,
        files,
    }
}

fn read_proxy(top: &mut Section<'_>) -> Option<Proxy> {
    const URL: &str = "an address such as \"http://proxy.example.com:3128\"; user name and password have keys of their own";
    let mut section = top.section("proxy");
    let good_url = |url: &String| {
        reqwest::Url::parse(url)
            .is_ok_and(|url| url.scheme() == "http" && url.has_host() && url.username().is_empty() && url.password().is_none())
    };
    let url = section.get_where("url", URL, good_url);
    let username: Option<String> =
        section.get_where("username", "a user name without a colon", |name: &String| !name.contains(':'));
    let password_file =
        section.get_where("password_file", "a full path", |path: &String| path.starts_with('/')).map(PathBuf::from);
    if username.is_some() != password_file.is_some() {
        section.refuse("username", None, "and proxy.password_file belong together: expected both or none".to_owned());
    }
    section.finish();
    url.map(|url| Proxy { url, username, password_file })
}

#[cfg(test)]
mod tests;
