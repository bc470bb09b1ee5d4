//! A certificate renews: a living one by itself, over the connection that it proves; an expired one with the same key and an
//! operator's click, and nothing else (R26). Never a new key, never another appliance.

use mainstay_shared::ids::ApplianceId;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::appliance_enrols::record;
use super::collector_faults;
use super::faults_arrive::ArrivedFrom;
use crate::appliances::authority::{Authority, GoodRequest};
use crate::appliances::certificates::{self, StoredCertificate};
use crate::appliances::{ApplianceEvent, ApplianceState, store, subject};
use crate::audit;
use crate::db::{Conn, Turn, mark_change, transact};

/// The code of the fault that a waiting renewal raises, on the component `agent`.
pub(crate) const CODE_RENEWAL_WAITS: &str = "certificate_renewal_waits";

/// How the old certificate was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// In the handshake, which verified it.
    InHandshake,
    /// In the message, because it has expired.
    InMessage,
}

/// What became of a renewal.
#[derive(Debug, Clone)]
pub(crate) enum Renewal {
    /// The appliance and its new chain (PEM, leaf first).
    Renewed { appliance: ApplianceId, chain_pem: String },
    /// It waits for an operator's click.
    WaitsForOperator,
    /// No.
    Refused(RenewalRefusal),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewalRefusal {
    /// Not one of ours, revoked, or of a retired appliance.
    NotEnrolled,
    /// It has not expired: it is to be shown in the handshake.
    StillValid,
    /// The request is for another key.
    OtherKey,
}

/// What is decided on a renewal before anything is written: pure.
fn decide(
    old: Option<&StoredCertificate>,
    state: Option<ApplianceState>,
    public_key: &str,
    shown: Shown,
    now: UnixMs,
) -> Result<(), RenewalRefusal> {
    let (Some(old), Some(state)) = (old, state) else { return Err(RenewalRefusal::NotEnrolled) };
    if old.revoked_at.is_some() || state == ApplianceState::Retired {
        Err(RenewalRefusal::NotEnrolled)
    } else if old.public_key != public_key {
        Err(RenewalRefusal::OtherKey)
    } else if shown == Shown::InMessage && now < old.not_after_at {
        Err(RenewalRefusal::StillValid)
    } else {
        Ok(())
    }
}

/// Runs the story for the certificate of that fingerprint.
///
/// # Errors
/// If the database or the signing key fails.
pub(crate) async fn certificate_renews(
    world: &World,
    authority: &Authority,
    csr: &GoodRequest,
    fingerprint: &str,
    shown: Shown,
) -> anyhow::Result<Renewal> {
    let now = world.time.now();
    let outcome = transact!(world.db, Turn::Intake, |tx| { renew(tx, world, authority, csr, fingerprint, shown, now).await });
    world.look_now.notify_one();
    Ok(outcome)
}

async fn renew(
    tx: &mut Conn,
    world: &World,
    authority: &Authority,
    csr: &GoodRequest,
    fingerprint: &str,
    shown: Shown,
    now: UnixMs,
) -> anyhow::Result<Renewal> {
    let old = certificates::get(tx, fingerprint).await?;
    let appliance = match &old {
        Some(old) => store::get(tx, &old.tenant_id, &old.appliance_id).await?,
        None => None,
    };
    let public_key = csr.public_key();
    if let Err(why) = decide(old.as_ref(), appliance.as_ref().map(|found| found.state), &public_key, shown, now) {
        return Ok(Renewal::Refused(why));
    }
    let Some(appliance) = appliance else { return Ok(Renewal::Refused(RenewalRefusal::NotEnrolled)) };
    let (tenant_id, id) = (appliance.tenant_id, appliance.appliance_id);
    let from = ArrivedFrom { tenant_id: tenant_id.clone(), appliance_id: id.clone(), site_id: appliance.site_id };
    let subject = subject(&id);
    if shown == Shown::InMessage {
        let waiting = certificates::renewal_of(tx, &tenant_id, &id).await?;
        if !waiting.is_some_and(|waiting| waiting.approved_at.is_some() && waiting.public_key == public_key) {
            if certificates::request_renewal(tx, &tenant_id, &id, &public_key, now).await? {
                let event = ApplianceEvent::RenewalRequested { public_key };
                audit::append(tx, &tenant_id, now, &subject, &subject, &event).await?;
                collector_faults::raise(tx, &world.config, now, &from, "agent", CODE_RENEWAL_WAITS, "").await?;
                mark_change(tx).await?;
            }
            return Ok(Renewal::WaitsForOperator);
        }
        certificates::end_renewal(tx, &tenant_id, &id).await?;
        collector_faults::clear(tx, &world.config, now, &from, "agent", CODE_RENEWAL_WAITS, "renewed").await?;
    }
    let appliance: ApplianceId = id.parse()?;
    let issued = authority.sign_appliance(csr, &appliance, &world.rng, now)?;
    record(tx, &tenant_id, &appliance, csr, &issued, now).await?;
    let event = ApplianceEvent::Renewed { fingerprint: issued.fingerprint, had_expired: shown == Shown::InMessage };
    audit::append(tx, &tenant_id, now, &subject, &subject, &event).await?;
    mark_change(tx).await?;
    Ok(Renewal::Renewed { appliance, chain_pem: issued.chain_pem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_renews_only_with_its_own_key_and_in_its_own_way() {
        let old = StoredCertificate {
            fingerprint: "f".into(),
            tenant_id: "t".into(),
            appliance_id: "a".into(),
            public_key: "k".into(),
            pem: String::new(),
            not_after_at: UnixMs(100),
            issued_at: UnixMs(0),
            revoked_at: None,
        };
        let revoked = StoredCertificate { revoked_at: Some(UnixMs(5)), ..old.clone() };
        let active = Some(ApplianceState::Active);
        let (before, after) = (UnixMs(50), UnixMs(100));
        let rows = [
            ("a living one in the handshake", decide(Some(&old), active, "k", Shown::InHandshake, before), Ok(())),
            ("an expired one in the message", decide(Some(&old), active, "k", Shown::InMessage, after), Ok(())),
            ("a held appliance's", decide(Some(&old), Some(ApplianceState::Held), "k", Shown::InHandshake, before), Ok(())),
            (
                "a living one in the message",
                decide(Some(&old), active, "k", Shown::InMessage, before),
                Err(RenewalRefusal::StillValid),
            ),
            ("another key", decide(Some(&old), active, "l", Shown::InHandshake, before), Err(RenewalRefusal::OtherKey)),
            ("a revoked one", decide(Some(&revoked), active, "k", Shown::InMessage, after), Err(RenewalRefusal::NotEnrolled)),
            ("a stranger's", decide(None, None, "k", Shown::InMessage, after), Err(RenewalRefusal::NotEnrolled)),
            (
                "a retired appliance's",
                decide(Some(&old), Some(ApplianceState::Retired), "k", Shown::InMessage, after),
                Err(RenewalRefusal::NotEnrolled),
            ),
        ];
        for (sentence, got, expected) in rows {
            assert_eq!(got, expected, "{sentence}");
        }
    }
}
