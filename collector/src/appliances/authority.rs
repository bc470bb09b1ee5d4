//! The vendor's certificate authority and receipt key: made once by `init`, used by `serve`.
//!
//! The root's key never stays here: [`create`] hands it out to be encrypted and carried away. The issuing CA signs appliances'
//! and the agents' listener's certificates. A request's own wishes (names, uses, length of life) are never copied into a
//! certificate: only its public key is. Key files are 0600 and never logged.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mainstay_shared::ids::ApplianceId;
use mainstay_shared::time_source::UnixMs;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use ring::digest;
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const DAY: Duration = Duration::from_secs(86_400);
/// Two decades: longer than an appliance lives.
const ROOT_LIFE: Duration = DAY.saturating_mul(20 * 365);
const ISSUING_LIFE: Duration = DAY.saturating_mul(5 * 365);
/// The listener's own certificate is made anew at every start, in memory.
const SERVER_LIFE: Duration = DAY.saturating_mul(2 * 365);
/// DESIGN, Enrolment: 90 days, renewed at two thirds.
pub(crate) const APPLIANCE_LIFE: Duration = DAY.saturating_mul(90);
/// Certificates begin a little before now, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(3600);

const ROOT: &str = "root.pem";
const NEXT_ROOT: &str = "next-root.pem";
const ISSUING: &str = "issuing-ca.pem";
const ISSUING_KEY: &str = "issuing-ca.key";
const RECEIPT_KEY: &str = "receipt.key";

/// PEM of the root CA's private key: to be encrypted and carried away, never kept beside the collector.
pub(crate) struct RootKeyPem(pub(crate) String);

/// The loaded keys of a serving collector.
pub(crate) struct Authority {
    root: CertificateDer<'static>,
    roots_pem: String,
    issuing: CertificateDer<'static>,
    issuing_pem: String,
    issuer: Issuer<'static, KeyPair>,
    issuing_not_after: UnixMs,
    receipt: Ed25519KeyPair,
}

/// A certificate made here.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    /// Leaf, then issuing CA.
    pub(crate) chain_pem: String,
    pub(crate) leaf_pem: String,
    pub(crate) fingerprint: String,
    pub(crate) not_after_at: UnixMs,
}

/// What the agents' listener shows: leaf, issuing CA, root (the root too, so that a first visitor can compare it with its pin).
pub(crate) struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A certificate request that is well formed and signed by its own key.
pub(crate) struct GoodRequest {
    request: CertificateSigningRequestParams,
}

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    /// Not PKCS#10, or its self-signature is wrong.
    #[error("certificate request: expected PEM of a PKCS#10 request signed by its own key")]
    Unreadable(#[source] rcgen::Error),
    /// Another kind of key.
    #[error("certificate request: expected a key on the curve P-256")]
    Algorithm,
}

impl GoodRequest {
    /// Reads a request and checks that whoever made it holds its key.
    ///
    /// # Errors
    /// [`BadRequest`] says which step failed.
    pub(crate) fn read(csr_pem: &str) -> Result<Self, BadRequest> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(BadRequest::Unreadable)?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(BadRequest::Algorithm);
        }
        Ok(Self { request })
    }

    /// The public key's raw bytes as hex: what "the same key" compares.
    pub(crate) fn public_key(&self) -> String {
        hex::encode(self.request.public_key.der_bytes())
    }
}

/// Makes root, issuing CA and receipt key in `dir`, which must not hold any yet. Returned is the PEM of the root's private key, to
/// be encrypted and carried away: it is never kept beside the collector.
///
/// # Errors
/// If a key file is there already, or can't be written.
pub(crate) fn create(dir: &Path, rng: &dyn SecureRandom, now: UnixMs) -> anyhow::Result<RootKeyPem> {
    let root_key = KeyPair::generate().context("making the root key")?;
    let root_params = ca_params("Mainstay Root CA", rng, now, ROOT_LIFE, 1)?;
    let root = root_params.self_signed(&root_key).context("signing the root certificate")?;
    let root_issuer = Issuer::from_params(&root_params, &root_key);
    let issuing_key = KeyPair::generate().context("making the issuing CA's key")?;
    let issuing = ca_params("Mainstay Issuing CA", rng, now, ISSUING_LIFE, 0)?
        .signed_by(&issuing_key, &root_issuer)
        .context("signing the issuing CA's certificate")?;
    let receipt = Ed25519KeyPair::generate_pkcs8(rng).map_err(|_| anyhow::anyhow!("making the receipt key"))?;
    write_new(&dir.join(ROOT), root.pem().as_bytes())?;
    write_new(&dir.join(ISSUING), issuing.pem().as_bytes())?;
    write_new(&dir.join(ISSUING_KEY), issuing_key.serialize_pem().as_bytes())?;
    write_new(&dir.join(RECEIPT_KEY), hex::encode(receipt.as_ref()).as_bytes())?;
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("{}: making the new files durable", dir.display()))?;
    Ok(RootKeyPem(root_key.serialize_pem()))
}

