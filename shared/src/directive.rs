//! What the collector asks of an agent. A directive carries no authority: nothing in it changes the appliance (TRUST, the one idea).

use serde::{Deserialize, Serialize};

use crate::patch::{Decision, Offer};
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
    /// A signed file is there for this appliance; what to do with it, the appliance decides.
    Offered(Offer),
    /// An offer is taken back: what has not begun, does not begin.
    TakenBack {
        /// Which.
        offer_id: String,
    },
    /// What somebody decided at the page of a link, with the code that they typed: worth nothing unless the box made that code.
    Decided {
        /// Which offer.
        offer_id: String,
        /// What was decided.
        decision: Decision,
        /// Six digits as typed.
        code: String,
    },
    /// Something a newer collector asks; an older agent ignores it.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::PatchKind;

    #[test]
    fn every_ask_is_read_back_as_it_was_written() {
        let offer = Offer {
            offer_id: "0".repeat(32),
            kind: PatchKind::Action,
            file: "acme-gateway-2.1.0.mpatch".into(),
            sha256: "5".repeat(64),
            bytes: 7,
            product: "acme-gateway".into(),
            version: "2.1.0".into(),
        };
        let decision = Decision::Refuse { reason: "not today".into() };
        let asks = [
            Ask::ReportNow,
            Ask::RenewCertificate,
            Ask::Offered(offer.clone()),
            Ask::TakenBack { offer_id: offer.offer_id.clone() },
            Ask::Decided { offer_id: offer.offer_id.clone(), decision, code: "123456".into() },
            Ask::Decided { offer_id: offer.offer_id, decision: Decision::Approve, code: "123456".into() },
        ];
        for ask in asks {
            let text = serde_json::to_string(&ask).expect("JSON");
            assert_eq!(serde_json::from_str::<Ask>(&text).ok(), Some(ask), "{text}");
        }
    }
}
