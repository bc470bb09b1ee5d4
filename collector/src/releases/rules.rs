//! Whether a file may be offered to an appliance, and on what terms: pure. It gates the *offer* only; the box judges the file itself.

use mainstay_patchkit::manifest::Manifest;
use mainstay_shared::patch::{PatchKind, PatchStep};
use mainstay_shared::time_source::UnixMs;
use semver::Version;
use serde::Serialize;

use super::{FileState, ReleaseFile};
use crate::entitlements::rules::{Wanted, terms};
use crate::entitlements::{Entitlement, Terms, Withheld};

/// What is known of an appliance when a file is offered to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    /// In service, and not held as a copy.
    pub(crate) active: bool,
    /// The product of its join token.
    pub(crate) product: String,
    /// What runs, as the box said: product, version, model. None: it never said.
    pub(crate) installed: Option<(String, String, String)>,
    pub(crate) entitlement: Option<Entitlement>,
    /// The same file is on its way already.
    pub(crate) offered: bool,
    /// How this file ended here before.
    pub(crate) ended: Vec<PatchStep>,
    /// A critical ticket is open for it.
    pub(crate) critical_ticket: bool,
    /// Staff say that the customer ordered it.
    pub(crate) ordered: bool,
}

/// Why a file is not offered to an appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "not_offered", rename_all = "snake_case")]
pub(crate) enum NotOffered {
    /// No such appliance.
    #[error("there is no such appliance")]
    NoAppliance,
    /// Held, or out of service.
    #[error("the appliance is held or out of service")]
    NotInService,
    /// Not verified, withdrawn, or gone from the repository.
    #[error("the file is not good: {why}")]
    FileNotGood { why: String },
    /// Its signatures are past their date: every box would refuse it.
    #[error("the file's signatures have expired")]
    Expired,
    /// For another product.
    #[error("it is for {theirs}; the appliance is {ours}")]
    OtherProduct { theirs: String, ours: String },
    /// For other models.
    #[error("it is not for the model {model}")]
    OtherHardware { model: String },
    /// Not newer than what runs, or not from that version.
    #[error("it does not fit version {installed}, which runs")]
    OtherVersion { installed: String },
    /// On its way already.
    #[error("it is offered already")]
    AlreadyOffered,
    /// It failed or rolled back there.
    #[error("it failed or rolled back on this appliance before")]
    FailedBefore,
    /// It is charged, and nobody ordered it.
    #[error("out of warranty and service period: it is charged, and no order is noted")]
    Charged,
    /// A paid feature was not bought.
    #[error("the feature {feature} was not bought")]
    FeatureNotBought { feature: String },
}

impl NotOffered {
    /// A stable word for the API and for text keys.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoAppliance => "no_appliance",
            Self::NotInService => "not_in_service",
            Self::FileNotGood { .. } => "file_not_good",
            Self::Expired => "file_expired",
            Self::OtherProduct { .. } => "other_product",
            Self::OtherHardware { .. } => "other_hardware",
            Self::OtherVersion { .. } => "other_version",
            Self::AlreadyOffered => "already_offered",
            Self::FailedBefore => "failed_before",
            Self::Charged => "charged",
            Self::FeatureNotBought { .. } => "feature_not_bought",
        }
    }

    /// All words.
    #[cfg(test)]
    pub(crate) const WORDS: [&str; 11] = [
        "no_appliance",
        "not_in_service",
        "file_not_good",
        "file_expired",
        "other_product",
        "other_hardware",
        "other_version",
        "already_offered",
        "failed_before",
        "charged",
        "feature_not_bought",
    ];
}

/// The terms on which `file` is offered.
///
/// # Errors
/// [`NotOffered`] says why it is not.
pub(crate) fn may_offer(file: &ReleaseFile, known: &Circumstances, now: UnixMs) -> Result<Terms, NotOffered> {
    let manifest = match (&file.manifest, file.state) {
        (Some(manifest), FileState::Good) => manifest,
        _ => {
            return Err(NotOffered::FileNotGood {
                why: format!("{} {}", file.state.as_str(), file.refusal).trim_end().to_owned(),
            });
        }
    };
    if file.expires_at <= now {
        return Err(NotOffered::Expired);
    }
    if !known.active {
        return Err(NotOffered::NotInService);
    }
    fits(file, manifest, known)?;
    if known.offered {
        return Err(NotOffered::AlreadyOffered);
    }
    let failed = known.ended.iter().any(|step| matches!(step, PatchStep::RolledBack | PatchStep::Failed));
    if failed && manifest.kind() == PatchKind::Patch {
        return Err(NotOffered::FailedBefore);
    }
    let none = std::collections::BTreeSet::new();
    let wanted = Wanted {
        is_action: manifest.kind() != PatchKind::Patch,
        features: file.patch().map_or(&none, |patch| &patch.features),
        security_fix: file.patch().is_some_and(|patch| patch.security_fix),
        critical_ticket: known.critical_ticket,
        ordered: known.ordered,
    };
    terms(known.entitlement.as_ref(), wanted, now).map_err(|withheld| match withheld {
        Withheld::Charged => NotOffered::Charged,
        Withheld::Feature(feature) => NotOffered::FeatureNotBought { feature },
    })
}

/// Product, model and version. A box that never said what runs (it has no network, or was not set up yet) is known by the product
/// that it was enrolled for.
fn fits(file: &ReleaseFile, manifest: &Manifest, known: &Circumstances) -> Result<(), NotOffered> {
    let Some((product, version, model)) = &known.installed else {
        let fits = manifest.product == known.product;
        let ours = known.product.clone();
        return if fits { Ok(()) } else { Err(NotOffered::OtherProduct { theirs: manifest.product.clone(), ours }) };
    };
    if manifest.product != *product {
        return Err(NotOffered::OtherProduct { theirs: manifest.product.clone(), ours: product.clone() });
    }
    if !manifest.hardware.is_empty() && !manifest.hardware.contains(model) {
        return Err(NotOffered::OtherHardware { model: model.clone() });
    }
    // Which agent runs is the box's to judge.
    let Some(patch) = file.patch().filter(|_| !manifest.updates_agent()) else { return Ok(()) };
    // What is no version is the box's to judge.
    let Ok(installed) = version.parse::<Version>() else { return Ok(()) };
    if patch.from.matches(&installed) && manifest.version > installed {
        return Ok(());
    }
    Err(NotOffered::OtherVersion { installed: version.clone() })
}

#[cfg(test)]
pub(crate) mod tests;
