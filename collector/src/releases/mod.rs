//! Releases: the repository of signed files, what is offered to whom, what the boxes say became of it, the links in mails.
//!
//! The vendor's side of patches: it carries and shows, and has no authority over any appliance (TRUST, the one idea). `rules` and `life`
//! decide, `place` is where release engineers publish (a folder or a bucket), `repository` and `standing` believe what verifies there, `online`
//! signs snapshot and timestamp, the stores keep.

use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_shared::patch::{PatchKind, PatchStep};
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

pub(crate) mod life;
pub(crate) mod rules;
pub(crate) mod range;
pub(crate) mod place;
pub(crate) mod unread;
pub(crate) mod problems;
pub(crate) mod repository;
pub(crate) mod standing;
pub(crate) mod sending;
pub(crate) mod online;
pub(crate) mod files;
pub(crate) mod offers;
pub(crate) mod reports;
pub(crate) mod links;

/// The component that a patch's fault is about: one a product.
pub(crate) fn component_of(product: &str) -> String {
    format!("patch:{product}")
}

/// The fault of a patch that went back by itself.
pub(crate) const CODE_ROLLED_BACK: &str = "patch_rolled_back";
/// The fault of a patch that could be neither finished nor undone.
pub(crate) const CODE_FAILED: &str = "patch_failed";

/// How a file of the repository stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileState {
    /// Verified: it can be offered.
    Good,
    /// It did not verify; see the refusal.
    Refused,
    /// The vendor took it back by a signed withdrawal.
    Withdrawn,
    /// It lies there no more.
    Gone,
}

impl FileState {
    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Gone => "gone",
        }
    }

    fn from_name(name: &str) -> Self {
        [Self::Good, Self::Withdrawn, Self::Gone].into_iter().find(|state| state.as_str() == name).unwrap_or(Self::Refused)
    }
}

/// A file of the repository as this service has read it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReleaseFile {
    /// `acme-gateway-2.1.0.mpatch`.
    pub(crate) file: String,
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    /// The mark of what was read: length, time of change, in a bucket its tag.
    pub(crate) mark: String,
    /// What the manifest says; of a refused file nothing.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) manifest_sha256: String,
    pub(crate) state: FileState,
    /// Why it is refused: for the release engineer.
    pub(crate) refusal: String,
    /// When its signatures end.
    pub(crate) expires_at: UnixMs,
}

impl ReleaseFile {
    /// What kind of file it is; a refused one counts as a patch.
    pub(crate) fn kind(&self) -> PatchKind {
        self.manifest.as_ref().map_or(PatchKind::Patch, Manifest::kind)
    }

    /// The patch in it, if it is one.
    pub(crate) fn patch(&self) -> Option<&mainstay_patchkit::manifest::Patch> {
        match self.manifest.as_ref().map(|manifest| &manifest.body) {
            Some(Body::Patch(patch)) => Some(patch),
            _ => None,
        }
    }
}

/// An offer as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OfferRow {
    pub(crate) tenant_id: String,
    pub(crate) offer_id: String,
    pub(crate) batch_id: String,
    pub(crate) appliance_id: String,
    pub(crate) file: String,
    pub(crate) sha256: String,
    pub(crate) bytes: i64,
    #[serde(serialize_with = "kind_text")]
    pub(crate) kind: PatchKind,
    pub(crate) product: String,
    pub(crate) version: String,
    /// The ticket that it was made from, or nothing.
    pub(crate) ticket_id: String,
    /// `entitlements::Terms`.
    pub(crate) terms: String,
    pub(crate) state: life::OfferState,
    pub(crate) percent: i64,
    /// A code of the box's, or nothing.
    pub(crate) reason: String,
    /// The box's words: untrusted text.
    pub(crate) detail: String,
    #[serde(skip)]
    pub(crate) number: i64,
    /// `approve` or `refuse`, as typed at a link; the box decides.
    pub(crate) decision: String,
    pub(crate) decided_at: Option<UnixMs>,
    pub(crate) made_by: String,
    pub(crate) made_at: UnixMs,
    pub(crate) changed_at: UnixMs,
    pub(crate) expires_at: UnixMs,
    pub(crate) ended_at: Option<UnixMs>,
}

fn kind_text<S: serde::Serializer>(kind: &PatchKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind_name(*kind))
}

/// The name of a kind in the database, in the API and in text keys: as on the wire.
pub(crate) fn kind_name(kind: PatchKind) -> &'static str {
    match kind {
        PatchKind::Patch => "patch",
        PatchKind::Action => "action",
        PatchKind::Policy => "policy",
        PatchKind::Profile => "profile",
        PatchKind::Licence => "licence",
        PatchKind::Withdrawal => "withdrawal",
        PatchKind::SupportKey => "support_key",
    }
}

/// The kind of that name.
pub(crate) fn kind_from_name(name: &str) -> PatchKind {
    use PatchKind::{Action, Licence, Patch, Policy, Profile, SupportKey, Withdrawal};
    [Action, Policy, Profile, Licence, Withdrawal, SupportKey].into_iter().find(|kind| kind_name(*kind) == name).unwrap_or(Patch)
}

/// The name of a step: as on the wire.
pub(crate) fn step_name(step: PatchStep) -> &'static str {
    match step {
        PatchStep::Fetching => "fetching",
        PatchStep::AwaitingConsent => "awaiting_consent",
        PatchStep::AwaitingWindow => "awaiting_window",
        PatchStep::Applying => "applying",
        PatchStep::Probation => "probation",
        PatchStep::Done => "done",
        PatchStep::RolledBack => "rolled_back",
        PatchStep::Refused => "refused",
        PatchStep::Failed => "failed",
        PatchStep::Unknown => "unknown",
    }
}

/// All steps.
pub(crate) const STEPS: [PatchStep; 10] = [
    PatchStep::Fetching,
    PatchStep::AwaitingConsent,
    PatchStep::AwaitingWindow,
    PatchStep::Applying,
    PatchStep::Probation,
    PatchStep::Done,
    PatchStep::RolledBack,
    PatchStep::Refused,
    PatchStep::Failed,
    PatchStep::Unknown,
];
