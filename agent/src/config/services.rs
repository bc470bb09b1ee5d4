//! What the customer's business needs from this machine: `[[service]]` tables and their `[[service.check]]` tables.
//!
//! They come from the operator's files and from profiles that a product ships. Names are unique over all files, and two files
//! with one name are an error that names both. It must never run anything: `checks` does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_shared::limits::{MAX_CHECKS, MAX_SERVICES, MAX_TEXT_CHARS, is_good_name};
use toml::Table;

use super::section::{ConfigError, Findings, Section};
use super::values::Statuses;

/// A business service with the checks that tell whether it answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    /// Its name, unique on this appliance.
    pub(crate) name: String,
    /// What it is for, in the customer's words.
    pub(crate) title: String,
    /// From the start of one round to the start of the next.
    pub(crate) interval: Duration,
    /// How often a failed check is tried again before it counts.
    pub(crate) retries: u8,
    /// How long to wait before each of them.
    pub(crate) retry_after: Duration,
    /// A fault raised for the third time within it is flapping.
    pub(crate) flap_window: Duration,
    /// Components of this appliance that it depends on.
    pub(crate) depends_on: Vec<String>,
    /// Its checks; the worst of them is the service's state.
    pub(crate) checks: Vec<Check>,
}

/// One question to a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// Its name within the service.
    pub(crate) name: String,
    /// After this long without an answer it has failed.
    pub(crate) timeout: Duration,
    /// What is asked.
    pub(crate) kind: CheckKind,
}

/// The kinds of checks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CheckKind {
    /// A web request.
    Http(HttpCheck),
    /// A TCP connection.
    Tcp(TcpCheck),
    /// Processes of this machine.
    Process(ProcessCheck),
    /// A systemd unit, by name.
    Unit(String),
    /// A Nagios plugin: program and arguments, run without a shell (R10).
    Plugin(Vec<String>),
}

impl CheckKind {
    /// Its name in files and results.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Process(_) => "process",
            Self::Unit(_) => "unit",
            Self::Plugin(_) => "plugin",
        }
    }
}

/// `kind = "http"`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpCheck {
    /// `http://` or `https://`, without user name and password.
    pub(crate) url: String,
    /// `GET` or `HEAD`: a check must not change anything.
    pub(crate) head: bool,
    /// The statuses that are good.
    pub(crate) expect_status: Statuses,
    /// What the body must contain, within its first 256 KiB.
    pub(crate) expect_body: Option<String>,
    /// The certificates trusted, instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Slower than this is degraded.
    pub(crate) slower_than: Option<Duration>,
    /// A certificate with fewer days left is degraded.
    pub(crate) cert_warn_days: u32,
}

/// `kind = "tcp"`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TcpCheck {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// What is sent once connected.
    pub(crate) send: Option<String>,
    /// What must then be heard, within the first 4 KiB.
    pub(crate) expect: Option<String>,
}

/// `kind = "process"`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProcessCheck {
    /// The program's name without its path.
    pub(crate) process: Option<String>,
    /// What the command line must contain.
    pub(crate) cmdline: Option<String>,
    /// How many there must be.
    pub(crate) min_count: u32,
}

/// Reads all services; what is wrong goes into `findings`.
pub(crate) fn read(tables: Vec<(String, Table)>, findings: &Findings) -> Vec<Service> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut services = Vec::new();
    for (index, (file, table)) in tables.into_iter().enumerate() {
        if index == MAX_SERVICES {
            let problem = format!("more than {MAX_SERVICES} services are declared: expected at most that many");
            findings.add(ConfigError { file: file.clone(), key: "service".to_owned(), value: None, problem });
        }
        let label = label("service", &table, index);
        let Some(service) = read_one(&label, &file, table, findings) else { continue };
        if let Some(other) = files.insert(service.name.clone(), file.clone()) {
            let problem = format!("is declared in {other} as well: expected each service name once over all files");
            findings.add(ConfigError { file, key: label, value: None, problem });
        } else {
            services.push(service);
        }
    }
    services
}

/// `service.NAME`, or `service[N]` where it has none.
fn label(path: &str, table: &Table, index: usize) -> String {
    match table.get("name").and_then(toml::Value::as_str) {
        Some(name) => format!("{path}.{}", mainstay_shared::limits::clean_text(name, 40)),
        None => format!("{path}[{}]", index + 1),
    }
}

fn read_one(label: &str, file: &str, table: Table, findings: &Findings) -> Option<Service> {
    let mut section = Section::whole(label.to_owned(), file.to_owned(), table, findings);
    // `service:NAME` is a component, and that is a name too.
    let name = section.need("name", "a name of 1 to 120 characters", |name: &String| {
        is_good_name(&format!("service:{name}")) && !name.is_empty()
    });
    let title = section.get_or("title", String::new());
    let interval =
        within(&mut section, "interval", Duration::from_secs(60), Duration::from_secs(1)..=Duration::from_secs(86_400));
    let retries = section.get_where("retries", "a whole number from 0 to 10", |n: &u32| *n <= 10).unwrap_or(2);
    let retry_after =
        within(&mut section, "retry_after", Duration::from_secs(10), Duration::from_millis(100)..=Duration::from_secs(600));
    let flap_window = within(&mut section, "flap_window", Duration::from_secs(900), Duration::ZERO..=Duration::from_secs(86_400));
    let depends_on = section
        .get_where("depends_on", "a list of components such as [\"disk:/var\"]", |list: &Vec<String>| {
            list.iter().all(|name| is_good_name(name))
        })
        .unwrap_or_default();
    let checks = read_checks(&mut section, label, file, findings);
    section.finish();
    let title = mainstay_shared::limits::clean_text(&title, MAX_TEXT_CHARS);
    let retries = u8::try_from(retries).unwrap_or(u8::MAX);
    Some(Service { name: name?, title, interval, retries, retry_after, flap_window, depends_on, checks })
}

