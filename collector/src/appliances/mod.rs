//! Appliances: who they are (enrolment, certificates), how they are reached (links, nonces, directives), whether they are held.
//!
//! Passive: types, pure rules (`join`, `clone`), keys (`authority`) and SQL (`store`, `certificates`, `tokens`, `links`, `directives`).
//! An appliance's identity is its verified certificate, only (R13). Nothing here opens tickets or answers requests.

use mainstay_shared::directive::Ask;
use mainstay_shared::ids::ApplianceId;
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

pub(crate) mod authority;
pub(crate) mod join;
pub(crate) mod clone;
pub(crate) mod store;
pub(crate) mod certificates;
pub(crate) mod tokens;
pub(crate) mod links;
pub(crate) mod directives;
pub(crate) mod listing;

/// Who a verified certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: ApplianceId,
    pub(crate) site_id: String,
}

/// Whether an appliance is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApplianceState {
    /// As it should be.
    Active,
    /// A clone or a rewound snapshot: faults are taken, directives and patches stop until an operator releases it (R25).
    Held,
    /// Gone for good: its certificates are worth nothing.
    Retired,
}

impl ApplianceState {
    /// The name in the database and in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Held => "held",
            Self::Retired => "retired",
        }
    }

    /// The state of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Held, Self::Retired].into_iter().find(|state| state.as_str() == name)
    }
}

/// An appliance as it stands. Name, vendor, model, serial and platform are the agent's words: untrusted text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Appliance {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) product: String,
    pub(crate) vendor: String,
    pub(crate) model: String,
    pub(crate) serial: String,
    /// `primary`, `standby` or `single`.
    pub(crate) duty: String,
    /// JSON list of the parts as shipped.
    pub(crate) parts: String,
    pub(crate) agent_version: String,
    pub(crate) platform: String,
    pub(crate) state: ApplianceState,
    /// A `clone::HoldReason` name while held, else empty.
    pub(crate) held_reason: String,
    /// Empty: always expected to be on.
    pub(crate) expected_hours: String,
    pub(crate) enrolled_at: UnixMs,
}

/// What happens to an appliance: events of the tenant's chain, subject [`subject`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ApplianceEvent {
    /// It was enrolled with a join token.
    Enrolled { token_id: String, fingerprint: String, hostname: String, serial: String },
    /// It got a new certificate.
    Renewed { fingerprint: String, had_expired: bool },
    /// Something was asked of it: the directive, and the word of the wish.
    Asked { directive_id: String, ask: Ask },
    /// Its expired certificate waits for an operator's click (R26).
    RenewalRequested { public_key: String },
    /// An operator allowed the renewal.
    RenewalApproved,
    /// It is held.
    Held { reason: String },
    /// An operator released it.
    Released { why: String },
    /// It is gone for good.
    Retired { why: String },
    /// It is expected to be heard within these hours only; empty: always.
    ExpectedHoursSet { hours: String },
    /// One of its certificates was revoked.
    CertificateRevoked { fingerprint: String, why: String },
    /// A message named another appliance than its certificate (R13).
    IdentityDisagreed { claimed: String, path: String },
    /// Records were refused one by one.
    RecordsRefused { count: u64, first: String, why: String },
    /// Records will never come, and why (R31).
    RecordsLost { lane: String, count: u64, why: String },
    /// A signed file came a step further here.
    Patch(PatchNews),
    /// What the customer is entitled to for it was recorded.
    EntitlementSet {
        software_until_at: Option<UnixMs>,
        hardware_until_at: Option<UnixMs>,
        service_until_at: Option<UnixMs>,
        features: Vec<String>,
    },
    /// A marked test message came end to end.
    TestReceived { mark: String, note: String },
}

/// A step of a signed file on an appliance, as the chain of events keeps it: by the vendor, by somebody at a link, by the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PatchNews {
    /// None: it came by a stick or a file.
    pub(crate) offer_id: String,
    /// `patch`, `action`, ...
    pub(crate) kind: String,
    /// The file's name, or its hash if only the box knows it.
    pub(crate) file: String,
    pub(crate) sha256: String,
    pub(crate) version: String,
    /// `offered`, `taken_back`, `approve_typed`, `refuse_typed`, `downloaded`, or a step of the box's.
    pub(crate) what: String,
    /// The box's code, or the terms of an offer.
    pub(crate) reason: String,
    /// The box's or a person's own words, and the end of a script's output; untrusted text.
    pub(crate) text: String,
}

/// The subject under which an appliance's events stand in the chain.
pub(crate) fn subject(appliance_id: &str) -> String {
    format!("appliance:{appliance_id}")
}
