//! Why a signed file is refused: one code each, the same for link, file, stick and download (R2), shown on the box and told to the vendor.

use thiserror::Error;

/// A reason to refuse a file, before anything outside staging was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not a file of this format, torn, or with bytes behind its end.
    #[error("the file is damaged or not a patch file: {0}")]
    Format(String),
    /// A signature, threshold, key or delegation that doesn't hold.
    #[error("the file is not signed as this appliance demands: {0}")]
    Signature(String),
    /// Its signatures are past their date.
    #[error("its signatures were valid until {0}; a newer file is needed")]
    Expired(String),
    /// Older metadata than what this appliance has already taken.
    #[error("it is older than what this appliance already trusts: {0}")]
    Rollback(String),
    /// Content that is not what was signed.
    #[error("its content is not what was signed: {0}")]
    Content(String),
    /// An archive with names, kinds or sizes that are not allowed (R6).
    #[error("its archive is not acceptable: {0}")]
    Archive(String),
    /// For another product.
    #[error("it is for {theirs}, this appliance is {ours}")]
    Product {
        /// The file's product.
        theirs: String,
        /// The appliance's.
        ours: String,
    },
    /// For other models.
    #[error("it is not for the model {0}")]
    Hardware(String),
    /// A licence for other appliances.
    #[error("it is not for the appliance with the serial {0}")]
    Serial(String),
    /// Not newer than what runs, or not from this version.
    #[error("it can't be applied to version {installed}: {why}")]
    Version {
        /// What runs.
        installed: String,
        /// Why not.
        why: String,
    },
    /// Needs a feature that the licence on the box doesn't name (C13).
    #[error("it needs the feature {0}, which the licence on this appliance does not include")]
    Feature(String),
    /// A kind of file that this appliance is not set up for.
    #[error("this appliance is not set up for it: {0}")]
    NotSetUp(String),
    /// Withdrawn by the vendor.
    #[error("the vendor has withdrawn it")]
    Withdrawn,
    /// It failed here before.
    #[error("it failed on this appliance before and is not tried again")]
    FailedBefore,
    /// Not enough room.
    #[error("it needs {needed_bytes} bytes of disk, {free_bytes} are free")]
    Space {
        /// What it needs.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The business services were not well before.
    #[error("the business services are not well: {0}; a sick appliance is not patched")]
    Unhealthy(String),
    /// The customer, or the customer's settings, said no.
    #[error("refused by the customer: {0}")]
    Customer(String),
    /// The machine could not read or write.
    #[error("this appliance could not read or write it: {0}")]
    Io(String),
}

impl Refusal {
    /// The code on the wire and in the journal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "bad_format",
            Self::Signature(_) => "bad_signature",
            Self::Expired(_) => "expired",
            Self::Rollback(_) => "older_metadata",
            Self::Content(_) => "bad_content",
            Self::Archive(_) => "bad_archive",
            Self::Product { .. } => "other_product",
            Self::Hardware(_) => "other_hardware",
            Self::Serial(_) => "other_serial",
            Self::Version { .. } => "version",
            Self::Feature(_) => "feature_not_licensed",
            Self::NotSetUp(_) => "not_set_up",
            Self::Withdrawn => "withdrawn",
            Self::FailedBefore => "failed_before",
            Self::Space { .. } => "no_space",
            Self::Unhealthy(_) => "unhealthy_before",
            Self::Customer(_) => "refused_by_customer",
            Self::Io(_) => "io",
        }
    }
}
