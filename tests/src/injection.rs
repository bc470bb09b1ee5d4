//! Kills and disk errors at a chosen system call, by strace: around a start, or attached to one thread of a running process.
//! Only calls that touch the given paths are counted and hit, so that the dynamic loader or a log line is never taken for a
//! write of the queue.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::patience::{SOON, eventually};
use crate::process::{Daemon, tied};

/// What happens to which call.
#[derive(Debug, Clone)]
pub struct Injection {
    /// The call's name; several with commas.
    pub call: String,
    /// What strace calls tampering: `signal=SIGKILL`, `error=EIO`.
    pub tampering: String,
    /// Which of the calls, counted per thread from 1: `3`, `1..3`, `1+`.
    pub when: String,
    /// Calls that touch none of these are let pass.
    pub paths: Vec<PathBuf>,
}

impl Injection {
    /// SIGKILL before the `when`th such call.
    #[must_use]
    pub fn kill(call: &str, when: u32, paths: Vec<PathBuf>) -> Self {
        Self { call: call.into(), tampering: "signal=SIGKILL".into(), when: when.to_string(), paths }
    }

    /// The call fails with `error` instead.
    #[must_use]
    pub fn fail(call: &str, error: &str, when: &str, paths: Vec<PathBuf>) -> Self {
        Self { call: call.into(), tampering: format!("error={error}"), when: when.into(), paths }
    }

    fn apply(&self, strace: &mut Command) {
        strace.arg("-qq").arg("-e").arg(format!("trace={}", self.call));
        strace.arg("-e").arg(format!("inject={}:{}:when={}", self.call, self.tampering, self.when));
        for path in &self.paths {
            strace.arg("-P").arg(path);
        }
    }

    /// `program` with this injection in its first thread from its first call on, strace being no parent of it. The calls are
    /// listed in `list`.
    #[must_use]
    pub fn around(&self, program: &Path, list: &Path) -> Command {
        let mut command = tied("strace");
        self.apply(&mut command);
        command.arg("-D").arg("-o").arg(list).arg("--").arg(program);
        command
    }

    /// Attaches to the thread called `thread` of process `pid`; from the return on its calls are counted.
    ///
    /// # Errors
    /// When there is no such thread or strace can't attach.
    pub async fn attach(&self, pid: u32, thread: &str, folder: &Path) -> Result<Tracer> {
        let tid = thread_id(pid, thread)?;
        let mut command = tied("strace");
        self.apply(&mut command);
        command.arg("-o").arg(folder.join("calls.log")).arg("-p").arg(tid.to_string());
        let daemon = Daemon::start("strace", command, &folder.join("strace.log"))?;
        let mut tracer = Tracer { daemon };
        let status = format!("/proc/{pid}/task/{tid}/status");
        eventually("strace to be attached", SOON, async || {
            // It ends well when what it traces has ended: the injection has struck already.
            if tracer.daemon.ended()?.is_some_and(|end| end.success()) {
                return Ok(Some(()));
            }
            tracer.daemon.must_run()?;
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            Ok((!text.is_empty() && !text.contains("TracerPid:\t0\n")).then_some(()))
        })
        .await?;
        Ok(tracer)
    }
}

/// A running strace; what it traces goes on by itself when it is detached or dropped.
#[derive(Debug)]
pub struct Tracer {
    daemon: Daemon,
}

impl Tracer {
    /// Lets go of the traced thread.
    ///
    /// # Errors
    /// When strace does not end.
    pub async fn detach(mut self) -> Result<()> {
        if self.daemon.ended()?.is_none() {
            self.daemon.terminate(Duration::from_secs(30)).await?;
        }
        Ok(())
    }
}

fn thread_id(pid: u32, name: &str) -> Result<u32> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            let tid = path.file_name().and_then(|tid| tid.to_str()).context("a thread id")?;
            return Ok(tid.parse()?);
        }
    }
    anyhow::bail!("process {pid} has no thread {name:?}")
}
