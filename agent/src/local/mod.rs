//! What the customer may ask on the box: enrol, status, test, check the configuration, look at the spool.
//!
//! Commands talk to the running agent over a Unix socket in its state directory (0600), never over a network (R15). Texts are
//! in Chinese or English. Nothing here decides anything; nothing here prints a secret.

mod words;
mod socket;
mod status;
mod enroll;
mod probe_message;
mod reach;
mod spool_files;
mod link_progress;
mod link;
mod link_fetch;
mod patch;
mod patch_receipt;

use serde::{Deserialize, Serialize};

pub(crate) use enroll::enroll;
pub(crate) use link::{FETCH_LINK, leave_root};
pub(crate) use link_fetch::{LinkFetch, link_on_stdin, tell};
pub(crate) use patch::{PatchCommand, PatchOrder, patch};
pub(crate) use patch_receipt::patch_receipt;
pub(crate) use probe_message::test;
pub(crate) use reach::reach;
pub(crate) use socket::{Answering, answer_requests};
pub(crate) use spool_files::{SpoolCommand, spool};
pub(crate) use status::{Facts, status};
pub(crate) use words::{HELP, Lang, pick};

/// How a command failed, as the process's exit code (sysexits.h); 0 is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// A patch did not serve and was taken back; the version before runs.
    RolledBack = 10,
    /// A signed file was refused; nothing was changed.
    Refused = 11,
    /// It waits for a person's consent.
    NeedsConsent = 12,
    /// A patch or an action could not be finished, or its end was not seen: a person must look.
    NeedsPerson = 13,
    /// Wrong usage or configuration.
    Usage = 64,
    /// The input or a file is damaged.
    BadData = 65,
    /// The agent or the collector does not answer.
    Unavailable = 69,
    /// A fault of the program or the machine.
    Internal = 70,
    /// Not now: the same command may work later.
    TryLater = 75,
    /// Not allowed, or not enrolled.
    NotAllowed = 77,
}

impl Exit {
    /// What the code means; empty in English, where the error itself says it.
    pub(crate) fn headline(self, lang: Lang) -> &'static str {
        let zh = match self {
            Self::RolledBack => "已回退：",
            Self::Refused => "已拒绝：",
            Self::NeedsConsent => "等待同意：",
            Self::NeedsPerson => "需要人工处理：",
            Self::Usage => "用法或配置错误：",
            Self::BadData => "数据损坏：",
            Self::Unavailable => "无应答：",
            Self::Internal => "内部错误：",
            Self::TryLater => "请稍后再试：",
            Self::NotAllowed => "不允许或未登记：",
        };
        pick(lang, zh, "")
    }
}

/// A command's failure: what to print and with which code to end.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// The text, for standard error.
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Internal, error }
    }
}

impl From<crate::uplink::IdentityError> for Failure {
    fn from(error: crate::uplink::IdentityError) -> Self {
        let exit = match error {
            crate::uplink::IdentityError::Damaged { .. } => Exit::BadData,
            _ => Exit::NotAllowed,
        };
        Self { exit, error: error.into() }
    }
}

impl From<crate::spool::SpoolError> for Failure {
    fn from(error: crate::spool::SpoolError) -> Self {
        let exit = if matches!(error, crate::spool::SpoolError::InUse { .. }) { Exit::TryLater } else { Exit::Internal };
        Self { exit, error: error.into() }
    }
}

/// The global settings of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Print JSON rather than text.
    pub(crate) json: bool,
    /// In which language.
    pub(crate) lang: Lang,
}

/// Prints a line to standard output; a closed pipe is not our failure.
pub(crate) fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Prints `value` as JSON.
pub(crate) fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string_pretty(value)?);
    Ok(())
}
