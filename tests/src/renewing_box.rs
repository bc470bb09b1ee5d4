//! An appliance whose agent lies as the packages lay it (`releases/`, `current`, `proven`), so that a signed file can update it: the reporter
//! without rights under two small scripts, the helper as root from `proven`, no systemd.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mainstay_patchkit::archive::pack;
use mainstay_patchkit::manifest::{Body, Health, Manifest};
use mainstay_patchkit::sample::agent_patch;
use mainstay_shared::enrolment::JoinString;
use semver::Version;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::patience::{A_WHILE, SOON, eventually};
use crate::process::{Daemon, Output, program, run, tied};

/// The user that the reporter lives as.
const REPORTER: u32 = 64_002;
/// The release that the box is shipped with.
pub const SHIPPED: &str = "0.1.0-shipped0";

/// How a new agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewAgent {
    /// As the old one: the same program with other bytes behind its end.
    Good,
    /// It is fit by its own word and ends at once when it runs.
    EndsAtOnce,
    /// It runs and says nothing.
    Silent,
    /// It serves, but speaks to a port where nobody listens.
    CutOff,
}

/// Who starts the helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Somebody by hand, once: the helper makes its own socket.
    Nobody,
    /// A service manager: it holds the socket and starts a helper, from `proven`, whenever none runs.
    Sockets,
}

/// The helper of one or the other.
#[derive(Debug)]
enum Helper {
    Alone(Daemon),
    Managed { child: Arc<Mutex<Option<Child>>>, goes_on: Arc<AtomicBool> },
}

/// The appliance.
#[derive(Debug)]
pub struct RenewingBox {
    /// Its reporter's settings, state and commands. It is started and stopped by the box's scripts.
    pub agent: Agent,
    helper: Option<Helper>,
    folder: TempDir,
}

