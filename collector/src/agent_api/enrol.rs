//! `POST /agent/v1/enroll`: a join secret and a certificate request for an identity. One sentence answers every refusal.

use axum::http::StatusCode;
use mainstay_shared::api::error_words;
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest};

use super::{Answered, Door, Peer, Refusal, check_version};
use crate::appliances::authority::GoodRequest;
use crate::flow::appliance_enrols::{Enrolment, appliance_enrols};

pub(super) async fn answer(door: &Door, peer: &Peer, request: EnrolRequest) -> Result<Answered, Refusal> {
    check_version(request.version)?;
    if request.attempt_id.len() < 16 {
        return Err(Refusal::bad_message("attempt_id: expected at least 16 random characters".to_owned()));
    }
    let csr = GoodRequest::read(&request.csr_pem).map_err(|bad| Refusal::bad_message(bad.to_string()))?;
    match appliance_enrols(&door.world, &door.authority, &csr, &request).await? {
        Enrolment::Enrolled { appliance, chain_pem } => {
            tracing::info!(%appliance, peer = %peer.address, "enrolled");
            Answered::ok(&reply(door, appliance, chain_pem))
        }
        Enrolment::Refused(why) => {
            tracing::warn!(peer = %peer.address, why = why.as_str(), "an enrolment was refused");
            let message = "the join secret is unknown, used up or expired: ask for a new join string";
            Err(Refusal::new(StatusCode::FORBIDDEN, error_words::BAD_JOIN_SECRET, message.to_owned()))
        }
    }
}

/// What a box keeps from its enrolment or renewal.
pub(super) fn reply(door: &Door, appliance: mainstay_shared::ids::ApplianceId, chain_pem: String) -> EnrolReply {
    EnrolReply {
        appliance,
        chain_pem,
        roots_pem: door.authority.roots_pem().to_owned(),
        receipt_key: door.authority.receipt_public_key(),
    }
}
