//! Who this appliance is: one private file `identity.json` with key, certificate, roots and addresses. One file, one commit point.
//!
//! It is written by enrolment and renewal, read at start and by `status`. It holds the private key: its `Debug` shows the
//! appliance only, and it must never be sent anywhere.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mainstay_shared::enrolment::EnrolReply;
use mainstay_shared::ids::ApplianceId;
use mainstay_shared::time_source::UnixMs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::atomic_file;

/// The enrolled identity.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// As the certificate names it.
    pub(crate) appliance: ApplianceId,
    /// Addresses of the one service, `https://host:port`.
    pub(crate) addresses: Vec<String>,
    /// Its certificate and the issuing CA's, leaf first.
    pub(crate) chain_pem: String,
    /// Roots to trust.
    pub(crate) roots_pem: String,
    /// Hex of the Ed25519 key that signs receipts.
    pub(crate) receipt_key: String,
    /// The private key, PKCS#8; never leaves the box.
    pub(crate) key_pem: String,
    /// When it was enrolled.
    pub(crate) enrolled_at: UnixMs,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("appliance", &self.appliance).finish_non_exhaustive()
    }
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// Never enrolled.
    #[error("{}: not enrolled yet; run `mainstay-agent enroll` with the join string of this appliance", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read by this user.
    #[error("{}: can't be read; run as root or as the agent's user", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no identity.
    #[error("{}: damaged ({what}); enrol again with `mainstay-agent enroll --again`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
    },
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Validity {
    /// Begin.
    pub(crate) not_before: UnixMs,
    /// End.
    pub(crate) not_after: UnixMs,
}

impl Identity {
    /// Where the identity lies.
    pub(crate) fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("identity.json")
    }

    /// Reads and checks the identity.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and the next step.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = Self::path(state_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(IdentityError::Missing { path }),
            Err(source) => return Err(IdentityError::Unreadable { path, source }),
        };
        let identity: Self = serde_json::from_slice(&bytes)
            .map_err(|_| IdentityError::Damaged { path: path.clone(), what: "not the JSON of an identity" })?;
        match identity.flaw() {
            None => Ok(identity),
            Some(what) => Err(IdentityError::Damaged { path, what }),
        }
    }

    /// Writes the identity, wholly or not at all.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn save(&self, state_dir: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).context("identity")?;
        atomic_file::write_private(&Self::path(state_dir), &bytes)
    }

    /// An identity from the collector's answer, if the answer is whole and its certificate carries our key.
    ///
    /// # Errors
    /// Says which part of the answer is unusable.
    pub(crate) fn from_reply(reply: EnrolReply, addresses: Vec<String>, key_pem: String, now: UnixMs) -> anyhow::Result<Self> {
        let identity = Self {
            appliance: reply.appliance,
            addresses,
            chain_pem: reply.chain_pem,
            roots_pem: reply.roots_pem,
            receipt_key: reply.receipt_key,
            key_pem,
            enrolled_at: now,
        };
        match identity.flaw() {
            None => Ok(identity),
            Some(what) => anyhow::bail!("the collector's answer is unusable: {what}"),
        }
    }

    fn flaw(&self) -> Option<&'static str> {
        let key = rcgen::KeyPair::from_pem(&self.key_pem);
        let leaf = self.chain().into_iter().next();
        match (&key, leaf) {
            (Err(_), _) => Some("the private key can't be read"),
            (_, None) => Some("there is no certificate in it"),
            (Ok(key), Some(leaf)) => match x509_parser::parse_x509_certificate(&leaf) {
                Err(_) => Some("the certificate can't be read"),
                Ok((_, parsed)) if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() => {
                    Some("the certificate is for another key")
                }
                Ok(_) if self.roots().is_empty() => Some("there is no root certificate in it"),
                Ok(_) if self.receipt_key().is_none() => Some("the receipt key is not 64 hex digits"),
                Ok(_) => None,
            },
        }
    }

    /// The certificate chain, leaf first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.chain_pem)
    }

    /// The roots to trust.
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.roots_pem)
    }

    /// The private key.
    ///
    /// # Errors
    /// When the PEM can't be read.
    pub(crate) fn key(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).context("identity: the private key can't be read")
    }

    /// The 32 bytes of the receipt key.
    pub(crate) fn receipt_key(&self) -> Option<Vec<u8>> {
        hex::decode(&self.receipt_key).ok().filter(|key| key.len() == 32)
    }

    /// PEM of the leaf alone.
    pub(crate) fn leaf_pem(&self) -> String {
        let end = "-----END CERTIFICATE-----";
        self.chain_pem.find(end).map_or_else(String::new, |at| format!("{}\n", &self.chain_pem[..at + end.len()]))
    }

    /// When the certificate is valid.
    pub(crate) fn validity(&self) -> Validity {
        let none = Validity { not_before: UnixMs(0), not_after: UnixMs(0) };
        let Some(leaf) = self.chain().into_iter().next() else { return none };
        x509_parser::parse_x509_certificate(&leaf).map_or(none, |(_, certificate)| {
            let validity = certificate.validity();
            let ms = |time: x509_parser::time::ASN1Time| UnixMs(time.timestamp().saturating_mul(1000));
            Validity { not_before: ms(validity.not_before), not_after: ms(validity.not_after) }
        })
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}
