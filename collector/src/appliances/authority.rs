//! The certificate authority of the appliances: root and issuing CA, the agents' server certificate, the receipt key.
//!
//! Signatures that the commands call; the keys stand in `<data_dir>/keys`.

use std::path::Path;

use mainstay_shared::time_source::UnixMs;
use ring::rand::SystemRandom;

/// Makes root and issuing CA in `dir`; returns the root's key, which must not stay on this machine.
pub(crate) fn create(_dir: &Path, _rng: &SystemRandom, _now: UnixMs) -> anyhow::Result<String> {
    anyhow::bail!("the certificate authority is not built in yet")
}

/// Hex SHA-256 of the root CA's certificate.
pub(crate) fn ca_pin(_dir: &Path) -> anyhow::Result<String> {
    anyhow::bail!("the certificate authority is not built in yet")
}
