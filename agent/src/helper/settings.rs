//! `helper.toml`: what this box is, where its product lies, what its customer has said about patches and actions. Root's own file.
//!
//! Read whole and checked whole before anything begins. It must never be taken from a file that others than root may write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use mainstay_patchkit::manifest::is_word;
use mainstay_shared::limits::is_good_name;
use mainstay_shared::patch::AGENT;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::window::{Windows, Written};

/// Where it lies unless `--helper-config` names another place.
pub(crate) const DEFAULT_PATH: &str = "/etc/mainstay/helper.toml";

/// Whose word it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Consent {
    /// A person with root on the box, or with the code that the box shows.
    #[default]
    Local,
    /// The signature alone.
    Automatic,
}

impl Consent {
    /// As on the wire.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Automatic => "automatic",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawConsent {
    patch: Consent,
    action: Consent,
}

/// How a business service is stopped and started here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// As in `agent.toml` and in manifests.
    pub(super) name: String,
    /// Absolute path and arguments; no shell.
    pub(super) stop: Vec<String>,
    /// Absolute path and arguments; no shell.
    pub(super) start: Vec<String>,
    /// A program below `tree` that must run from the new tree after the start.
    pub(super) running_exe: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPackages {
    root: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    tree: PathBuf,
    stop: Vec<String>,
    start: Vec<String>,
    #[serde(default)]
    config: Option<PathBuf>,
}

/// Where the agent itself lies, so that it can be updated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgentPlace {
    /// `releases/`, `current` (what the reporter runs), `proven` (what helper, executor and commands run).
    pub(super) tree: PathBuf,
    /// How the reporter is stopped and started; its name is [`AGENT`].
    pub(super) reporter: Service,
    /// The reporter's own settings.
    pub(super) config: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    product: String,
    hardware: String,
    #[serde(default)]
    serial: Option<String>,
    version: Version,
    root: PathBuf,
    state_dir: PathBuf,
    tree: PathBuf,
    socket: PathBuf,
    #[serde(default)]
    executor_socket: Option<PathBuf>,
    reporter: String,
    #[serde(default)]
    consent: RawConsent,
    #[serde(default)]
    install_window: Written,
    #[serde(default)]
    service: Vec<Service>,
    #[serde(default)]
    packages: RawPackages,
    #[serde(default)]
    agent: Option<RawAgent>,
}

/// The helper's settings, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where they were read.
    pub(super) path: PathBuf,
    pub(super) product: String,
    pub(super) hardware: String,
    pub(super) serial: String,
    /// What was shipped; the durable state knows better afterwards.
    pub(super) version: Version,
    /// The first trusted root.
    pub(super) root: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) tree: PathBuf,
    /// Where a command finds the helper.
    pub(crate) socket: PathBuf,
    /// The executor's own unit; none: a child.
    pub(super) executor_socket: Option<PathBuf>,
    /// The uid that may speak besides root.
    pub(super) reporter: u32,
    /// Its group.
    pub(super) reporter_group: u32,
    pub(super) patch_consent: Consent,
    pub(super) action_consent: Consent,
    pub(super) windows: Windows,
    pub(super) services: BTreeMap<String, Service>,
    /// None: the agent is not updated by signed files here.
    pub(super) agent: Option<AgentPlace>,
    /// Another root for dpkg; none: the machine's own.
    pub(super) packages_root: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Names the key, what it is and what is accepted.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path).with_context(|| format!("{}: this box is not set up for patches", path.display()))?;
        ensure!(found.mode() & 0o022 == 0, "{}: others than root may write it; expected 0644 or stricter", path.display());
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let read = Self::read(&text).with_context(|| path.display().to_string())?;
        Ok(Self { path: std::path::absolute(path)?, ..read })
    }

    /// The service of that name; the reporter's is [`AGENT`].
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        match &self.agent {
            Some(agent) if agent.reporter.name == name => Some(&agent.reporter),
            _ => self.services.get(name),
        }
    }

    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let raw: Raw = toml::from_str(text)?;
        ensure!(is_word(&raw.product), "product = {:?}: expected lower-case letters, digits, dots and dashes", raw.product);
        let paths = [("root", &raw.root), ("state_dir", &raw.state_dir), ("tree", &raw.tree), ("socket", &raw.socket)];
        for (key, path) in paths {
            ensure!(path.is_absolute(), "{key} = {path:?}: expected an absolute path");
        }
        let mut services = BTreeMap::new();
        for service in raw.service {
            check(&service, &raw.tree)?;
            ensure!(service.name != AGENT, "service {AGENT:?}: that is the agent itself: expected under [agent]");
            if let Some(twice) = services.insert(service.name.clone(), service) {
                bail!("service {:?}: named twice", twice.name);
            }
        }
        let agent = raw.agent.map(agent_place).transpose()?;
        if let Some(agent) = &agent {
            let apart = !agent.tree.starts_with(&raw.tree) && !raw.tree.starts_with(&agent.tree);
            ensure!(apart, "agent.tree = {:?}: expected another folder than tree = {:?}", agent.tree, raw.tree);
        }
        let (reporter, reporter_group) = user(&raw.reporter)?;
        Ok(Self {
            path: DEFAULT_PATH.into(),
            reporter,
            reporter_group,
            agent,
            windows: Windows::read(&raw.install_window)?,
            serial: raw.serial.unwrap_or_else(machine_serial),
            product: raw.product,
            hardware: raw.hardware,
            version: raw.version,
            root: raw.root,
            state_dir: raw.state_dir,
            tree: raw.tree,
            socket: raw.socket,
            executor_socket: raw.executor_socket,
            patch_consent: raw.consent.patch,
            action_consent: raw.consent.action,
            services,
            packages_root: raw.packages.root,
        })
    }
}

