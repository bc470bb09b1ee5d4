//! The appliance's receipt for signed files (`.mreceipt`): what a box without a network did, to be carried or mailed to the vendor.
//!
//! One JSON text: the receipt as it was signed, a signature by the key of the appliance's certificate, that certificate's fingerprint.
//! Signed is the text itself, so that nothing depends on how JSON is written again. It must never be believed before it was verified
//! against a certificate that the collector issued (R13).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::ids::ApplianceId;
use crate::patch::PatchReport;
use crate::time_source::UnixMs;

/// What stands before the signed text: a signature for one purpose is none for another.
const DOMAIN: &[u8] = b"mainstay-patch-receipt-1\n";
/// The most bytes of a `.mreceipt`.
pub const MAX_BYTES: usize = 1 << 20;
/// The most reports in one receipt: the newest.
pub const MAX_REPORTS: usize = 100;

/// What a box says became of signed files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchReceipt {
    /// Who says it.
    pub appliance: ApplianceId,
    /// Its reports, oldest first; at most [`MAX_REPORTS`].
    pub reports: Vec<PatchReport>,
    /// When it was written, by the box's clock.
    pub at: UnixMs,
}

/// A receipt with its signature: the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The JSON of a [`PatchReceipt`], as it was signed.
    pub signed: String,
    /// ECDSA P-256 with SHA-256 over the domain and `signed`, ASN.1, base64.
    pub signature: String,
    /// SHA-256 of the signing certificate's DER, hex.
    pub certificate: String,
}

/// Why a receipt is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    /// It is none.
    #[error("it is not a receipt of this version: {0}")]
    Form(String),
    /// Its signature is not by that key.
    #[error("its signature is not by the certificate that it names")]
    Signature,
}

impl SignedReceipt {
    /// Signs `receipt` with the certificate's private key (PKCS#8 DER).
    ///
    /// # Errors
    /// If the key is no P-256 key.
    pub fn sign(receipt: &PatchReceipt, key_pkcs8: &[u8], certificate: &str, rng: &SystemRandom) -> Result<Self, BadReceipt> {
        let unusable = |what: &str| BadReceipt::Form(what.to_owned());
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_pkcs8, rng)
            .map_err(|_| unusable("the appliance's key is no P-256 key"))?;
        let signed = serde_json::to_string(receipt).map_err(|error| unusable(&error.to_string()))?;
        let signature = key.sign(rng, &covered(&signed)).map_err(|_| unusable("signing failed"))?;
        Ok(Self { signature: BASE64.encode(signature.as_ref()), certificate: certificate.to_owned(), signed })
    }

    /// Reads a file's bytes; nothing in it is believed yet.
    ///
    /// # Errors
    /// [`BadReceipt::Form`] says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, BadReceipt> {
        if bytes.len() > MAX_BYTES {
            return Err(BadReceipt::Form(format!("at most {MAX_BYTES} bytes are accepted")));
        }
        serde_json::from_slice(bytes).map_err(|error| BadReceipt::Form(error.to_string()))
    }

    /// What it says, if the key (an uncompressed point, as in the certificate) signed it.
    ///
    /// # Errors
    /// [`BadReceipt`] says why it is not believed.
    pub fn verify(&self, public_key: &[u8]) -> Result<PatchReceipt, BadReceipt> {
        let signature = BASE64.decode(&self.signature).map_err(|_| BadReceipt::Signature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(&covered(&self.signed), &signature)
            .map_err(|_| BadReceipt::Signature)?;
        let receipt: PatchReceipt = serde_json::from_str(&self.signed).map_err(|error| BadReceipt::Form(error.to_string()))?;
        if receipt.reports.len() > MAX_REPORTS {
            return Err(BadReceipt::Form(format!("at most {MAX_REPORTS} reports are accepted")));
        }
        Ok(receipt)
    }
}

fn covered(signed: &str) -> Vec<u8> {
    [DOMAIN, signed.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;

    #[test]
    fn a_receipt_is_believed_as_it_was_signed_and_not_otherwise() {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &rng).expect("a key");
        let appliance = ApplianceId::random(&rng);
        let receipt = PatchReceipt { appliance, reports: Vec::new(), at: UnixMs(7) };
        let signed = SignedReceipt::sign(&receipt, pkcs8.as_ref(), "ab", &rng).expect("signed");
        let file = serde_json::to_vec(&signed).expect("a file");
        let read = SignedReceipt::read(&file).expect("read");
        assert_eq!(read.verify(key.public_key().as_ref()), Ok(receipt));
        let altered = SignedReceipt { signed: read.signed.replace('7', "8"), ..read.clone() };
        assert_eq!(altered.verify(key.public_key().as_ref()), Err(BadReceipt::Signature));
        let other = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).expect("a key");
        let other = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, other.as_ref(), &rng).expect("a key");
        assert_eq!(read.verify(other.public_key().as_ref()), Err(BadReceipt::Signature));
    }
}
