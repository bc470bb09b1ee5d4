//! The executor: runs one step that the helper has journalled, and tells how it ended. `mainstay-agent executor`, a child of the helper
//! or a unit of its own behind a socket that root alone can open.
//!
//! One JSON line in, one out. Fixed arguments, cleared environment, own process group, time limit, the end of the output kept. When the
//! helper is gone (its end of the line closes), the step is killed. It must never run what anybody but root asked for, nor a shell (R10).

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::redact::redact;

/// What is kept of the output, from its end.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// How long output may still come after the program ended.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    /// Absolute path and arguments.
    pub(super) argv: Vec<String>,
    /// Its working folder.
    pub(super) dir: PathBuf,
    pub(super) timeout_s: u32,
    /// What it starts may go on when it has ended (the start of a service).
    pub(super) leaves_children: bool,
    /// Uid and group; none: as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<(u32, u32)>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    /// It never ran: not found, not executable.
    NotStarted(String),
    /// The executor was lost: it may have run.
    Lost(String),
}

/// The end and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Redacted.
    pub(super) output: String,
}

impl Ended {
    /// What went wrong, for a person; none if nothing did.
    pub(super) fn trouble(&self, what: &str) -> Option<String> {
        match &self.end {
            End::Exited(0) => None,
            End::Exited(code) => Some(format!("{what}: ended with code {code}")),
            End::Signalled(signal) => Some(format!("{what}: ended by signal {signal}")),
            End::TimedOut => Some(format!("{what}: killed at its time limit")),
            End::NotStarted(why) => Some(format!("{what}: could not be started: {why}")),
            End::Lost(why) => Some(format!("{what}: the executor was lost: {why}")),
        }
    }
}

/// What runs steps: the executor, or a test's double.
pub(super) trait Runner: Send + Sync {
    fn run(&self, step: &Step) -> Ended;
}

/// The executor, as a child of this process or behind its own unit's socket.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) socket: Option<PathBuf>,
}

impl Runner for Executor {
    fn run(&self, step: &Step) -> Ended {
        let lost = |error: anyhow::Error| Ended { end: End::Lost(format!("{error:#}")), output: String::new() };
        match &self.socket {
            Some(path) => UnixStream::connect(path)
                .with_context(|| path.display().to_string())
                .and_then(|stream| exchange(step, &stream, &stream))
                .unwrap_or_else(lost),
            None => self.by_child(step).unwrap_or_else(lost),
        }
    }
}

impl Executor {
    fn by_child(&self, step: &Step) -> anyhow::Result<Ended> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("executor").env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the executor can't be started")?;
        let (stdin, stdout) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
        let ended = exchange(step, stdin.as_fd().try_clone_to_owned().map(std::fs::File::from)?, stdout);
        // Its end of the line stays open until the answer is there: closing it kills the step.
        drop(stdin);
        child.wait()?;
        ended
    }
}

fn exchange(step: &Step, mut to: impl Write, from: impl Read) -> anyhow::Result<Ended> {
    let mut line = serde_json::to_vec(step)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()?;
    let mut answer = String::new();
    BufReader::new(from.take(1 << 20)).read_line(&mut answer)?;
    ensure!(!answer.is_empty(), "it ended without an answer");
    Ok(serde_json::from_str(&answer)?)
}

/// `mainstay-agent executor`: reads one step from standard input (a pipe, or the unit's socket), runs it, answers on standard output.
///
/// # Errors
/// When whoever asks is not root, or the line is no step.
pub(crate) fn serve() -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the executor runs as root only");
    if let Ok(peer) = rustix::net::sockopt::socket_peercred(std::io::stdin()) {
        ensure!(peer.uid.is_root(), "the executor takes steps from root only");
    }
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    (&mut input).take(1 << 20).read_line(&mut line)?;
    let step: Step = serde_json::from_str(&line).context("expected one step as JSON")?;
    let running: Running = Arc::default();
    let seen = Arc::clone(&running);
    std::thread::spawn(move || {
        // The helper keeps its end open until it has the answer: an end here means that it is gone.
        drop(std::io::copy(&mut input, &mut std::io::sink()));
        kill(&seen);
        std::process::exit(1);
    });
    let mut answer = serde_json::to_vec(&run(&step, &running))?;
    answer.push(b'\n');
    std::io::stdout().write_all(&answer)?;
    Ok(std::io::stdout().flush()?)
}

