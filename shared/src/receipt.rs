//! Receipts: the collector's signed answer to a message, verifiable on the box with the key handed over at enrolment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::ids::{ApplianceId, CollectorEpoch, RecordId};
use crate::time_source::UnixMs;

/// What a receipt says: these records were committed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBody {
    /// Whose records.
    pub appliance: ApplianceId,
    /// The fault-lane records taken, with their hashes.
    pub records: Vec<(RecordId, String)>,
    /// When they were received (the promise's clocks start here).
    pub received_at: UnixMs,
    /// The collector's epoch.
    pub collector_epoch: CollectorEpoch,
    /// Head of the tenant's audit chain (sequence, hash) at commit: kept out of the collector's reach by every agent.
    pub audit_head: (i64, String),
}

/// A signed [`ReceiptBody`]: the exact signed JSON text and its Ed25519 signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The JSON text that was signed.
    pub signed: String,
    /// Base64 of the 64 signature bytes.
    pub signature: String,
}

/// Why a receipt is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BadReceipt {
    /// Not signed by the key of the enrolment.
    #[error("receipt: the signature is not by this service's receipt key")]
    Signature,
    /// Signed, but not understood.
    #[error("receipt: the signed text is not a receipt")]
    Body(#[source] serde_json::Error),
}

impl Receipt {
    /// Signs `body`.
    ///
    /// # Errors
    /// Only if `body` can't be written as JSON.
    pub fn sign(body: &ReceiptBody, key: &Ed25519KeyPair) -> serde_json::Result<Self> {
        let signed = serde_json::to_string(body)?;
        let signature = STANDARD.encode(key.sign(signed.as_bytes()));
        Ok(Self { signed, signature })
    }

    /// The body, if `public_key` (32 bytes) signed it.
    ///
    /// # Errors
    /// [`BadReceipt`] says which step failed.
    pub fn verify(&self, public_key: &[u8]) -> Result<ReceiptBody, BadReceipt> {
        let signature = STANDARD.decode(&self.signature).map_err(|_| BadReceipt::Signature)?;
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(self.signed.as_bytes(), &signature)
            .map_err(|_| BadReceipt::Signature)?;
        serde_json::from_str(&self.signed).map_err(BadReceipt::Body)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::KeyPair as _;

    use super::*;

    #[test]
    fn a_receipt_altered_by_one_letter_is_not_believed() {
        let rng = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng).expect("key");
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("key");
        let body = ReceiptBody {
            appliance: ApplianceId::random(&rng),
            records: Vec::new(),
            received_at: UnixMs(1),
            collector_epoch: CollectorEpoch::random(&rng),
            audit_head: (7, "ab".into()),
        };
        let mut receipt = Receipt::sign(&body, &key).expect("signs");
        assert_eq!(receipt.verify(key.public_key().as_ref()).expect("good"), body);
        receipt.signed = receipt.signed.replace("\"received_at\":1", "\"received_at\":2");
        assert!(matches!(receipt.verify(key.public_key().as_ref()), Err(BadReceipt::Signature)));
    }
}
