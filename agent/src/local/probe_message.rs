//! `test`: a marked message through the running agent to the collector and back, shown with its verified receipt.
//!
//! The agent sends it and verifies the receipt; this only asks and prints. Without a receipt in time it says so, and that the
//! message waits: it must never claim a delivery. With `--no-wait` it tells that the message is accepted, that is synced to
//! this box's disk, and asks no further.

use std::io::ErrorKind;
use std::path::Path;

use super::words::pick;
use super::{Exit, Failure, Output, say, say_json, socket};

/// Sends a test message; `no_wait`: only until it is accepted.
///
/// # Errors
/// [`Exit::Unavailable`] when no agent runs or the disk did not take the message, [`Exit::TryLater`] when no receipt came in
/// time: the message waits in the spool.
pub(crate) async fn test(state_dir: &Path, note: String, no_wait: bool, output: Output) -> Result<(), Failure> {
    let answer = socket::ask_test(state_dir, note, no_wait).await.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Failure::new(Exit::NotAllowed, anyhow::anyhow!("run as root or as the agent's user")),
        ErrorKind::Other => Failure::new(Exit::Unavailable, anyhow::Error::new(error).context("not accepted")),
        _ => Failure::new(Exit::Unavailable, anyhow::Error::new(error).context("the agent does not run or does not answer")),
    })?;
    if output.json {
        say_json(&answer)?;
    }
    if no_wait {
        if !output.json {
            say(format_args!("{} {}", pick(output.lang, "测试消息", "test message"), answer.mark));
            say(format_args!(
                "{} {}",
                pick(output.lang, "已写盘接受，记录", "accepted, synced to the disk, as record"),
                answer.record
            ));
        }
        return Ok(());
    }
    let Some((receipt, received_at)) = &answer.receipt else {
        let why = answer.trouble.unwrap_or_else(|| "the collector has not answered yet".into());
        let error = anyhow::anyhow!("test message {}: accepted, no receipt yet ({why}); it waits in the spool", answer.mark);
        return Err(Failure::new(Exit::TryLater, error));
    };
    if !output.json {
        say(format_args!("{} {}", pick(output.lang, "测试消息", "test message"), answer.mark));
        say(format_args!("{} {}", pick(output.lang, "记录", "record"), answer.record));
        say(format_args!("{} {received_at}", pick(output.lang, "服务中心收到时间", "received by the collector at")));
        say(format_args!("{} {}", pick(output.lang, "回执签名（已验证）", "receipt signature (verified)"), receipt.signature));
    }
    Ok(())
}