impl Authority {
    /// Reads the keys that [`create`] wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged; the message names it.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let (root_path, issuing_path, key_path) = (dir.join(ROOT), dir.join(ISSUING), dir.join(ISSUING_KEY));
        let mut roots_pem = read(&root_path)?;
        let root = certificate(&root_path, &roots_pem)?;
        let next = dir.join(NEXT_ROOT);
        if next.exists() {
            roots_pem.push_str(&read(&next)?);
        }
        let issuing_pem = read(&issuing_path)?;
        let issuing = certificate(&issuing_path, &issuing_pem)?;
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|_| damaged(&key_path, "a PEM private key"))?;
        let issuer = Issuer::from_ca_cert_der(&issuing, key).map_err(|_| damaged(&issuing_path, "a CA certificate"))?;
        let issuing_not_after = not_after(&issuing).map_err(|_| damaged(&issuing_path, "a CA certificate"))?;
        let receipt_path = dir.join(RECEIPT_KEY);
        let receipt = hex::decode(read(&receipt_path)?.trim())
            .ok()
            .and_then(|pkcs8| Ed25519KeyPair::from_pkcs8(&pkcs8).ok())
            .ok_or_else(|| damaged(&receipt_path, "hex of an Ed25519 key in PKCS#8"))?;
        Ok(Self { root, roots_pem, issuing, issuing_pem, issuer, issuing_not_after, receipt })
    }

    /// Hex SHA-256 of the root certificate: the pin of join strings.
    pub(crate) fn pin(&self) -> String {
        fingerprint(&self.root)
    }

    /// The roots that agents trust: the present one and, when announced, the next.
    pub(crate) fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// What clients' certificates are verified against.
    pub(crate) fn trust_anchors(&self) -> [CertificateDer<'static>; 2] {
        [self.issuing.clone(), self.root.clone()]
    }

    /// The key that signs receipts.
    pub(crate) fn receipt_key(&self) -> &Ed25519KeyPair {
        &self.receipt
    }

    /// Its public half as hex, handed over at enrolment.
    pub(crate) fn receipt_public_key(&self) -> String {
        hex::encode(self.receipt.public_key().as_ref())
    }

    /// A certificate for `appliance` over the request's key, with our own names, uses and life.
    ///
    /// # Errors
    /// If signing fails, which only a damaged issuing key does.
    pub(crate) fn sign_appliance(
        &self,
        request: &GoodRequest,
        appliance: &ApplianceId,
        rng: &dyn SecureRandom,
        now: UnixMs,
    ) -> anyhow::Result<Issued> {
        let not_after_at = now.plus(APPLIANCE_LIFE).min(self.issuing_not_after);
        let mut params = base_params(appliance.as_str(), rng, now, not_after_at)?;
        let urn = format!("urn:mainstay:appliance:{appliance}");
        params.subject_alt_names = vec![SanType::URI(urn.try_into().context("the appliance's name")?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate =
            params.signed_by(&request.request.public_key, &self.issuer).context("signing the appliance's certificate")?;
        Ok(self.issued(&certificate, not_after_at))
    }

    fn issued(&self, certificate: &Certificate, not_after_at: UnixMs) -> Issued {
        let leaf_pem = certificate.pem();
        let chain_pem = format!("{leaf_pem}{}", self.issuing_pem);
        Issued { chain_pem, leaf_pem, fingerprint: fingerprint(certificate.der()), not_after_at }
    }

    /// A certificate and key for the agents' listener, valid for the hosts of `addresses` (`https://host:port`). It lives in
    /// memory only: agents pin the root, so a new one at each start costs nothing and leaves no secret behind.
    ///
    /// # Errors
    /// If an address names no host.
    pub(crate) fn server_identity(
        &self,
        addresses: &[String],
        rng: &dyn SecureRandom,
        now: UnixMs,
    ) -> anyhow::Result<ServerIdentity> {
        let key = KeyPair::generate().context("making the agents' listener's key")?;
        let not_after_at = now.plus(SERVER_LIFE).min(self.issuing_not_after);
        let mut params = base_params("Mainstay collector", rng, now, not_after_at)?;
        for address in addresses {
            let host = host_of(address).with_context(|| format!("agents.addresses: {address:?}: expected https://host:port"))?;
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(host.try_into().context("agents.addresses: a host in ASCII")?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).context("signing the agents' listener's certificate")?;
        let chain = vec![leaf.der().clone(), self.issuing.clone(), self.root.clone()];
        Ok(ServerIdentity { chain, key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())) })
    }
}

