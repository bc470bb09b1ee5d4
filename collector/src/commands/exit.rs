//! Exit codes of the commands, after sysexits(3), and the failure that carries one.
//!
//! A command says which code its failure has; what says none is internal (70). Documented in docs/collector.md.

use std::process::ExitCode;

use crate::config::BadConfig;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 64: wrong usage or settings.
    Config,
    /// 65: the data given are wrong: a damaged backup, a broken chain of events, an unknown customer.
    Data,
    /// 69: the database or another service can't be reached.
    Unavailable,
    /// 70: a fault of the program or the machine.
    Internal,
    /// 73: it exists already.
    Exists,
    /// 77: refused by a rule.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Config => 64,
            Exit::Data => 65,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Exists => 73,
            Exit::Refused => 77,
        })
    }
}

/// A failure that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(cause))]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) cause: anyhow::Error,
}

impl Failure {
    /// A failure told by `message`.
    pub(crate) fn because(exit: Exit, message: impl std::fmt::Display) -> anyhow::Error {
        Self::caused(exit, anyhow::anyhow!("{message}"))
    }

    /// A failure told by its cause.
    pub(crate) fn caused(exit: Exit, cause: anyhow::Error) -> anyhow::Error {
        anyhow::Error::new(Self { exit, cause })
    }
}

/// The code of an error.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    if error.downcast_ref::<BadConfig>().is_some() {
        return Exit::Config;
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    let database = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>());
    match database {
        Some(sqlx::Error::Database(refused)) if refused.is_unique_violation() => Exit::Exists,
        Some(sqlx::Error::Database(refused)) if refused.is_foreign_key_violation() => Exit::Data,
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => Exit::Unavailable,
        _ => Exit::Internal,
    }
}

/// An error and its causes on one line; a cause that the text before already tells is not repeated.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line = format!("{line}{separator}{text}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_under_context_and_tells_each_cause_once() {
        let error = Failure::caused(Exit::Data, anyhow::anyhow!("cut short").context("reading: cut short").context("restoring"));
        assert_eq!(of(&error.context("run")), Exit::Data);
        assert_eq!(
            told(&anyhow::anyhow!("cut short").context("reading: cut short").context("restoring")),
            "restoring: reading: cut short"
        );
        assert_eq!(of(&anyhow::anyhow!("?")), Exit::Internal);
    }
}
