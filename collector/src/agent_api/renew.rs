//! `POST /agent/v1/renew`: a new certificate for the same key, by a living certificate in the handshake or an expired one in the
//! message, which then waits for an operator.

use axum::http::StatusCode;
use hyper::body::Bytes;
use mainstay_shared::enrolment::RenewRequest;

use super::{Answered, Door, Peer, Refusal, body, check_version, enrol};
use crate::appliances::Identity;
use crate::appliances::authority::{GoodRequest, fingerprint_of_pem};
use crate::flow::certificate_renews::{Renewal, RenewalRefusal, Shown, certificate_renews};

pub(super) async fn answer(door: &Door, peer: &Peer, identity: Option<Identity>, bytes: Bytes) -> Result<Answered, Refusal> {
    let request: RenewRequest = body::parse(&bytes)?;
    check_version(request.version)?;
    let csr = GoodRequest::read(&request.csr_pem).map_err(|bad| Refusal::bad_message(bad.to_string()))?;
    let (fingerprint, shown) = match (&peer.fingerprint, identity, &request.expired_pem) {
        (Some(fingerprint), Some(_), _) => (fingerprint.clone(), Shown::InHandshake),
        (None, _, Some(pem)) => (fingerprint_of_pem(pem).ok_or_else(Refusal::not_enrolled)?, Shown::InMessage),
        _ => return Err(Refusal::not_enrolled()),
    };
    match certificate_renews(&door.world, &door.authority, &csr, &fingerprint, shown).await? {
        Renewal::Renewed { appliance, chain_pem } => Answered::ok(&enrol::reply(door, appliance, chain_pem)),
        Renewal::WaitsForOperator => Ok(Answered::waits_for_operator()),
        Renewal::Refused(RenewalRefusal::NotEnrolled) => Err(Refusal::not_enrolled()),
        Renewal::Refused(RenewalRefusal::StillValid) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "still_valid",
            "the certificate has not expired: show it in the TLS handshake".to_owned(),
        )),
        Renewal::Refused(RenewalRefusal::OtherKey) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "other_key",
            "a renewal keeps the key of the certificate that it renews".to_owned(),
        )),
    }
}
