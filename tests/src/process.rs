//! Child processes of a test: long-running ones that die with the test, and short commands with a time limit.
//! Nothing started here may outlive its owner, not even when the test itself is killed.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mainstay_shared::time_source::TimeSource;

use crate::patience::eventually;

/// Where the programs under test lie: beside the test's own build, or in `MAINSTAY_BIN_DIR`.
///
/// # Errors
/// Names the missing program and how to build it.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("MAINSTAY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let exe = std::env::current_exe().context("where this test lies")?;
            let up = exe.parent().and_then(Path::parent).context("the test's build folder")?;
            if exe.parent().is_some_and(|p| p.ends_with("deps")) { up.to_owned() } else { exe.with_file_name("") }
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is not built: run `cargo build --workspace` (or `make test`)", path.display());
    }
    Ok(path)
}

/// A command for `program` that the kernel kills when the thread that started it ends.
#[must_use]
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// [`tied`], run as `user` when the test runs as root (servers that refuse to be root).
#[must_use]
pub fn tied_as(user: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--init-groups");
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// [`tied`], run as a user without a name. Needs root.
#[must_use]
pub fn tied_as_number(uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg("--clear-groups");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running child whose output goes to a log file; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` under a `name` for messages, its output appended to `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("log file {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its end, if it has ended.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking for the end of {}", self.name))
    }

    /// An error with the end of the log when it has ended by itself.
    ///
    /// # Errors
    /// Names the exit status and the last lines of the log.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        bail!("{} ended by itself ({status}):\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"))
    }

    /// SIGKILL, as a power cut would end it; returns when it is gone.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// SIGTERM, then waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        let name = self.name.clone();
        eventually(&format!("the end of {name} after SIGTERM"), limit, async || self.ended()).await
    }

    /// Sends it a signal (STOP and CONT make it hang and go on).
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        send(self.pid(), signal).with_context(|| self.name.clone())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Stops process `pid` (SIGSTOP) and waits until no thread of it is inside a call of the kernel any more.
///
/// # Errors
/// When it is gone or a call does not come back.
pub async fn freeze(pid: u32) -> Result<()> {
    send(pid, rustix::process::Signal::STOP)?;
    let tasks = format!("/proc/{pid}/task");
    eventually(&format!("process {pid} to stand still"), Duration::from_secs(30), async || {
        for task in std::fs::read_dir(&tasks)? {
            let stat = std::fs::read_to_string(task?.path().join("stat"))?;
            if !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

/// Sends process `pid` a signal.
///
/// # Errors
/// When it is gone.
pub fn send(pid: u32, signal: rustix::process::Signal) -> Result<()> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(process, signal).with_context(|| format!("signalling process {pid}"))
}

/// What a short command gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Output {
    /// Itself, if the command succeeded.
    ///
    /// # Errors
    /// Otherwise both its texts.
    pub fn good(self) -> Result<Self> {
        if self.code != 0 {
            bail!("exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs a short command with `stdin`, killed after `limit`.
///
/// # Errors
/// When it can't be started, read, or takes longer.
pub async fn run(mut command: Command, stdin: &str, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that does not read its input closes the pipe: no fault of the test's.
        pipe.write_all(stdin.as_bytes()).ok();
    }
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let clock = TimeSource::system();
    let (done, finished) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()).ok());
    match tokio::time::timeout(limit, finished).await {
        Ok(output) => {
            let output = output.context("the waiting thread")??;
            let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Output { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
        }
        Err(_) => {
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
            bail!("{shown} took longer than {:?}", clock.monotonic())
        }
    }
}
