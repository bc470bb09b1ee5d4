//! What the collector asks of an agent. A directive carries no authority: nothing in it changes the appliance (TRUST, the one idea).

use serde::{Deserialize, Serialize};

use crate::time_source::UnixMs;

/// A wish of the collector's, learnt through the long poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The same directive delivered twice is acted on once.
    pub id: String,
    /// What is asked.
    pub ask: Ask,
    /// After this moment it is void.
    pub expires_at: UnixMs,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ask {
    /// Measure and report now rather than at the next period.
    ReportNow,
    /// Renew the certificate now (a new issuing CA, a new root).
    RenewCertificate,
    /// Something a newer collector asks; an older agent ignores it.
    #[serde(other)]
    Unknown,
}
