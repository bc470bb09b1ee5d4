//! Exit codes, after sysexits(3), and the failure that carries one; documented in docs/release.md.

use std::process::ExitCode;

/// How a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 64: wrong usage or settings.
    Config = 64,
    /// 65: a file is damaged, or not what it must be.
    Data = 65,
    /// 70: a fault of the program or the machine.
    Internal = 70,
    /// 73: it exists already.
    Exists = 73,
    /// 77: refused by a rule: too few signatures, a wrong passphrase, an answer of "no".
    Refused = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    /// A failure told by `message`.
    pub(crate) fn because(exit: Exit, message: impl std::fmt::Display) -> anyhow::Error {
        Self { exit, message: message.to_string() }.into()
    }

    /// The exit code of any failure.
    pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
        error.downcast_ref::<Self>().map_or(Exit::Internal, |failure| failure.exit)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
