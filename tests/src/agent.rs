//! An agent as the customer's administrator knows it: enrolled with a join string, run, asked for its status, killed, given
//! another clock, put back to an older snapshot. Everything goes through its command line and its state folder as a whole.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mainstay_shared::enrolment::JoinString;
use mainstay_shared::ids::RecordId;
use mainstay_shared::record::Record;
use serde_json::Value;
use tempfile::TempDir;

use crate::injection::Injection;
use crate::machine_clock::MachineClock;
use crate::patience::{A_WHILE, SOON, eventually};
use crate::process::{Daemon, Output, program, run, tied, tied_as_number};

/// What no agent of a story turns into faults: this machine, whose load is the tests' own doing.
const MACHINE: &[&str] = &["cpu", "load", "memory", "swap", "pressure", "disk", "disk_io", "network", "temperature", "clock"];

/// An enrolled agent with its own configuration and state.
#[derive(Debug)]
pub struct Agent {
    daemon: Option<Daemon>,
    clock: Option<MachineClock>,
    snapshots: u32,
    uid: Option<u32>,
    state: PathBuf,
    folder: TempDir,
}

impl Agent {
    /// Writes its configuration and enrols it. `services` is TOML: `[[service]]` tables and what else the story wants.
    ///
    /// # Errors
    /// When the enrolment is refused.
    pub async fn enrolled(join: &JoinString, services: &str) -> Result<Self> {
        let agent = Self::fresh(services)?;
        agent.enrol(join).await?.good().context("enroll")?;
        Ok(agent)
    }

    /// Enrolled and running.
    ///
    /// # Errors
    /// As [`Agent::enrolled`], or when it does not start.
    pub async fn running(join: &JoinString, services: &str) -> Result<Self> {
        let mut agent = Self::enrolled(join, services).await?;
        agent.start()?;
        Ok(agent)
    }

    /// Configured, not enrolled.
    ///
    /// # Errors
    /// When its files can't be written.
    pub fn fresh(services: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-agent-").tempdir()?;
        let state = folder.path().join("state");
        Self::with_state(folder, state, services)
    }

    /// Configured, not enrolled, with its state on another disk.
    ///
    /// # Errors
    /// When its files can't be written.
    pub fn fresh_on(disk: &Path, services: &str) -> Result<Self> {
        Self::with_state(tempfile::Builder::new().prefix("mainstay-agent-").tempdir()?, disk.join("state"), services)
    }

    fn with_state(folder: TempDir, state: PathBuf, services: &str) -> Result<Self> {
        let agent = Self { daemon: None, clock: None, snapshots: 0, uid: None, state, folder };
        std::fs::create_dir(agent.path("agent.d"))?;
        std::fs::write(agent.path("agent.toml"), format!("[agent]\nstate_dir = {:?}\n", agent.state_dir()))?;
        let quiet: String = MACHINE.iter().map(|part| format!("[probes.{part}]\nenabled = false\n")).collect();
        std::fs::write(agent.path("agent.d/10-quiet.toml"), quiet)?;
        agent.configure(services)?;
        Ok(agent)
    }

    /// Lives as a user without rights from now on, as packages install it. Only root can say so.
    ///
    /// # Errors
    /// When its folder can't be given away.
    pub fn live_as(&mut self, uid: u32) -> Result<()> {
        give(self.folder.path(), uid)?;
        self.uid = Some(uid);
        Ok(())
    }

    /// Runs one of its commands as root, as the administrator on the box does.
    ///
    /// # Errors
    /// When it can't be run; a refusal is an [`Output`].
    pub async fn as_root(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tied(program("mainstay-agent")?);
        command.arg("--config").arg(self.path("agent.toml")).args(arguments).env("LANG", "en_US.UTF-8");
        run(command, "", A_WHILE).await
    }

