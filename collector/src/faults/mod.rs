//! Faults: reports become episodes, one row each; business services stand in groups that span appliances. Types.
//!
//! An episode's id is that of its raise record, so the same record by two ways is one row (R32). Nothing here knows of tickets'
//! rules or of severity.

use mainstay_shared::fault::Level;
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
    /// By the collector's clock: receipt minus age.
    pub(crate) raised_at: UnixMs,
    pub(crate) received_at: UnixMs,
    pub(crate) cleared_at: Option<UnixMs>,
}

/// What the collector itself finds about the link to an appliance.
pub(crate) const COMPONENT_LINK: &str = "link";
/// No request for longer than `silence_after`, and no goodbye that explains it.
pub(crate) const CODE_SILENT: &str = "silent";
/// All of a site's several appliances are silent.
pub(crate) const CODE_SITE_SILENT: &str = "site_silent";
/// More than a fifth of unrelated customers fell silent at once: it is probably us.
pub(crate) const CODE_MASS_SILENCE: &str = "mass_silence";
