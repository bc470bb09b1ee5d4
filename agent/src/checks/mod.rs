//! Asks the business services whether they answer: one file per kind of check, each a question with a time limit.
//!
//! A check never judges severity and never changes what it asks. Refused and timed out are `down`; what can't be found out is
//! `unknown`, never `up`. To add a kind, write its file, its settings in `config::services`, and one line in [`Checker::ask`].

mod command;
mod resolve;
mod http;
mod tcp;
mod process;
mod unit;
mod plugin;
mod schedule;

use std::path::PathBuf;

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::time_source::TimeSource;

pub(crate) use plugin::parse as read_plugin_output;
pub use schedule::{Retries, ServiceRound};
pub(crate) use schedule::{keep_asking, look};

use crate::config::{Check, CheckKind};
use crate::probes::ClockReference;
use crate::probes::aside::{Aside, Workers};

/// What one try found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    state: ServiceState,
    /// A stable word, listed in docs/agent-configuration.md.
    reason: &'static str,
    /// For a person; untrusted.
    text: String,
    /// As a plugin printed them; untrusted.
    perf_data: String,
}

impl Found {
    fn new(state: ServiceState, reason: &'static str, text: impl Into<String>) -> Self {
        Self { state, reason, text: text.into(), perf_data: String::new() }
    }

    fn up(text: impl Into<String>) -> Self {
        Self::new(ServiceState::Up, "ok", text)
    }

    fn down(reason: &'static str, text: impl Into<String>) -> Self {
        Self::new(ServiceState::Down, reason, text)
    }

    fn timeout(limit: std::time::Duration) -> Self {
        Self::down("timeout", format!("no answer within {limit:?}"))
    }

    /// The question could not be asked.
    fn cannot_run(text: impl Into<String>) -> Self {
        Self::new(ServiceState::Unknown, "cannot_run", text)
    }
}

/// What checks need of their surroundings.
#[derive(Debug)]
pub(crate) struct Checker {
    /// The machine's clocks.
    pub(crate) time: TimeSource,
    /// Threads for what may hang.
    pub(crate) aside: Aside,
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// The collector's clock, by which certificates are judged.
    pub(crate) clock: ClockReference,
    /// Trusted certificates, read when first needed.
    pub(crate) trust: http::Trust,
}

impl Checker {
    /// A checker of this machine's services, on the threads of `workers`.
    pub(crate) fn here(time: TimeSource, clock: ClockReference, workers: Workers) -> Self {
        Self { time, clock, aside: Aside::on(workers), proc: PathBuf::from("/proc"), trust: http::Trust::default() }
    }

    /// Asks once. `service` and the check's name only tell hanging questions apart.
    pub(crate) async fn ask(&self, service: &str, check: &Check, attempt: u8) -> CheckResult {
        let object = format!("check:{service}/{}", check.name);
        let began = self.time.monotonic();
        let found = match &check.kind {
            CheckKind::Http(http) => http::ask(self, http, &object, check.timeout).await,
            CheckKind::Tcp(tcp) => tcp::ask(self, tcp, &object, check.timeout).await,
            CheckKind::Process(process) => process::ask(self, process, &object, check.timeout).await,
            CheckKind::Unit(unit) => unit::ask(self, unit, &object, check.timeout).await,
            CheckKind::Plugin(argv) => plugin::ask(self, argv, &object, check.timeout).await,
        };
        let took = self.time.monotonic().saturating_sub(began);
        CheckResult {
            check: check.name.clone(),
            kind: check.kind.as_str().to_owned(),
            state: found.state,
            reason: found.reason.to_owned(),
            text: clean_text(found.text.trim_end(), MAX_TEXT_CHARS),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            attempt,
            at: self.time.now(),
            perf_data: clean_text(&found.perf_data, MAX_TEXT_CHARS),
        }
    }
}

#[cfg(test)]
mod tests;