type Running = Arc<Mutex<Option<Pid>>>;

fn kill(running: &Running) {
    if let Some(group) = *running.lock().unwrap_or_else(PoisonError::into_inner) {
        // Gone already is as good as killed.
        kill_process_group(group, Signal::KILL).ok();
    }
}

fn run(step: &Step, running: &Running) -> Ended {
    match start(step) {
        Err(error) => Ended { end: End::NotStarted(error.to_string()), output: String::new() },
        Ok((child, output)) => follow(child, output, step, running),
    }
}

fn start(step: &Step) -> std::io::Result<(Child, std::io::PipeReader)> {
    let Some((program, arguments)) = step.argv.split_first().filter(|(program, _)| program.starts_with('/')) else {
        return Err(std::io::Error::other("expected an absolute path"));
    };
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir(&step.dir);
    if let Some((uid, group)) = step.user {
        command.uid(uid).gid(group);
    }
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    Ok((command.spawn()?, reader))
}

fn follow(mut child: Child, mut output: std::io::PipeReader, step: &Step, running: &Running) -> Ended {
    *running.lock().unwrap_or_else(PoisonError::into_inner) = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let tail: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (all_read, read_to_end) = mpsc::channel();
    let filled = Arc::clone(&tail);
    std::thread::spawn(move || {
        let mut buffer = [0u8; 8192];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            let mut tail = filled.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(&buffer[..count]);
            let excess = tail.len().saturating_sub(MAX_OUTPUT_BYTES);
            tail.drain(..excess);
        }
        all_read.send(()).ok();
    });
    let (ended, waiting) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()).ok());
    let end = match waiting.recv_timeout(Duration::from_secs(step.timeout_s.into())) {
        Ok(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signalled(signal.unwrap_or(0)),
        },
        Ok(Err(error)) => End::Lost(error.to_string()),
        Err(_) => {
            kill(running);
            End::TimedOut
        }
    };
    if !step.leaves_children {
        kill(running);
    }
    // It is over: what a service's start has left in its group must outlive the helper's goodbye.
    *running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    read_to_end.recv_timeout(AFTERWARDS).ok();
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    Ended { end, output: redact(&String::from_utf8_lossy(&tail)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(script: &str, timeout_s: u32) -> Step {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Step { argv, dir: "/".into(), timeout_s, leaves_children: false, user: None }
    }

    #[test]
    fn a_step_ends_as_it_ends_and_its_output_is_redacted() {
        let table = [
            ("a good one", step("echo done", 10), End::Exited(0), "done"),
            ("a bad one", step("echo no >&2; exit 3", 10), End::Exited(3), "no"),
            ("a crash", step("kill -SEGV $$", 10), End::Signalled(11), ""),
            ("a hanging one", step("echo began; sleep 100", 1), End::TimedOut, "began"),
            ("one that tells a secret", step("echo password=x", 10), End::Exited(0), "password=[hidden]"),
            ("one that sees an environment", step("env | grep -c -v -E '^(PATH|LC_ALL|PWD|SHLVL|_)='", 10), End::Exited(1), "0"),
        ];
        for (what, step, end, output) in table {
            assert_eq!(run(&step, &Arc::default()), Ended { end, output: output.into() }, "{what}");
        }
    }

    #[test]
    fn a_program_without_its_path_is_not_started() {
        let step = Step { argv: vec!["sh".into()], ..step("", 1) };
        assert!(matches!(run(&step, &Arc::default()).end, End::NotStarted(_)));
    }
}
