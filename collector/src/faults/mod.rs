//! Faults: reports become episodes, one row each; business services stand in groups that span appliances. Types.
//!
//! An episode's id is that of its raise record, so the same record by two ways is one row (R32). Nothing here knows of tickets'
//! rules or of severity.

use mainstay_shared::fault::{FaultGrounds, Level};
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

pub(crate) mod groups;
pub(crate) mod rules;
pub(crate) mod store;
pub(crate) mod landscape;
pub(crate) mod silence;
pub(crate) mod links;

/// One run of a fault from raise to clear.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Episode {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) component: String,
    pub(crate) code: String,
    /// The id of the raise record; `collector:...` for what the collector found itself.
    pub(crate) episode: String,
    pub(crate) open: bool,
    pub(crate) level: Level,
    /// Untrusted text from the agent.
    pub(crate) summary: String,
    /// JSON of the `FaultGrounds` that the agent sent.
    pub(crate) grounds: String,
    pub(crate) ticket_id: String,
    /// When the condition began, by the collector's clock: receipt minus age, minus how long it had lasted.
    pub(crate) raised_at: UnixMs,
    pub(crate) received_at: UnixMs,
    pub(crate) cleared_at: Option<UnixMs>,
}

impl Episode {
    /// When the agent told of it: it began earlier by as long as it had lasted.
    pub(crate) fn told_at(&self) -> UnixMs {
        let seen: FaultGrounds = serde_json::from_str(&self.grounds).unwrap_or_default();
        self.raised_at.plus_ms(lasted_ms(&seen))
    }
}

/// How long a condition had lasted when it was told, at most [`LONGEST_LASTED_MS`].
pub(crate) fn lasted_ms(seen: &FaultGrounds) -> i64 {
    i64::try_from(seen.lasted_ms).unwrap_or(i64::MAX).min(LONGEST_LASTED_MS)
}

/// What an agent may say of the past: a year.
const LONGEST_LASTED_MS: i64 = 366 * 86_400_000;

/// What the collector itself finds about the link to an appliance.
pub(crate) const COMPONENT_LINK: &str = "link";
/// No request for longer than `silence_after`, and no goodbye that explains it.
pub(crate) const CODE_SILENT: &str = "silent";
/// All of a site's several appliances are silent.
pub(crate) const CODE_SITE_SILENT: &str = "site_silent";
/// More than a fifth of unrelated customers fell silent at once: it is probably us.
pub(crate) const CODE_MASS_SILENCE: &str = "mass_silence";
