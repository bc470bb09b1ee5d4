//! Runs a program to its end or to its time limit: fixed arguments, cleared environment, bounded output, a process group of its own.
//!
//! When the limit passes, the whole group is killed, with whatever the program started; so too when nobody waits any more.
//! Starting may hang (a program on a dead mount), so it is done aside. It must never involve a shell (R10).

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use crate::probes::aside::{Aside, AsideError};

/// What is kept of the standard output; the rest is read and dropped.
const MAX_STDOUT_BYTES: usize = 64 << 10;
/// What is kept of the standard error.
const MAX_STDERR_BYTES: usize = 4 << 10;
/// How long output may still come after the program ended: a child of its own may hold the pipe.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// How long a killed program may take to be gone.
const DYING: Duration = Duration::from_secs(2);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// It was killed at the limit.
    TimedOut,
}

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) end: End,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    /// Not found, not executable, no process to be had.
    #[error("{0}: {1}")]
    Start(String, io::Error),
    /// Starting it hangs.
    #[error(transparent)]
    Hangs(#[from] AsideError),
}

/// Runs `argv`; `object` is what hangs if starting it hangs.
pub(crate) async fn run(argv: &[String], limit: Duration, aside: &Aside, object: &str) -> Result<Output, NotRun> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(NotRun::Start(String::new(), io::ErrorKind::InvalidInput.into()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let runtime = Handle::current();
    let started = aside.run(object, limit, move || {
        let _inside = runtime.enter();
        command.spawn()
    });
    let child = started.await?.map_err(|error| NotRun::Start(program.clone(), error))?;
    Ok(follow(child, limit).await)
}

async fn follow(mut child: Child, limit: Duration) -> Output {
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let end = {
        let reading = async { tokio::join!(keep(out, MAX_STDOUT_BYTES, &mut stdout), keep(err, MAX_STDERR_BYTES, &mut stderr)) };
        tokio::pin!(reading);
        let mut all_read = false;
        let waiting = async {
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    _ = &mut reading, if !all_read => all_read = true,
                }
            }
        };
        let ended = tokio::time::timeout(limit, waiting).await;
        let end = match ended {
            Ok(Ok(status)) => end(status),
            Ok(Err(_)) | Err(_) => {
                group.kill();
                drop(tokio::time::timeout(DYING, child.wait()).await);
                End::TimedOut
            }
        };
        // A pipe still open after the end is held by what the program left behind in its group.
        if !all_read && tokio::time::timeout(AFTERWARDS, &mut reading).await.is_err() {
            group.kill();
        }
        end
    };
    group.0 = None;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { end, stdout: text(stdout), stderr: text(stderr) }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or(0)),
    }
}

/// Reads to the end and keeps the first `max` bytes.
async fn keep(from: Option<impl AsyncRead + Unpin>, max: usize, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0u8; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..count.min(max.saturating_sub(into.len()))]);
    }
}

/// The process group of a running program; killed when dropped, so that a cancelled check leaves nothing behind.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            // Gone already is as good as killed.
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
