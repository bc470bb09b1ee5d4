//! Patches and actions on the wire: what is offered to an appliance, what a person decided, what the appliance says became of it.
//!
//! Nothing here carries authority (TRUST, the one idea): an offer names a file, the appliance alone judges it. What the file says is
//! the `patchkit` crate's; this module never reads one.

use serde::{Deserialize, Serialize};

/// What kind of signed file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchKind {
    /// Takes the product from versions to a version.
    Patch,
    /// Runs once: restart a service, rotate logs, check again.
    Action,
    /// Limits on directives and evidence.
    Policy,
    /// The services and checks that a product has by nature.
    Profile,
    /// The features that a customer has bought.
    Licence,
    /// Files that must not be applied any more.
    Withdrawal,
    /// The key that evidence is encrypted to.
    SupportKey,
}

/// What reports and listings name as the product where the agent itself is what a patch updates: its versions are the agent's own. No
/// product of a vendor's is called so.
pub const AGENT: &str = "mainstay-agent";

/// A signed file offered to one appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Names this offer to this appliance, in directives, records, links: 32 hex digits.
    pub offer_id: String,
    /// Patch or action. Under a name of its own on the wire: the directive around it has a `kind` already.
    #[serde(rename = "file_kind")]
    pub kind: PatchKind,
    /// Name of the file in the repository, e.g. `acme-gateway-2.1.0.mpatch`.
    pub file: String,
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// Length of the whole file, bytes.
    pub bytes: u64,
    /// Its product.
    pub product: String,
    /// The version that it leads to, or the action's own version.
    pub version: String,
}

/// What a person decided at the page of an e-mail link, carried with the code that they typed. The code is judged on the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Apply it in the install window.
    Approve,
    /// Don't, because.
    Refuse {
        /// In the customer's words.
        reason: String,
    },
}

/// Where a signed file stands on an appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchStep {
    /// Its bytes are being fetched.
    Fetching,
    /// Verified; waits for consent.
    AwaitingConsent,
    /// Consented; waits for the install window.
    AwaitingWindow,
    /// Being staged and put in place.
    Applying,
    /// In place; the business services are being asked.
    Probation,
    /// Done: what runs is what was signed.
    Done,
    /// The new version did not serve; the old one runs again.
    RolledBack,
    /// Refused before anything was changed; see the reason.
    Refused,
    /// It could not be finished, nor undone: a person must look.
    Failed,
    /// An action whose end was not seen: it may have run and is not repeated.
    Unknown,
}

impl PatchStep {
    /// Whether nothing more will be heard of it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Refused | Self::Failed | Self::Unknown)
    }
}

/// What an appliance says of a signed file: a record of the fault lane for each step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchReport {
    /// Numbered by the box's journal, growing: the same number twice is the same report.
    pub number: u64,
    /// The offer that brought it; none if it came by a stick or a file.
    pub offer_id: Option<String>,
    /// SHA-256 of the whole file, hex.
    pub sha256: String,
    /// Patch or action.
    pub kind: PatchKind,
    /// Its product; [`AGENT`] where it updates the agent itself.
    pub product: String,
    /// What ran before; none where nothing was known.
    pub from_version: Option<String>,
    /// Where it leads.
    pub to_version: String,
    /// Where it stands.
    pub step: PatchStep,
    /// Why: the code of a refusal or of a rollback (`expired`, `unhealthy`, `refused_by_customer`, ...), empty for steps that went well.
    pub reason: String,
    /// The reason for a person; redacted, at most [`crate::limits::MAX_TEXT_CHARS`].
    pub detail: String,
    /// The end of its scripts' output; redacted, at most [`MAX_OUTPUT_CHARS`].
    pub output: String,
}

/// Characters of script output that a record carries.
pub const MAX_OUTPUT_CHARS: usize = 16_384;

/// A product on an appliance, and the say that its customer has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The product.
    pub product: String,
    /// Its version that runs.
    pub version: String,
    /// The appliance's model, as the vendor names it.
    pub hardware: String,
    /// `local` or `automatic`, for patches.
    pub patch_consent: String,
    /// `local` or `automatic`, for actions.
    pub action_consent: String,
}

/// A file on its way or being applied, for the progress on the page; in the heartbeat, not spooled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchProgress {
    /// Its offer.
    pub offer_id: String,
    /// Where it stands.
    pub step: PatchStep,
    /// 0 to 100 within the step.
    pub percent: u8,
}
