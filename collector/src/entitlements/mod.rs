//! What a customer is entitled to for an appliance: warranty, service period, bought features (C13, C14), and what follows for an offer.
//!
//! A first version: dates and features by appliance, set by an operator. It decides about the vendor's *offer* only; no date ever lives
//! on the box, which checks the features against its own signed licence.

use std::collections::BTreeSet;

use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

pub(crate) mod rules;
pub(crate) mod store;

/// What was recorded for one appliance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entitlement {
    /// End of the software warranty (C14: a year).
    pub(crate) software_until_at: Option<UnixMs>,
    /// End of the hardware warranty (C14: three years).
    pub(crate) hardware_until_at: Option<UnixMs>,
    /// End of the service period bought (C13, C17).
    pub(crate) service_until_at: Option<UnixMs>,
    /// Paid features that were bought.
    pub(crate) features: BTreeSet<String>,
}

/// What an offer costs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Terms {
    /// Nothing.
    Free(FreeBecause),
    /// It is charged and was ordered.
    Ordered,
    /// It is charged: offered all the same, with a quotation, since it closes a hole while a critical ticket is open.
    Quoted,
}

/// Why it costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreeBecause {
    /// The software warranty lasts (C14).
    Warranty,
    /// A service period was bought and lasts (C13).
    ServicePeriod,
    /// No date was ever recorded for the appliance.
    NothingRecorded,
    /// Actions are part of support (C6).
    Action,
}

impl Terms {
    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Free(FreeBecause::Warranty) => "free_warranty",
            Self::Free(FreeBecause::ServicePeriod) => "free_service_period",
            Self::Free(FreeBecause::NothingRecorded) => "free_nothing_recorded",
            Self::Free(FreeBecause::Action) => "free_action",
            Self::Ordered => "charged_ordered",
            Self::Quoted => "charged_quoted",
        }
    }

    /// Every name.
    #[cfg(test)]
    pub(crate) const NAMES: [&str; 6] =
        ["free_warranty", "free_service_period", "free_nothing_recorded", "free_action", "charged_ordered", "charged_quoted"];
}

/// Why the vendor does not offer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// Out of warranty and service period, and nobody ordered it (C13).
    Charged,
    /// A paid feature that was not bought (C13).
    Feature(String),
}
