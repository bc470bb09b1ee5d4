//! Getting a certificate: the first by join secret, later ones by the old one. The key is made here and never leaves.
//!
//! An enrolment attempt (its id and key) is written down before it is sent, so that a lost answer is asked for again instead
//! of using the one-use secret up. Renewal keeps the key (R26). Neither ever prints the secret or the key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::api::{PATH_ENROL, PATH_RENEW, WIRE_VERSION, error_words};
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest, Hardware, JoinString, RenewRequest};
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;
use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::client::{self, Settings, Uplink};
use super::identity::Identity;
use super::{Outcome, TrustedClock};
use crate::atomic_file;

/// An enrolment under way, as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    attempt_id: String,
    token_id: String,
    key_pem: String,
}

impl Attempt {
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("enrolment-attempt.json")
    }

    /// The attempt for `token_id` that was begun before, or a new one, written down.
    ///
    /// # Errors
    /// When the key can't be made or the file not written.
    pub(crate) fn resume_or_begin(state_dir: &Path, token_id: &str, rng: &dyn SecureRandom) -> anyhow::Result<Self> {
        let path = Self::path(state_dir);
        let begun = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        if let Some(begun) = begun.filter(|a| a.token_id == token_id && KeyPair::from_pem(&a.key_pem).is_ok()) {
            return Ok(begun);
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("a key can't be made")?;
        let attempt = Self { attempt_id: random_hex_128(rng), token_id: token_id.to_owned(), key_pem: key.serialize_pem() };
        atomic_file::write_private(&path, &serde_json::to_vec(&attempt).context("enrolment attempt")?)?;
        Ok(attempt)
    }

    /// The attempt has ended well.
    pub(crate) fn forget(state_dir: &Path) {
        if let Err(error) = std::fs::remove_file(Self::path(state_dir)) {
            tracing::debug!(%error, "the enrolment attempt's file can't be removed");
        }
    }
}

/// Why an enrolment did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolFailed {
    /// The collector refuses the join string.
    #[error("the collector refuses this join string: {message}; ask for a new one (`mainstay-collector join-token`)")]
    Refused {
        /// What it said.
        message: String,
    },
    /// Nobody took the request; the same command may be repeated.
    #[error("the collector could not be asked: {why}; repeat the command, the join string is not used up by this")]
    Unavailable {
        /// Why.
        why: String,
    },
    /// Something on this side.
    #[error(transparent)]
    Local(#[from] anyhow::Error),
}

/// Asks for the first certificate. The server must show a chain that holds the pinned CA.
///
/// # Errors
/// [`EnrolFailed`].
pub(crate) async fn enrol(
    join: &JoinString,
    attempt: &Attempt,
    hostname: String,
    hardware: Hardware,
    settings: &Settings,
    clock: &TrustedClock,
) -> Result<Identity, EnrolFailed> {
    let mut pin = [0; 32];
    hex::decode_to_slice(&join.ca_pin, &mut pin).context("join string: its CA pin is not 64 hex digits")?;
    let request = EnrolRequest {
        version: WIRE_VERSION,
        token_id: join.token_id.clone(),
        secret: join.secret.clone(),
        csr_pem: signing_request(&attempt.key_pem)?,
        hostname,
        hardware,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        attempt_id: attempt.attempt_id.clone(),
    };
    match client::post_pinned::<_, EnrolReply>(&join.addresses, pin, settings, clock, PATH_ENROL, &request).await? {
        Outcome::Sent(reply) => {
            let identity = Identity::from_reply(reply, join.addresses.clone(), attempt.key_pem.clone(), clock.now())?;
            // What is pinned now is trusted from now on: an answer can't put other roots in its place.
            let pinned = identity.roots().iter().any(|root| digest(&SHA256, root).as_ref() == pin);
            if !pinned {
                let flaw =
                    anyhow::anyhow!("the collector's answer is unusable: the root that the join string names is not in it");
                return Err(flaw.into());
            }
            clock.verified(identity.validity().not_before);
            Ok(identity)
        }
        Outcome::RetryAfter { why, .. } => Err(EnrolFailed::Unavailable { why }),
        Outcome::Refused { message, .. } | Outcome::NotEnrolled { message } | Outcome::Stale { message } => {
            Err(EnrolFailed::Refused { message })
        }
    }
}

/// What became of a renewal.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// This is the new identity.
    Renewed(Box<Identity>),
    /// An operator must allow it (the old certificate had expired).
    WaitsForOperator,
    /// Not now.
    Later {
        /// Why.
        why: String,
    },
}

/// Asks for a new certificate for the same key: over mTLS, or, when the present one has expired, without showing one.
///
/// # Errors
/// When the key or the answer can't be used.
pub(crate) async fn renew(uplink: &Uplink, expired: bool, now: UnixMs) -> anyhow::Result<Renewal> {
    let old = uplink.identity();
    let request = RenewRequest {
        version: WIRE_VERSION,
        csr_pem: signing_request(&old.key_pem)?,
        expired_pem: expired.then(|| old.leaf_pem()),
    };
    let timeout = Duration::from_secs(60);
    let outcome: Outcome<EnrolReply> = if expired {
        uplink.post_anonymously(PATH_RENEW, &request, timeout).await?
    } else {
        uplink.post(PATH_RENEW, &request, timeout).await
    };
    match outcome {
        Outcome::Sent(reply) => {
            let renewed =
                Identity { enrolled_at: old.enrolled_at, ..Identity::from_reply(reply, old.addresses, old.key_pem, now)? };
            anyhow::ensure!(renewed.appliance == old.appliance, "the renewed certificate is for another appliance");
            Ok(Renewal::Renewed(Box::new(renewed)))
        }
        Outcome::Refused { word, .. } if word == error_words::WAITS_FOR_OPERATOR => Ok(Renewal::WaitsForOperator),
        Outcome::RetryAfter { why, .. } => Ok(Renewal::Later { why }),
        Outcome::Refused { message, .. } | Outcome::NotEnrolled { message } | Outcome::Stale { message } => {
            Ok(Renewal::Later { why: message })
        }
    }
}

fn signing_request(key_pem: &str) -> anyhow::Result<String> {
    let key = KeyPair::from_pem(key_pem).context("the private key can't be read")?;
    let request = CertificateParams::default().serialize_request(&key).context("a certificate request can't be made")?;
    request.pem().context("a certificate request can't be written")
}