    /// Replaces what the story declares; it counts from the next start.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure(&self, services: &str) -> Result<()> {
        Ok(std::fs::write(self.path("agent.d/50-services.toml"), services)?)
    }

    /// `enroll` with this join string on standard input.
    ///
    /// # Errors
    /// When it can't be run; a refusal is an [`Output`].
    pub async fn enrol(&self, join: &JoinString) -> Result<Output> {
        run(self.program(&["enroll"])?, &join.to_secret_text(), A_WHILE).await
    }

    /// Gives it a wall clock of its own, from the next start on.
    pub fn live_by(&mut self, clock: MachineClock) -> &MachineClock {
        self.clock.insert(clock)
    }

    /// The clock that it lives by.
    ///
    /// # Errors
    /// When it has none of its own.
    pub fn clock(&self) -> Result<&MachineClock> {
        self.clock.as_ref().context("a clock of its own")
    }

    /// Starts `run`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start("mainstay-agent run", self.program(&["run"])?, &self.path("agent.log"))?);
        Ok(())
    }

    /// `enroll` with `injection` in its first thread.
    ///
    /// # Errors
    /// As [`Agent::enrol`].
    pub async fn enrol_under(&self, join: &JoinString, injection: &Injection) -> Result<Output> {
        let mut command = injection.around(&program("mainstay-agent")?, &self.path("calls.log"));
        command.arg("--config").arg(self.path("agent.toml")).arg("enroll").current_dir(self.folder.path());
        run(command, &join.to_secret_text(), A_WHILE).await
    }

    /// Starts `run` with `injection` in its first thread.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_under(&mut self, injection: &Injection) -> Result<()> {
        let mut command = injection.around(&program("mainstay-agent")?, &self.path("calls.log"));
        command.arg("--config").arg(self.path("agent.toml")).arg("run").current_dir(self.folder.path());
        self.daemon = Some(Daemon::start("mainstay-agent run under strace", command, &self.path("agent.log"))?);
        Ok(())
    }

    /// Waits until it runs and answers; an error when it ends instead.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn answers(&mut self) -> Result<()> {
        eventually("the agent to answer", A_WHILE, async || {
            if self.process()?.ended()?.is_some() {
                return Ok(Some(false));
            }
            Ok((self.status().await?["running"] == true).then_some(true))
        })
        .await?
        .then_some(())
        .context("the agent ended instead of answering")
    }

    /// Has it accept a message with this note: `None` when it does not (or is gone), else the record's id, told after the sync.
    ///
    /// # Errors
    /// When the command can't be run or prints something else.
    pub async fn accept(&self, note: &str) -> Result<Option<RecordId>> {
        let told = self.command(&["test", "--no-wait", "--json", "--note", note]).await?;
        if told.code != 0 {
            return Ok(None);
        }
        let answer: Value = serde_json::from_str(&told.stdout).with_context(|| format!("test --no-wait: {told:?}"))?;
        Ok(Some(serde_json::from_value(answer["record"].clone())?))
    }

    /// `spool dump`: what waits, in the order of sending.
    ///
    /// # Errors
    /// When the spool can't be read.
    pub async fn waiting(&self) -> Result<Vec<Record>> {
        let printed = self.command(&["spool", "dump"]).await?.good().context("spool dump")?;
        printed.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The running process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("the agent runs")
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the agent runs")?.kill()
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end, or not cleanly.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.daemon.take().context("the agent runs")?.terminate(Duration::from_secs(60)).await?;
        anyhow::ensure!(status.success(), "the agent ended with {status}:\n{}", self.log_text());
        Ok(())
    }

    /// Runs one of its commands.
    ///
    /// # Errors
    /// When it can't be run or takes too long; a refusal is an [`Output`].
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        run(self.program(arguments)?, "", SOON).await
    }

    /// `status --json`.
    ///
    /// # Errors
    /// When it prints no JSON.
    pub async fn status(&self) -> Result<Value> {
        let printed = self.command(&["status", "--json"]).await?;
        serde_json::from_str(&printed.stdout).with_context(|| format!("status: {printed:?}"))
    }

    /// Waits until it knows `service` to be `state` (`up`, `degraded`, `down`, `unknown`).
    ///
    /// # Errors
    /// When it does not come to know.
    pub async fn sees(&self, service: &str, state: &str) -> Result<()> {
        eventually(&format!("the agent to see {service} {state}"), A_WHILE, async || {
            Ok((self.status().await?["services"][service]["state"] == state).then_some(()))
        })
        .await
    }

    /// Copies its state folder, as a snapshot of the machine would hold it.
    ///
    /// # Errors
    /// When it can't be copied.
    pub fn snapshot(&mut self) -> Result<PathBuf> {
        self.snapshots += 1;
        let copy = self.path(&format!("snapshot-{}", self.snapshots));
        copy_folder(&self.state_dir(), &copy)?;
        Ok(copy)
    }

    /// Puts a snapshot back in place of its state. The agent must not run.
    ///
    /// # Errors
    /// When it runs, or the folders can't be changed.
    pub fn restore(&mut self, snapshot: &Path) -> Result<()> {
        if self.daemon.is_some() {
            bail!("a running machine is not restored from a snapshot: stop the agent first");
        }
        std::fs::remove_dir_all(self.state_dir())?;
        copy_folder(snapshot, &self.state_dir())
    }

    /// Where its spool and identity stand.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    /// What it logged in all its lives.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// A file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = match self.uid {
            Some(uid) => tied_as_number(uid, program("mainstay-agent")?),
            None => tied(program("mainstay-agent")?),
        };
        command.arg("--config").arg(self.path("agent.toml")).args(arguments).current_dir(self.folder.path());
        command.env("LANG", "en_US.UTF-8");
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        Ok(command)
    }
}

fn give(path: &Path, uid: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

/// A `[[service]]` table with one HTTP check of `url`, asked every second.
#[must_use]
pub fn http_service(name: &str, url: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\ntitle = \"核心业务 {name}\"\ninterval = \"1s\"\nretry_after = \"200ms\"\nflap_window = \"0s\"\n\n\
         [[service.check]]\nname = \"page\"\nkind = \"http\"\nurl = \"{url}\"\ntimeout = \"5s\"\n\n"
    )
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if !copied.success() {
        bail!("copying {} to {}", from.display(), to.display());
    }
    Ok(())
}