/// Hex SHA-256 of a certificate's DER.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, der))
}

/// The fingerprint of the first certificate of a PEM text.
pub(crate) fn fingerprint_of_pem(pem: &str) -> Option<String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| fingerprint(&der))
}

fn ca_params(
    name: &str,
    rng: &dyn SecureRandom,
    now: UnixMs,
    life: Duration,
    path_length: u8,
) -> anyhow::Result<CertificateParams> {
    let mut params = base_params(name, rng, now, now.plus(life))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn base_params(name: &str, rng: &dyn SecureRandom, now: UnixMs, not_after_at: UnixMs) -> anyhow::Result<CertificateParams> {
    let mut serial = [0_u8; 16];
    rng.fill(&mut serial).map_err(|_| anyhow::anyhow!("the system's random generator failed"))?;
    // RFC 5280: positive and at most 20 bytes; one life per serial, also when the key stays the same.
    serial[0] = serial[0] & 0x7f | 0x01;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let backdated_ms = i64::try_from(BACKDATED.as_millis()).unwrap_or(0);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(now.plus_ms(-backdated_ms));
    params.not_after = epoch + seconds(not_after_at);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn seconds(at: UnixMs) -> Duration {
    Duration::from_secs(u64::try_from(at.0 / 1000).unwrap_or(0))
}

fn not_after(der: &CertificateDer<'_>) -> anyhow::Result<UnixMs> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)?;
    Ok(UnixMs(certificate.validity().not_after.timestamp().saturating_mul(1000)))
}

/// The host of `https://host:port`, brackets of an IPv6 address taken off.
fn host_of(address: &str) -> Option<String> {
    let authority = address.strip_prefix("https://")?.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    (!host.is_empty()).then(|| host.to_owned())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}: reading (made by `mainstay-collector init`)", path.display()))
}

fn certificate(path: &Path, pem: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged(path, "a PEM certificate"))
}

fn damaged(path: &Path, accepted: &str) -> anyhow::Error {
    anyhow::anyhow!("{}: expected {accepted}, as `mainstay-collector init` writes it", path.display())
}

fn write_new(path: &PathBuf, bytes: &[u8]) -> anyhow::Result<()> {
    ensure!(!path.exists(), "{}: is there already; keys are made once and never overwritten", path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{}: creating", path.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("{}: writing", path.display()))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn keys_are_made_once_and_signed_certificates_are_ours_not_the_requests() {
        let dir = tempfile::tempdir().expect("a folder");
        let rng = SystemRandom::new();
        let now = UnixMs(1_800_000_000_000);
        assert!(create(dir.path(), &rng, now).expect("creates").0.contains("PRIVATE KEY"));
        assert!(create(dir.path(), &rng, now).is_err(), "a second init must not overwrite keys");
        let authority = Authority::load(dir.path()).expect("loads");
        let key = KeyPair::generate().expect("key");
        let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).expect("params");
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.distinguished_name.push(DnType::CommonName, "evil");
        let csr = wish.serialize_request(&key).expect("csr").pem().expect("pem");
        let request = GoodRequest::read(&csr).expect("good");
        let id = ApplianceId::random(&rng);
        let issued = authority.sign_appliance(&request, &id, &rng, now).expect("signs");
        let der = CertificateDer::from_pem_slice(issued.leaf_pem.as_bytes()).expect("pem");
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).expect("parses");
        assert_eq!(leaf.subject().to_string(), format!("CN={id}"));
        assert!(!leaf.is_ca());
        assert_eq!(not_after(&der).expect("time"), now.plus(APPLIANCE_LIFE));
        let text = format!("{:?}", leaf.subject_alternative_name().expect("san"));
        assert!(text.contains("urn:mainstay:appliance") && !text.contains("evil"), "{text}");
    }

    #[test]
    fn a_request_that_is_damaged_or_of_another_kind_of_key_is_refused() {
        assert!(matches!(GoodRequest::read("hello"), Err(BadRequest::Unreadable(_))));
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
        let csr = CertificateParams::default().serialize_request(&key).expect("csr").pem().expect("pem");
        assert!(matches!(GoodRequest::read(&csr), Err(BadRequest::Algorithm)));
    }

    #[test]
    fn hosts_are_read_from_addresses() {
        for (address, host) in [
            ("https://a.example:8443", Some("a.example")),
            ("https://[::1]:9", Some("::1")),
            ("https://10.0.0.1", Some("10.0.0.1")),
            ("http://a.example", None),
        ] {
            assert_eq!(host_of(address).as_deref(), host, "{address}");
        }
    }
}
