//! An appliance enrols: a join secret is spent, an identity made, a certificate signed. All in one transaction, so that fifty who
//! race with one secret get one identity; the same attempt, repeated because its answer was lost, gets its own again.

use anyhow::Context as _;
use mainstay_shared::enrolment::EnrolRequest;
use mainstay_shared::ids::ApplianceId;
use mainstay_shared::limits::{MAX_NAME_CHARS, clean_text};
use mainstay_shared::time_source::UnixMs;

use super::World;
use crate::appliances::authority::{Authority, GoodRequest, Issued};
use crate::appliances::certificates::{self, StoredCertificate};
use crate::appliances::join::{EarlierAttempt, JoinDecision, JoinRefusal, JoinToken, decide};
use crate::appliances::{Appliance, ApplianceEvent, ApplianceState, store, subject, tokens};
use crate::audit;
use crate::db::{Conn, Turn, mark_change, transact};

/// What became of a join request.
#[derive(Debug, Clone)]
pub(crate) enum Enrolment {
    /// The appliance and its certificate chain (PEM, leaf first).
    Enrolled { appliance: ApplianceId, chain_pem: String },
    /// No; the box is told one sentence for all reasons.
    Refused(JoinRefusal),
}

/// Runs the story.
///
/// # Errors
/// If the database or the signing key fails.
pub(crate) async fn appliance_enrols(
    world: &World,
    authority: &Authority,
    csr: &GoodRequest,
    request: &EnrolRequest,
) -> anyhow::Result<Enrolment> {
    let now = world.time.now();
    let outcome = transact!(world.db, Turn::Intake, |tx| { enrol(tx, world, authority, csr, request, now).await });
    world.look_now.notify_one();
    Ok(outcome)
}

async fn enrol(
    tx: &mut Conn,
    world: &World,
    authority: &Authority,
    csr: &GoodRequest,
    request: &EnrolRequest,
    now: UnixMs,
) -> anyhow::Result<Enrolment> {
    let token = tokens::get(tx, &word(&request.token_id)).await?;
    let attempt = word(&request.attempt_id);
    let earlier = match &token {
        Some(token) => earlier_attempt(tx, token, &attempt).await?,
        None => None,
    };
    let decision = decide(token.as_ref(), &request.secret, &csr.public_key(), earlier, now);
    let (token, appliance_id) = match (decision, token) {
        (JoinDecision::Refuse(why), _) => return Ok(Enrolment::Refused(why)),
        (JoinDecision::Enrol, Some(token)) => {
            if !tokens::spend(tx, &token.token_id, now).await? {
                return Ok(Enrolment::Refused(JoinRefusal::UsedUp));
            }
            let appliance = newcomer(&token, request, ApplianceId::random(&world.rng).as_str(), now);
            store::add(tx, &appliance, &attempt_key(&token, &attempt)).await?;
            (token, appliance.appliance_id)
        }
        (JoinDecision::AnswerAgain { appliance_id }, Some(token)) => (token, appliance_id),
        (_, None) => return Ok(Enrolment::Refused(JoinRefusal::UnknownToken)),
    };
    let appliance: ApplianceId = appliance_id.parse().context("the appliance's id")?;
    let issued = authority.sign_appliance(csr, &appliance, &world.rng, now)?;
    record(tx, &token.tenant_id, &appliance, csr, &issued, now).await?;
    let event = ApplianceEvent::Enrolled {
        token_id: token.token_id.clone(),
        fingerprint: issued.fingerprint.clone(),
        hostname: word(&request.hostname),
        serial: word(&request.hardware.serial),
    };
    let subject = subject(appliance.as_str());
    audit::append(tx, &token.tenant_id, now, &subject, &subject, &event).await?;
    mark_change(tx).await?;
    Ok(Enrolment::Enrolled { appliance, chain_pem: issued.chain_pem })
}

/// Keeps an issued certificate.
pub(crate) async fn record(
    tx: &mut Conn,
    tenant_id: &str,
    appliance: &ApplianceId,
    csr: &GoodRequest,
    issued: &Issued,
    now: UnixMs,
) -> Result<(), sqlx::Error> {
    let certificate = StoredCertificate {
        fingerprint: issued.fingerprint.clone(),
        tenant_id: tenant_id.to_owned(),
        appliance_id: appliance.to_string(),
        public_key: csr.public_key(),
        pem: issued.leaf_pem.clone(),
        not_after_at: issued.not_after_at,
        issued_at: now,
        revoked_at: None,
    };
    certificates::add(tx, &certificate).await
}

async fn earlier_attempt(tx: &mut Conn, token: &JoinToken, attempt: &str) -> anyhow::Result<Option<EarlierAttempt>> {
    let Some(appliance) = store::by_attempt(tx, &token.tenant_id, &attempt_key(token, attempt)).await? else { return Ok(None) };
    let held = certificates::of_appliance(tx, &token.tenant_id, &appliance.appliance_id).await?;
    let public_keys = held.into_iter().filter(|held| held.revoked_at.is_none()).map(|held| held.public_key).collect();
    Ok(Some(EarlierAttempt { appliance_id: appliance.appliance_id, public_keys }))
}

fn attempt_key(token: &JoinToken, attempt: &str) -> String {
    format!("{}:{attempt}", token.token_id)
}

fn newcomer(token: &JoinToken, request: &EnrolRequest, appliance_id: &str, now: UnixMs) -> Appliance {
    Appliance {
        tenant_id: token.tenant_id.clone(),
        appliance_id: appliance_id.to_owned(),
        site_id: token.site_id.clone(),
        name: word(&request.hostname),
        product: token.product.clone(),
        vendor: word(&request.hardware.vendor),
        model: word(&request.hardware.model),
        serial: word(&request.hardware.serial),
        duty: token.duty.clone(),
        parts: "[]".to_owned(),
        agent_version: word(&request.agent_version),
        platform: String::new(),
        state: ApplianceState::Active,
        held_reason: String::new(),
        expected_hours: String::new(),
        enrolled_at: now,
    }
}

fn word(text: &str) -> String {
    clean_text(text, MAX_NAME_CHARS)
}
