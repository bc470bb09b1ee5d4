//! Enrolment: one join string, a key made on the box, a certificate signed by the vendor.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ids::ApplianceId;

/// What an engineer carries to the box: `mainstay-join:` and base64url of JSON. It holds a secret: never an argument, never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinString {
    /// Addresses of the one service, `https://host:port`.
    pub addresses: Vec<String>,
    /// Hex SHA-256 of the root CA's certificate (DER).
    pub ca_pin: String,
    /// The token's public name.
    pub token_id: String,
    /// The one-use secret.
    pub secret: String,
}

impl fmt::Debug for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinString").field("addresses", &self.addresses).field("token_id", &self.token_id).finish_non_exhaustive()
    }
}

/// Why a text is no join string. It never repeats the text, which may hold a secret (R33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "join string: {0}; expected the whole line that `mainstay-collector join-token` printed, beginning with \"mainstay-join:\""
)]
pub struct BadJoinString(&'static str);

const PREFIX: &str = "mainstay-join:";

impl FromStr for JoinString {
    type Err = BadJoinString;
    fn from_str(text: &str) -> Result<Self, BadJoinString> {
        if text.len() > 8192 {
            return Err(BadJoinString("longer than 8192 bytes"));
        }
        let body = text.trim().strip_prefix(PREFIX).ok_or(BadJoinString("it does not begin as one"))?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| BadJoinString("it is damaged or cut short (not base64url)"))?;
        let join: Self = serde_json::from_slice(&json).map_err(|_| BadJoinString("it is damaged or cut short"))?;
        if join.addresses.is_empty() || !join.addresses.iter().all(|a| a.starts_with("https://")) {
            return Err(BadJoinString("it names no https:// address"));
        }
        if join.ca_pin.len() != 64 || !join.ca_pin.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadJoinString("its CA pin is not 64 hex digits"));
        }
        Ok(join)
    }
}

impl JoinString {
    /// The text form. Not `Display`, so that it can't slip into a log by accident.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

/// What the box tells of itself when it enrols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// [`crate::api::WIRE_VERSION`] of the sender.
    pub version: u32,
    /// The token's public name.
    pub token_id: String,
    /// The one-use secret.
    pub secret: String,
    /// PEM of a PKCS#10 request; only its public key is used.
    pub csr_pem: String,
    /// The host's name; untrusted text.
    pub hostname: String,
    /// Product, model and serial as DMI or the product's own file tells; untrusted, may be "Default string".
    pub hardware: Hardware,
    /// The agent's version.
    pub agent_version: String,
    /// A random id of this attempt: the same attempt repeated (answer lost) gets the same enrolment.
    pub attempt_id: String,
}

/// What the machine says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hardware {
    /// Maker.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
}

/// What the box keeps from its enrolment (or renewal).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolReply {
    /// Its identity from now on.
    pub appliance: ApplianceId,
    /// Its certificate and the issuing CA's, PEM, leaf first.
    pub chain_pem: String,
    /// Root CA certificates to trust, PEM: the present root and, when announced, the next.
    pub roots_pem: String,
    /// Hex of the Ed25519 key that signs receipts.
    pub receipt_key: String,
}

/// `POST /agent/v1/renew`: over mTLS with the present certificate, or without one when it has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// [`crate::api::WIRE_VERSION`] of the sender.
    pub version: u32,
    /// PEM of a PKCS#10 request by the *same* key; its self-signature proves possession.
    pub csr_pem: String,
    /// PEM of the certificate to renew, when it has expired and so can't be shown in the handshake.
    #[serde(default)]
    pub expired_pem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> JoinString {
        JoinString {
            addresses: vec!["https://support.example:8443".into()],
            ca_pin: "ab".repeat(32),
            token_id: "t1".into(),
            secret: "s3cret".into(),
        }
    }

    #[test]
    fn a_join_string_reads_back_and_hides_its_secret_in_debug() {
        let text = join().to_secret_text();
        assert_eq!(text.parse::<JoinString>().expect("parses"), join());
        assert!(!format!("{:?}", join()).contains("s3cret"));
    }

    #[test]
    fn a_damaged_join_string_is_refused_without_repeating_it() {
        let text = join().to_secret_text();
        for cut in 0..text.len() {
            let error = text[..cut].parse::<JoinString>().expect_err("refused");
            assert!(cut < 20 || !error.to_string().contains(&text[15..cut]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            proptest::prop_assert!(text.parse::<JoinString>().is_err() || text.trim().starts_with(PREFIX));
        }
    }
}