fn agent_place(raw: RawAgent) -> anyhow::Result<AgentPlace> {
    let config = raw.config.unwrap_or_else(|| crate::config::DEFAULT_PATH.into());
    for (key, path) in [("tree", &raw.tree), ("config", &config)] {
        ensure!(path.is_absolute(), "agent.{key} = {path:?}: expected an absolute path");
    }
    let reporter = Service { name: AGENT.to_owned(), stop: raw.stop, start: raw.start, running_exe: None };
    check(&reporter, &raw.tree)?;
    Ok(AgentPlace { tree: raw.tree, reporter, config })
}

fn check(service: &Service, tree: &Path) -> anyhow::Result<()> {
    ensure!(is_good_name(&service.name), "service.name = {:?}: expected 1 to 128 printable characters", service.name);
    for (key, argv) in [("stop", &service.stop), ("start", &service.start)] {
        let absolute = argv.first().is_some_and(|program| program.starts_with('/'));
        ensure!(absolute, "service {:?}: {key} = {argv:?}: expected an absolute path and arguments", service.name);
    }
    if let Some(exe) = &service.running_exe {
        let fits = exe.starts_with(tree.join("current"));
        ensure!(fits, "service {:?}: running_exe = {exe:?}: expected a path below {:?}", service.name, tree.join("current"));
    }
    Ok(())
}

/// Uid and group: a number as it is, a name by `/etc/passwd`.
fn user(user: &str) -> anyhow::Result<(u32, u32)> {
    if let Ok(uid) = user.parse() {
        return Ok((uid, uid));
    }
    let users = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    let found = users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        (*name == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?))).flatten()
    });
    found.with_context(|| format!("reporter = {user:?}: expected a user of this machine or a number"))
}

fn machine_serial() -> String {
    std::fs::read_to_string("/sys/class/dmi/id/product_serial").map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
product = "acme-gateway"
hardware = "gw-2000"
version = "2.0.0"
root = "/etc/mainstay/root.json"
state_dir = "/var/lib/mainstay-helper"
tree = "/opt/acme-gateway"
socket = "/run/mainstay/helper.sock"
reporter = "1234"
[install_window]
times = ["sat 02:00-05:00"]
[[service]]
name = "web"
stop = ["/usr/bin/systemctl", "stop", "acme-web"]
start = ["/usr/bin/systemctl", "start", "acme-web"]
running_exe = "/opt/acme-gateway/current/bin/web"
"#;

    const AGENT_TABLE: &str = "[agent]\ntree = \"/usr/lib/mainstay\"\nstop = [\"/bin/stop\"]\nstart = [\"/bin/start\"]\n";

    #[test]
    fn the_reporter_is_stopped_and_started_by_the_agents_own_table() {
        let settings = Settings::read(&format!("{GOOD}\n{AGENT_TABLE}")).unwrap();
        assert_eq!(settings.service(AGENT).unwrap().stop, ["/bin/stop"]);
        assert_eq!(settings.agent.unwrap().config, Path::new("/etc/mainstay/agent.toml"));
        assert_eq!(Settings::read(GOOD).unwrap().service(AGENT), None);
    }

    #[test]
    fn without_a_word_of_the_customers_consent_is_local() {
        let settings = Settings::read(GOOD).unwrap();
        assert_eq!((settings.patch_consent, settings.action_consent), (Consent::Local, Consent::Local));
        assert_eq!(settings.reporter, 1234);
    }

    #[test]
    fn the_shipped_example_is_good() {
        let shipped = include_str!("../../../packaging/agent/helper.toml").replace("\"mainstay\"", "\"1234\"");
        let settings = Settings::read(&shipped).unwrap();
        assert_eq!(settings.services.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("a relative tree", GOOD.replace("\"/opt/acme-gateway\"", "\"opt\""), "tree"),
            ("a program without its path", GOOD.replace("\"/usr/bin/systemctl\", \"stop\"", "\"systemctl\", \"stop\""), "stop"),
            ("an unknown key", format!("colour = 1\n{GOOD}"), "colour"),
            ("a user that is not there", GOOD.replace("\"1234\"", "\"no-such-user\""), "no-such-user"),
            ("a program outside the tree", GOOD.replace("/opt/acme-gateway/current/bin/web", "/bin/web"), "running_exe"),
            (
                "an agent inside the product's tree",
                format!("{GOOD}\n{AGENT_TABLE}").replace("/usr/lib/mainstay", "/opt/acme-gateway/agent"),
                "agent.tree",
            ),
            ("an agent without its stop", format!("{GOOD}\n{AGENT_TABLE}").replace("[\"/bin/stop\"]", "[]"), "stop"),
            ("the agent as a service", GOOD.replace("\"web\"", "\"mainstay-agent\""), "[agent]"),
            ("a consent that does not exist", format!("{GOOD}\n[consent]\npatch = \"yes\""), "patch"),
        ];
        for (what, text, named) in table {
            let error = format!("{:#}", Settings::read(&text).unwrap_err());
            assert!(error.contains(named), "{what}: {error}");
        }
    }
}
