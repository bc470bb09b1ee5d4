//! A running program met at its system calls: strace attached to all its threads, killing it at the Kth call of a kind or making
//! calls fail, until it is let go. Needs strace and the right to trace.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mainstay_shared::time_source::TimeSource;

use crate::patience::{SOON, eventually};
use crate::process::tied;

/// What is done to the program while this lives.
#[derive(Debug)]
pub struct Interception {
    strace: Child,
}

impl Interception {
    /// SIGKILL when a thread of `pid` enters its `nth` call of `syscall` from now on.
    ///
    /// # Errors
    /// When strace can't be attached.
    pub async fn killing(pid: u32, syscall: &str, nth: u64) -> Result<Self> {
        Self::attach(pid, syscall, &format!("inject={syscall}:signal=SIGKILL:when={nth}")).await
    }

    /// Every call of `syscall` fails with `error` (`EIO`, `ENOSPC`, `EROFS`).
    ///
    /// # Errors
    /// When strace can't be attached.
    pub async fn failing(pid: u32, syscall: &str, error: &str) -> Result<Self> {
        Self::attach(pid, syscall, &format!("inject={syscall}:error={error}")).await
    }

    async fn attach(pid: u32, syscall: &str, expression: &str) -> Result<Self> {
        let mut command: Command = tied("strace");
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={syscall}"),
            "-e",
            expression,
            "-p",
            &pid.to_string(),
        ]);
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("strace")?;
        let mut this = Self { strace };
        eventually("strace to hold every thread", SOON, async || {
            anyhow::ensure!(this.strace.try_wait()?.is_none() || !is_there(pid), "strace ended (may this user trace?)");
            Ok((!is_there(pid) || threads_are_traced(pid)).then_some(()))
        })
        .await?;
        Ok(this)
    }

    /// Lets the program go on untouched; returns when it is free.
    ///
    /// # Errors
    /// When strace can't be ended.
    pub fn end(mut self) -> Result<()> {
        self.release().context("ending strace")
    }

    fn release(&mut self) -> Result<()> {
        if self.strace.try_wait()?.is_none() {
            let pid = i32::try_from(self.strace.id()).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
            // TERM, not KILL: it then takes its breakpoints with it.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let time = TimeSource::system();
        while self.strace.try_wait()?.is_none() {
            if time.monotonic() > LETS_GO_WITHIN {
                // It may wait for ever for a thread of a program that it has killed, whose end nobody is told of meanwhile.
                self.strace.kill()?;
                self.strace.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Interception {
    fn drop(&mut self) {
        self.release().ok();
    }
}

/// The longest that strace needs to let go.
const LETS_GO_WITHIN: Duration = Duration::from_secs(5);

/// The longest that one interception is worth waiting for.
pub const WITHIN: Duration = Duration::from_secs(20);

fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn threads_are_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}