fn read_checks(section: &mut Section<'_>, label: &str, file: &str, findings: &Findings) -> Vec<Check> {
    let tables = section.tables("check");
    if tables.is_empty() || tables.len() > MAX_CHECKS {
        section.refuse(
            "check",
            None,
            format!("has {} checks: expected 1 to {MAX_CHECKS} [[service.check]] tables", tables.len()),
        );
    }
    let mut checks: Vec<Check> = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let label = self::label(&format!("{label}.check"), &table, index);
        let mut section = Section::whole(label, file.to_owned(), table, findings);
        let check = read_check(&mut section);
        if let Some(check) = check {
            if checks.iter().any(|other| other.name == check.name) {
                section.refuse("name", None, "is used twice in this service: expected each check name once".to_owned());
            }
            checks.push(check);
        }
        section.finish();
    }
    checks
}

fn read_check(section: &mut Section<'_>) -> Option<Check> {
    const KINDS: &str = "\"http\", \"tcp\", \"process\", \"unit\" or \"plugin\"";
    let name = section.need("name", "a name of 1 to 128 characters", |name: &String| is_good_name(name));
    let timeout = within(section, "timeout", Duration::from_secs(10), Duration::from_millis(100)..=Duration::from_secs(300));
    let is_kind = |kind: &String| ["http", "tcp", "process", "unit", "plugin"].contains(&kind.as_str());
    let kind = match section.need("kind", KINDS, is_kind)?.as_str() {
        "http" => http(section).map(CheckKind::Http),
        "tcp" => tcp(section).map(CheckKind::Tcp),
        "process" => process(section).map(CheckKind::Process),
        "unit" => {
            section.need("unit", "a unit name such as \"nginx.service\"", |name: &String| is_unit_name(name)).map(CheckKind::Unit)
        }
        _ => section.need("command", COMMAND, |argv: &Vec<String>| is_command(argv)).map(CheckKind::Plugin),
    };
    Some(Check { name: name?, timeout, kind: kind? })
}

const COMMAND: &str =
    "a program with its full path and its arguments, such as [\"/usr/lib/nagios/plugins/check_tcp\", \"-p\", \"25\"]";

fn http(section: &mut Section<'_>) -> Option<HttpCheck> {
    const URL: &str = "an address such as \"https://127.0.0.1/health\", without user name or password";
    let url = section.need("url", URL, |url: &String| is_web_address(url));
    let methods = |method: &String| method == "GET" || method == "HEAD";
    let head = section.get_where("method", "\"GET\" or \"HEAD\"", methods).is_some_and(|method| method == "HEAD");
    let expect_status = section.get_or("expect_status", Statuses::success());
    let expect_body = section.get_where("expect_body", "a text that is not empty", |text: &String| is_filled(text));
    let ca_file = section.get_where("ca_file", "a full path", |path: &String| is_full_path(path)).map(PathBuf::from);
    let slower_than = section.get("slower_than");
    let cert_warn_days = section.get_or("cert_warn_days", 14);
    Some(HttpCheck { url: url?, head, expect_status, expect_body, ca_file, slower_than, cert_warn_days })
}

fn tcp(section: &mut Section<'_>) -> Option<TcpCheck> {
    let address = section.need("address", "HOST:PORT such as \"127.0.0.1:5432\"", |address: &String| is_address(address));
    let send = section.get_where("send", "a text that is not empty", |text: &String| is_filled(text));
    let expect = section.get_where("expect", "a text that is not empty", |text: &String| is_filled(text));
    Some(TcpCheck { address: address?, send, expect })
}

fn process(section: &mut Section<'_>) -> Option<ProcessCheck> {
    let process =
        section.get_where("process", "a program's name without its path", |name: &String| is_filled(name) && !name.contains('/'));
    let cmdline = section.get_where("cmdline", "a text that is not empty", |text: &String| is_filled(text));
    let min_count = section.get_where("min_count", "a whole number, 1 or more", |n: &u32| *n >= 1).unwrap_or(1);
    if process.is_none() && cmdline.is_none() {
        section.refuse("process", None, "is missing: expected process, cmdline, or both".to_owned());
        return None;
    }
    Some(ProcessCheck { process, cmdline, min_count })
}

fn within(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Duration {
    let expected = format!("a duration from {:?} to {:?} such as \"10s\"", range.start(), range.end());
    section.get_where(key, &expected, |duration| range.contains(duration)).unwrap_or(default)
}

fn is_filled(text: &str) -> bool {
    !text.is_empty()
}

fn is_full_path(text: &str) -> bool {
    text.starts_with('/')
}

fn is_unit_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.contains(['/', ' ', '*', '?', '['])
}

fn is_command(argv: &[String]) -> bool {
    argv.first().is_some_and(|program| is_full_path(program)) && argv.iter().all(|word| !word.contains('\0'))
}

fn is_web_address(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.username().is_empty() && url.password().is_none()
    })
}

pub(super) fn is_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_v6 && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
