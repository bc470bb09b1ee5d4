//! From the text of the TOML file to the checked [`Config`]: every value that is wrong is told, all in one go.
//!
//! First step of every command. An error names file, key, value and what is accepted; it never repeats a secret (R33).
//! It must never reach for the network or create anything.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use self::releases::RawReleases;
use super::{BucketConfig, Config, MailConfig, MailSecurity, ReleasesConfig, ReleasesFrom, WatchConfig, WebTls};
use crate::customers::Language;

mod releases;

/// Where the file stands unless `--config` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/mainstay/collector.toml";

/// Everything that is wrong with the file, a line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct BadConfig(pub(crate) Vec<String>);

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    service: RawService,
    #[serde(default)]
    data: RawData,
    #[serde(default)]
    database: RawDatabase,
    agents: RawAgents,
    web: RawWeb,
    mail: Option<RawMail>,
    watch: Option<RawWatch>,
    releases: Option<RawReleases>,
    #[serde(default)]
    tickets: RawTickets,
    #[serde(default)]
    log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: Option<String>,
    language: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData {
    dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgents {
    listen: Option<String>,
    addresses: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeb {
    listen: Option<String>,
    public_url: String,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMail {
    server: String,
    port: Option<u16>,
    security: Option<String>,
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatch {
    url: String,
    interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTickets {
    silence_after: Option<String>,
    flap_window: Option<String>,
    close_recovered_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    format: Option<String>,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`BadConfig`] with every fault of the file.
pub(crate) fn load(path: &Path) -> Result<Config, BadConfig> {
    let text =
        std::fs::read_to_string(path).map_err(|error| BadConfig(vec![format!("{}: cannot be read: {error}", path.display())]))?;
    parse(&path.display().to_string(), &text)
}

/// Checks the text of a file called `file`.
///
/// # Errors
/// [`BadConfig`] with every fault of the text.
pub(crate) fn parse(file: &str, text: &str) -> Result<Config, BadConfig> {
    let raw: Raw = toml::from_str(text).map_err(|error| BadConfig(vec![structural(file, text, &error)]))?;
    let mut checks = Checks { file, faults: Vec::new() };
    let config = checks.config(raw);
    if checks.faults.is_empty() { Ok(config) } else { Err(BadConfig(checks.faults)) }
}

/// The parser's own excerpt would repeat the line, which may hold a password.
fn structural(file: &str, text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("{file}: line {line}: {}", error.message())
}

struct Checks<'a> {
    file: &'a str,
    faults: Vec<String>,
}

impl Checks<'_> {
    fn fault(&mut self, key: &str, value: &str, accepted: &str) {
        self.faults.push(format!("{}: {key} = {value:?}: expected {accepted}", self.file));
    }

    fn config(&mut self, raw: Raw) -> Config {
        let data_dir = raw.data.dir.unwrap_or_else(|| PathBuf::from("/var/lib/mainstay-collector"));
        if !data_dir.is_absolute() {
            self.fault("data.dir", &data_dir.display().to_string(), "an absolute path such as \"/var/lib/mainstay-collector\"");
        }
        let web_listen = self.address("web.listen", raw.web.listen.as_deref().unwrap_or("127.0.0.1:8080"));
        let web_tls = self.web_tls(raw.web.certificate_file, raw.web.key_file, web_listen);
        Config {
            service_name: self.service_name(raw.service.name),
            language: self.language(raw.service.language.as_deref().unwrap_or("zh")),
            database_url: self.database(raw.database.url, &data_dir),
            data_dir,
            agents_listen: self.address("agents.listen", raw.agents.listen.as_deref().unwrap_or("0.0.0.0:8443")),
            agents_addresses: self.agents_addresses(raw.agents.addresses),
            web_listen,
            web_public_url: self.public_url(&raw.web.public_url),
            web_tls,
            mail: raw.mail.map(|mail| self.mail(mail)),
            watch: raw.watch.map(|watch| self.watch(watch)),
            releases: raw.releases.map(|releases| self.releases(releases)),
            silence_after: self.duration("tickets.silence_after", raw.tickets.silence_after.as_deref().unwrap_or("5min")),
            flap_window: self.duration("tickets.flap_window", raw.tickets.flap_window.as_deref().unwrap_or("15min")),
            close_recovered_after: self
                .duration("tickets.close_recovered_after", raw.tickets.close_recovered_after.as_deref().unwrap_or("3d")),
            log_json: self.log_json(raw.log.format.as_deref().unwrap_or("text")),
        }
    }

    fn service_name(&mut self, name: Option<String>) -> String {
        let name = name.unwrap_or_else(|| "Mainstay".to_owned());
        if name.trim().is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
            self.fault("service.name", &name, "1 to 60 characters on one line");
        }
        name
    }

    fn language(&mut self, code: &str) -> Language {
        Language::from_code(code).unwrap_or_else(|| {
            self.fault("service.language", code, "\"zh\" or \"en\"");
            Language::Zh
        })
    }

    fn database(&mut self, url: Option<String>, data_dir: &Path) -> String {
        let url = url.unwrap_or_else(|| format!("sqlite:{}", data_dir.join("collector.db").display()));
        let postgres = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        if let Some(rest) = postgres {
            let authority = rest.split('/').next().unwrap_or_default();
            if authority.split_once('@').is_some_and(|(user, _)| user.contains(':')) || url.contains("password=") {
                self.faults.push(format!(
                    "{}: database.url holds a password: expected none; put it into a .pgpass file of the service's user (PGPASSFILE)",
                    self.file
                ));
            }
        } else if url.strip_prefix("sqlite:").is_none_or(|path| path.is_empty() || path.contains('?')) {
            self.fault("database.url", &url, "\"sqlite:PATH\" or \"postgres://USER@HOST/NAME\"");
        }
        url
    }

    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.fault(key, text, "an IP address and port such as \"0.0.0.0:8443\" or \"[::]:8443\"");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn agents_addresses(&mut self, addresses: Vec<String>) -> Vec<String> {
        const ACCEPTED: &str = "\"https://HOST\" or \"https://HOST:PORT\" without a path, as the appliances reach this collector";
        if addresses.is_empty() {
            self.fault("agents.addresses", "[]", ACCEPTED);
        }
        for address in &addresses {
            let good = reqwest::Url::parse(address).is_ok_and(|url| {
                url.scheme() == "https"
                    && url.has_host()
                    && url.path() == "/"
                    && url.username().is_empty()
                    && url.query().is_none()
            });
            if !good {
                self.fault("agents.addresses", address, ACCEPTED);
            }
        }
        addresses.into_iter().map(|address| address.trim_end_matches('/').to_owned()).collect()
    }

    fn public_url(&mut self, text: &str) -> String {
        let url = reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none_or(|url| url.path() != "/" || url.query().is_some() || !url.username().is_empty()) {
            self.fault("web.public_url", text, "the console's address without a path, such as \"https://support.example.com\"");
        }
        text.trim_end_matches('/').to_owned()
    }

    fn web_tls(&mut self, certificate: Option<PathBuf>, key: Option<PathBuf>, listen: SocketAddr) -> Option<WebTls> {
        match (certificate, key) {
            (Some(certificate_file), Some(key_file)) => Some(WebTls { certificate_file, key_file }),
            (None, None) => {
                if !listen.ip().is_loopback() {
                    self.fault(
                        "web.listen",
                        &listen.to_string(),
                        "a loopback address (behind a proxy that does TLS), or web.certificate_file and web.key_file beside it",
                    );
                }
                None
            }
            (Some(file), None) | (None, Some(file)) => {
                self.fault("web.certificate_file, web.key_file", &file.display().to_string(), "both or neither");
                None
            }
        }
    }

    fn mail(&mut self, raw: RawMail) -> MailConfig {
        let security = match raw.security.as_deref().unwrap_or("starttls") {
            "tls" => MailSecurity::Tls,
            "starttls" => MailSecurity::StartTls,
            "none" => MailSecurity::None,
            other => {
                self.fault("mail.security", other, "\"tls\", \"starttls\" or \"none\" (a loopback server only)");
                MailSecurity::StartTls
            }
        };
        if security == MailSecurity::None && !is_loopback(&raw.server) {
            self.fault("mail.server", &raw.server, "a loopback address, because mail.security is \"none\"");
        }
        if raw.server.is_empty() || raw.server.contains(char::is_whitespace) {
            self.fault("mail.server", &raw.server, "a host name or IP address");
        }
        if raw.username.is_some() != raw.password_file.is_some() {
            self.fault("mail.username, mail.password_file", raw.username.as_deref().unwrap_or(""), "both or neither");
        }
        if raw.from.parse::<lettre::message::Mailbox>().is_err() {
            self.fault("mail.from", &raw.from, "an address such as \"Support <support@example.com>\"");
        }
        let port = raw.port.unwrap_or(match security {
            MailSecurity::Tls => 465,
            MailSecurity::StartTls => 587,
            MailSecurity::None => 25,
        });
        MailConfig {
            server: raw.server,
            port,
            security,
            ca_file: raw.ca_file,
            username: raw.username,
            password_file: raw.password_file,
            from: raw.from,
        }
    }

    fn watch(&mut self, raw: RawWatch) -> WatchConfig {
        if !reqwest::Url::parse(&raw.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            // The address may carry a token in its path.
            self.faults.push(format!("{}: watch.url: expected an http:// or https:// address", self.file));
        }
        WatchConfig { url: raw.url, interval: self.duration("watch.interval", raw.interval.as_deref().unwrap_or("1min")) }
    }

    fn duration(&mut self, key: &str, text: &str) -> Duration {
        duration(text).unwrap_or_else(|| {
            self.fault(key, text, "a time such as \"90s\", \"15min\", \"24h\" or \"3d\"");
            Duration::from_secs(60)
        })
    }

    fn log_json(&mut self, format: &str) -> bool {
        if !matches!(format, "text" | "json") {
            self.fault("log.format", format, "\"text\" or \"json\"");
        }
        format == "json"
    }
}

/// A time as people write it: a whole number above zero with `s`, `min`, `h` or `d`, at most ten years.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok().filter(|number| *number > 0)?;
    let unit_s = match &text[digits..] {
        "s" => 1,
        "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(unit_s).filter(|seconds| *seconds <= 3_660 * 86_400).map(Duration::from_secs)
}

fn is_loopback(server: &str) -> bool {
    server == "localhost" || server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