impl RenewingBox {
    /// Set up with the agent 0.1.0 and a product 2.0.0, enrolled, both running; patches need no consent.
    ///
    /// # Errors
    /// Without root, or when a program does not start.
    pub async fn running(join: &JoinString, root: &[u8], manager: Manager) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "stories of patches need root: the helper changes the machine");
        let folder = tempfile::Builder::new().prefix("mainstay-renewing-").tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("product/releases/2.0.0-shipped0"))?;
        symlink("releases/2.0.0-shipped0", path("product/current"))?;
        let shipped = path("agent/releases").join(SHIPPED);
        std::fs::create_dir_all(&shipped)?;
        small_agent(&shipped.join("mainstay-agent"))?;
        for link in ["current", "proven"] {
            symlink(format!("releases/{SHIPPED}"), path("agent").join(link))?;
        }
        std::fs::write(path("root.json"), root)?;
        let socket = path("helper.sock");
        let patches = format!("[patches]\nhelper_socket = {socket:?}\nroot = {:?}\n", path("root.json"));
        let web = "[[service]]\nname = \"web\"\ninterval = \"1s\"\n[[service.check]]\nname = \"answers\"\nkind = \"plugin\"\ncommand = [\"/bin/true\"]\n";
        let mut agent = Agent::fresh(&format!("{patches}{web}"))?;
        // A configuration for the version that is cut off.
        let dead = format!("[agent]\nstate_dir = {:?}\n[collector]\naddresses = [\"127.0.0.1:1\"]\n", agent.state_dir());
        std::fs::write(agent.path("dead.toml"), dead)?;
        agent.live_as(REPORTER)?;
        let mut this = Self { agent, helper: None, folder };
        this.write_scripts()?;
        std::fs::write(this.path("helper.toml"), this.helper_settings())?;
        this.agent.enrol(join).await?.good().context("enroll")?;
        this.start_helper(manager).await?;
        this.script("start")?;
        Ok(this)
    }

    fn script(&self, name: &str) -> Result<()> {
        ensure!(Command::new(self.path(name)).status()?.success(), "the reporter: {name}");
        Ok(())
    }

    /// Stops the reporter and starts what is current.
    ///
    /// # Errors
    /// When it can't be.
    pub fn restart_reporter(&self) -> Result<()> {
        self.script("stop")?;
        self.script("start")
    }

    fn helper_settings(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "product = \"acme-gateway\"\nhardware = \"gw-2000\"\nserial = \"GW-1\"\nversion = \"2.0.0\"\nroot = {:?}\nstate_dir = {:?}\n\
             tree = {:?}\nsocket = {:?}\nreporter = \"{REPORTER}\"\n[consent]\npatch = \"automatic\"\n\
             [agent]\ntree = {:?}\nstop = [{:?}]\nstart = [{:?}]\nconfig = {:?}\n",
            path("root.json"),
            path("helper"),
            path("product"),
            path("helper.sock"),
            path("agent"),
            path("stop"),
            path("start"),
            self.agent.path("agent.toml"),
        )
    }

    /// What a service manager does: start what is not running, stop and wait.
    fn write_scripts(&self) -> Result<()> {
        let (top, log) = (self.folder.path().display(), self.agent.path("agent.log"));
        let (config, dead) = (self.agent.path("agent.toml"), self.agent.path("dead.toml"));
        let (config, dead, log) = (config.display(), dead.display(), log.display());
        let start = format!(
            "#!/bin/sh\nif [ -f {top}/pid ] && readlink \"/proc/$(cat {top}/pid)/exe\" >/dev/null; then exit 0; fi\n\
             release=$(basename \"$(readlink {top}/agent/current)\")\nconfig={config}\n\
             if [ -f \"{top}/cut-off-${{release%-*}}\" ]; then config={dead}; fi\ncd {top}\n\
             setsid setpriv --reuid={REPORTER} --regid={REPORTER} --clear-groups {top}/agent/current/mainstay-agent \\\n  \
             --config \"$config\" run >>{log} 2>&1 </dev/null &\necho $! >{top}/pid\n"
        );
        let stop = format!(
            "#!/bin/sh\n[ -f {top}/pid ] || exit 0\npid=$(cat {top}/pid)\nkill -TERM \"$pid\" 2>/dev/null\n\
             for i in $(seq 150); do readlink \"/proc/$pid/exe\" >/dev/null || break; sleep 0.1; done\n\
             kill -KILL \"$pid\" 2>/dev/null\nrm -f {top}/pid\n"
        );
        for (name, text) in [("start", start), ("stop", stop)] {
            std::fs::write(self.path(name), text)?;
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Starts the helper from `proven` and waits for it.
    async fn start_helper(&mut self, manager: Manager) -> Result<()> {
        let command = helper_command(self.folder.path());
        self.helper = Some(match manager {
            Manager::Nobody => Helper::Alone(Daemon::start("mainstay-agent helper", command, &self.path("helper.log"))?),
            Manager::Sockets => self.manage()?,
        });
        let socket = self.path("helper.sock");
        eventually("the helper to listen", SOON, async || Ok(UnixStream::connect(&socket).is_ok().then_some(())))
            .await
            .with_context(|| self.logs())
    }

    /// What systemd does with the units of the helper, as far as it matters here.
    fn manage(&self) -> Result<Helper> {
        let listener = UnixListener::bind(self.path("helper.sock"))?;
        std::fs::set_permissions(self.path("helper.sock"), std::fs::Permissions::from_mode(0o666))?;
        let (child, goes_on) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(true)));
        let (managed, still, folder) = (Arc::clone(&child), Arc::clone(&goes_on), self.folder.path().to_owned());
        std::thread::spawn(move || {
            while still.load(Ordering::SeqCst) {
                let mut child: MutexGuard<'_, Option<Child>> = managed.lock().unwrap_or_else(PoisonError::into_inner);
                if child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
                    *child = activated(&folder, &listener).ok();
                }
                drop(child);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Helper::Managed { child, goes_on })
    }

    /// SIGKILL. A manager starts the next one.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_helper(&mut self) -> Result<()> {
        match self.helper.as_mut().context("the helper runs")? {
            Helper::Alone(daemon) => daemon.kill(),
            Helper::Managed { child, .. } => {
                let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(child.as_mut().context("the helper runs")?.kill()?)
            }
        }
    }

    /// The release that the helper runs.
    ///
    /// # Errors
    /// When it does not run.
    pub fn helper_runs(&self) -> Result<String> {
        let none = "the helper runs";
        let pid = match self.helper.as_ref().context(none)? {
            Helper::Alone(daemon) => daemon.pid(),
            Helper::Managed { child, .. } => child.lock().unwrap_or_else(PoisonError::into_inner).as_ref().context(none)?.id(),
        };
        release_of(pid)
    }

    /// The release that the reporter runs.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reporter_runs(&self) -> Result<String> {
        release_of(std::fs::read_to_string(self.path("pid"))?.trim().parse()?)
    }

    /// The releases that `current` and `proven` point to.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn links(&self) -> Result<[String; 2]> {
        let target = |link: &str| {
            let target = std::fs::read_link(self.path("agent").join(link))?;
            anyhow::Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned())
        };
        Ok([target("current")?, target("proven")?])
    }

    /// A new agent: its manifest, its payload, its release's name.
    ///
    /// # Errors
    /// When it can't be packed.
    pub fn agent_of(&self, version: &str, behaves: NewAgent, deadline_s: u32) -> Result<(Manifest, Vec<u8>, String)> {
        let folder = tempfile::tempdir()?;
        let new = folder.path().join("mainstay-agent");
        let script = |run: &str| format!("#!/bin/sh\n# {version}\ncase \"$*\" in *--check*) exit 0;; esac\n{run}\n").into_bytes();
        let bytes = match behaves {
            NewAgent::Good | NewAgent::CutOff => {
                let mut bytes = std::fs::read(self.path("agent/releases").join(SHIPPED).join("mainstay-agent"))?;
                bytes.extend_from_slice(version.as_bytes());
                bytes
            }
            NewAgent::EndsAtOnce => script("exit 3"),
            NewAgent::Silent => script("exec sleep 100000"),
        };
        if behaves == NewAgent::CutOff {
            std::fs::write(self.path(&format!("cut-off-{version}")), "")?;
        }
        std::fs::write(&new, bytes)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
        let mut payload = Vec::new();
        let packed = pack(folder.path(), 1, &mut payload)?;
        let mut manifest = agent_patch(Version::parse(version)?, &packed);
        if let Body::Patch(patch) = &mut manifest.body {
            patch.health = Health { consecutive_ok: 2, deadline_s };
        }
        let release = format!("{version}-{}", &packed.tree_sha256[..8]);
        Ok((manifest, payload, release))
    }

    /// A path in the box's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of root's on the box, by the agent that is proven.
    ///
    /// # Errors
    /// When it can't be run; a refusal is an [`Output`].
    pub async fn administrator(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tied(self.path("agent/proven/mainstay-agent"));
        command.arg("--config").arg(self.agent.path("agent.toml")).arg("--helper-config").arg(self.path("helper.toml"));
        command.args(arguments).env("LANG", "en_US.UTF-8");
        run(command, "", A_WHILE).await
    }

    /// What waits or runs (`list`), or is over (`history`).
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn files(&self, which: &str) -> Result<Vec<Value>> {
        let listed = self.administrator(&["patch", which, "--json"]).await?.good()?;
        serde_json::from_str(&listed.stdout).context(listed.stdout)
    }

    /// What reporter and helper logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let helper = std::fs::read_to_string(self.path("helper.log")).unwrap_or_default();
        format!("agent:\n{}\nhelper:\n{helper}", self.agent.log_text())
    }
}

impl Drop for RenewingBox {
    fn drop(&mut self) {
        if let Some(Helper::Managed { goes_on, .. }) = &self.helper {
            goes_on.store(false, Ordering::SeqCst);
        }
        drop(self.kill_helper());
        drop(self.script("stop"));
    }
}

fn helper_command(folder: &Path) -> Command {
    let mut command = tied(folder.join("agent/proven/mainstay-agent"));
    command.arg("--helper-config").arg(folder.join("helper.toml")).arg("helper");
    command
}

/// A helper with the listening socket on its standard input.
fn activated(folder: &Path, listener: &UnixListener) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("helper.log"))?;
    let socket = OwnedFd::from(listener.try_clone()?);
    Ok(helper_command(folder).stdin(socket).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// The agent of this build without what only a debugger reads: it is packed, copied and verified again and again.
fn small_agent(to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(program("mainstay-agent")?).status().context("strip")?;
    ensure!(stripped.success(), "strip ended with {stripped}");
    Ok(std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?)
}

fn release_of(pid: u32) -> Result<String> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    let release = exe.parent().and_then(Path::file_name).context("a release's folder")?;
    Ok(release.to_string_lossy().into_owned())
}
