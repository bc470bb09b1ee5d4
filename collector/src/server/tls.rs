//! TLS of both listeners: rustls on ring, 1.2 and 1.3. Time comes from the time source, like everywhere.
//!
//! The agents' listener asks for a certificate of our CAs and lets strangers in without one: what they may do is decided by path.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::time_source::TimeSource;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use crate::appliances::authority::Authority;
use crate::config::WebTls;
use crate::flow::World;

/// The time source as rustls asks for it.
#[derive(Debug)]
struct OurTime(TimeSource);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = Duration::from_millis(u64::try_from(self.0.now().0).ok()?);
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

/// The agents' listener.
pub(super) fn agents(authority: &Authority, world: &World) -> anyhow::Result<TlsAcceptor> {
    let mut anchors = RootCertStore::empty();
    for anchor in authority.trust_anchors() {
        anchors.add(anchor).context("the certificate authority's own certificates")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::new(default_provider()))
        .allow_unauthenticated()
        .build()
        .context("the verifier of client certificates")?;
    let identity = authority.server_identity(&world.config.agents_addresses, &world.rng, world.time.now())?;
    let mut config = ServerConfig::builder_with_details(Arc::new(default_provider()), Arc::new(OurTime(world.time.clone())))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .context("the agents' listener's certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The browsers' listener.
pub(super) fn web(files: &WebTls) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) = (files.certificate_file.display(), files.key_file.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow::anyhow!("web.certificate_file: {certificate}: expected PEM certificates: {error}"))?;
    let private = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|error| anyhow::anyhow!("web.key_file: {key}: expected a PEM private key: {error}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("web.certificate_file: {certificate}, web.key_file: {key}: expected a matching pair"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
