//! The story of a planned stop: why it happens, and the record that says so. Without it the collector would hear only silence.
//!
//! systemd is asked whether the machine goes down; where it can't say, the reason is `stop`. The answer is waited for briefly,
//! since nothing may hold up a shutdown.

use std::time::Duration;

use mainstay_shared::record::{Goodbye, Payload};
use mainstay_shared::time_source::UnixMs;

use crate::spool::{Spool, SpoolError};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A reboot is expected to be over after this.
const REBOOT_TAKES: Duration = Duration::from_secs(600);

/// Says goodbye; the record is durable on return, delivering it is the report loop's.
///
/// # Errors
/// When the spool does not accept it.
pub(crate) async fn say(spool: &Spool, now: UnixMs) -> Result<(), SpoolError> {
    let reason = reason_of(&pending_jobs().await);
    let expected_return_at = (reason == "reboot").then(|| now.plus(REBOOT_TAKES));
    tracing::info!(reason, "stopping");
    spool.push(Payload::Goodbye(Goodbye { reason: reason.into(), expected_return_at })).await.map(drop)
}

/// The goodbye of a run that ends only to begin a new epoch.
///
/// # Errors
/// When the spool does not accept it.
pub(crate) async fn say_back_at_once(spool: &Spool, now: UnixMs) -> Result<(), SpoolError> {
    let expected_return_at = Some(now.plus(Duration::from_secs(60)));
    spool.push(Payload::Goodbye(Goodbye { reason: "stop".into(), expected_return_at })).await.map(drop)
}

/// The reason for a stop, from the jobs that systemd has queued.
fn reason_of(jobs: &str) -> &'static str {
    let queued = |target: &str| jobs.split_whitespace().any(|word| word == target);
    if queued("reboot.target") || queued("kexec.target") || queued("soft-reboot.target") {
        "reboot"
    } else if queued("poweroff.target") || queued("halt.target") {
        "shutdown"
    } else {
        "stop"
    }
}

async fn pending_jobs() -> String {
    let mut systemctl = tokio::process::Command::new("systemctl");
    systemctl
        .args(["list-jobs", "--no-legend", "--no-pager", "--plain"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .kill_on_drop(true);
    systemctl.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    match tokio::time::timeout(ASK_TIMEOUT, systemctl.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_read_from_the_queued_jobs() {
        let table = [
            ("", "stop"),
            ("87 mainstay-agent.service stop running", "stop"),
            ("120 reboot.target start waiting\n87 mainstay-agent.service stop running", "reboot"),
            ("120 poweroff.target start waiting", "shutdown"),
        ];
        for (jobs, reason) in table {
            assert_eq!(reason_of(jobs), reason, "{jobs}");
        }
    }
}
