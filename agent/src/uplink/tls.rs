//! TLS as the agent speaks it: the vendor's roots only, our certificate, and a verifier that copes with wrong clocks.
//!
//! Before enrolment the roots are unknown: then exactly the certificate whose SHA-256 is the join string's pin is the root.
//! A clock that is behind is moved up to a certificate's signed begin; one that is far ahead is set aside for the last signed
//! time plus age. Neither ever makes a certificate of another CA acceptable.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use mainstay_shared::time_source::UnixMs;
use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::clock::{self, TrustedClock};
use super::identity::Identity;

/// Whom to trust.
#[derive(Debug)]
pub(super) enum Trust {
    /// These roots.
    Roots(Vec<CertificateDer<'static>>),
    /// The certificate with this SHA-256 (DER), wherever in the server's chain it stands.
    Pin([u8; 32]),
}

/// A client configuration; `identity` is shown to the server if given.
///
/// # Errors
/// When a certificate or the key can't be used.
pub(super) fn client_config(trust: Trust, identity: Option<&Identity>, clock: &TrustedClock) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider), clock: clock.clone(), roots: Mutex::default() });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain(), identity.key()?)
            .context("identity: certificate and key can't be used together"),
    }
}

/// Verifies a server's chain with the standard verifier, at a time that can be defended.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    clock: TrustedClock,
    roots: Mutex<Option<Arc<WebPkiServerVerifier>>>,
}

impl Verifier {
    fn standard(&self, intermediates: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, Error> {
        match &self.trust {
            Trust::Roots(roots) => {
                let mut cached = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
                if cached.is_none() {
                    *cached = Some(self.verifier_of(roots.iter().cloned())?);
                }
                cached.clone().ok_or(Error::General("no verifier".into()))
            }
            Trust::Pin(pin) => {
                let pinned = intermediates.iter().find(|c| digest::digest(&digest::SHA256, c).as_ref() == pin);
                let pinned = pinned.ok_or_else(|| {
                    Error::General("the server's certificate chain does not contain the CA that the join string names".into())
                })?;
                self.verifier_of([pinned.clone().into_owned()])
            }
        }
    }

    fn verifier_of(&self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root)?;
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&self.provider));
        builder.build().map_err(|e| Error::General(e.to_string()))
    }

    /// Another time to judge by, if `error` is one of time and a signed time disagrees with the machine's clock.
    fn other_time(&self, error: &Error) -> Option<Judged> {
        match error {
            Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                Some(Judged::Later(*not_before))
            }
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                let signed = clock::unix_time(self.clock.aged_signed_time()?);
                (signed.as_secs() < not_after.as_secs()).then_some(Judged::Earlier(signed))
            }
            _ => None,
        }
    }
}

/// A time other than the machine's, and why.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// The certificate begins later than the clock says: the clock is behind.
    Later(UnixTime),
    /// The certificate has ended by the clock, not by the last signed time: the clock is ahead.
    Earlier(UnixTime),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let standard = self.standard(intermediates)?;
        let (mut at, mut judged) = (now, None);
        // A chain has few certificates, and each can move the time once.
        for _ in 0..4 {
            match standard.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at) {
                Ok(verified) => {
                    match judged {
                        Some(Judged::Later(t)) => self.clock.verified(UnixMs(i64::try_from(t.as_secs() * 1000).unwrap_or(0))),
                        Some(Judged::Earlier(_)) => self.clock.machine_is_ahead(),
                        None => {}
                    }
                    return Ok(verified);
                }
                Err(error) => match self.other_time(&error) {
                    Some(other @ (Judged::Later(t) | Judged::Earlier(t))) if t != at => {
                        at = t;
                        judged = Some(other);
                    }
                    _ => return Err(error),
                },
            }
        }
        standard.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
