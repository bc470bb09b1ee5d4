//! Certificates of a test's own servers (mail with TLS): one private CA and a leaf for 127.0.0.1 and localhost.
//! The product's own certificates are never made here.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A private CA's certificate and a leaf under it, PEM.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    /// What a client trusts.
    pub ca_pem: String,
    /// The leaf.
    pub leaf_pem: String,
    /// The leaf's key.
    pub key_pem: String,
}

impl ServerCertificate {
    /// A new CA and a leaf for 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// When a key can't be made.
    pub fn new() -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "Test mail CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?.signed_by(&key, &issuer)?;
        Ok(Self { ca_pem: issuer.pem(), leaf_pem: leaf.pem(), key_pem: key.serialize_pem() })
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` into `folder`.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("ca.pem"), &self.ca_pem)?;
        std::fs::write(folder.join("cert.pem"), &self.leaf_pem)?;
        std::fs::write(folder.join("key.pem"), &self.key_pem)?;
        Ok(())
    }
}
