//! What staff do to an appliance: release a held one, retire it, revoke a certificate, allow the renewal of an expired one, ask
//! it for something. Each is one transaction with its event in the chain. Who may do it is settled before, at the door.

use std::time::Duration;

use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::collector_faults;
use super::faults_arrive::ArrivedFrom;
use super::report_arrives::CODE_IDENTITY_CLONED;
use crate::appliances::{ApplianceEvent, ApplianceState, certificates, directives, store, subject};
use crate::audit;
use crate::db::{Conn, Turn, mark_change, transact};
use crate::entitlements::{Entitlement, store as entitlements};

/// How long a wish stands when the appliance can't be reached.
const ASKED_FOR: Duration = Duration::from_secs(3600);

/// An act of staff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApplianceAct {
    /// Ends a hold: the operator is sure that one machine speaks with this identity.
    Release { why: String },
    /// Takes it out of service for good.
    Retire { why: String },
    /// Ends one certificate.
    RevokeCertificate { fingerprint: String, why: String },
    /// Allows the renewal that waits.
    ApproveRenewal,
    /// Says when it is expected to be heard (`faults::silence` reads it); empty: always.
    ExpectHours { hours: String },
    /// Records what the customer is entitled to for it.
    Entitle(Entitlement),
    /// Asks for something through the long poll.
    Ask(Ask),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acted {
    /// It is done.
    Done,
    /// There was nothing to do: not held, no renewal waiting, revoked before.
    NothingToDo,
    /// No such appliance of this tenant.
    NoAppliance,
}

/// Runs `act` on an appliance. `actor` is `staff:ID`, or who the command's caller is.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn act(
    world: &World,
    actor: &str,
    (tenant_id, appliance_id): (&str, &str),
    act: &ApplianceAct,
) -> anyhow::Result<Acted> {
    let now = world.time.now();
    let acted = transact!(world.db, Turn::Console, |tx| { run(tx, world, actor, (tenant_id, appliance_id), act, now).await });
    world.look_now.notify_one();
    Ok(acted)
}

async fn run(
    tx: &mut Conn,
    world: &World,
    actor: &str,
    (tenant_id, appliance_id): (&str, &str),
    act: &ApplianceAct,
    now: UnixMs,
) -> anyhow::Result<Acted> {
    let Some(appliance) = store::get(tx, tenant_id, appliance_id).await? else { return Ok(Acted::NoAppliance) };
    let (done, event) = match act {
        ApplianceAct::Release { why } => {
            let done = appliance.state == ApplianceState::Held
                && store::set_state(tx, tenant_id, appliance_id, ApplianceState::Active, "").await?;
            if done {
                let from = ArrivedFrom {
                    tenant_id: tenant_id.to_owned(),
                    appliance_id: appliance_id.to_owned(),
                    site_id: appliance.site_id.clone(),
                };
                collector_faults::clear(tx, &world.config, now, &from, "agent", CODE_IDENTITY_CLONED, "released").await?;
            }
            (done, ApplianceEvent::Released { why: why.clone() })
        }
        ApplianceAct::Retire { why } => {
            let done = store::set_state(tx, tenant_id, appliance_id, ApplianceState::Retired, "").await?;
            (done, ApplianceEvent::Retired { why: why.clone() })
        }
        ApplianceAct::RevokeCertificate { fingerprint, why } => {
            let done = certificates::revoke(tx, tenant_id, appliance_id, fingerprint, now).await?;
            (done, ApplianceEvent::CertificateRevoked { fingerprint: fingerprint.clone(), why: why.clone() })
        }
        ApplianceAct::ApproveRenewal => {
            let done = certificates::approve_renewal(tx, tenant_id, appliance_id, actor, now).await?;
            (done, ApplianceEvent::RenewalApproved)
        }
        ApplianceAct::ExpectHours { hours } => {
            let done = store::set_expected_hours(tx, tenant_id, appliance_id, hours).await?;
            (done, ApplianceEvent::ExpectedHoursSet { hours: hours.clone() })
        }
        ApplianceAct::Entitle(entitlement) => {
            let done = entitlements::get(tx, tenant_id, appliance_id).await?.as_ref() != Some(entitlement);
            entitlements::put(tx, (tenant_id, appliance_id), entitlement, (actor, now)).await?;
            let Entitlement { software_until_at, hardware_until_at, service_until_at, features } = entitlement.clone();
            let features = features.into_iter().collect();
            (done, ApplianceEvent::EntitlementSet { software_until_at, hardware_until_at, service_until_at, features })
        }
        ApplianceAct::Ask(ask) => {
            let directive = Directive { id: random_hex_128(&world.rng), ask: ask.clone(), expires_at: now.plus(ASKED_FOR) };
            let key = (tenant_id.to_owned(), appliance_id.to_owned());
            directives::add(tx, &key, &directive, actor, now).await?;
            (true, ApplianceEvent::Asked { directive_id: directive.id, ask: directive.ask })
        }
    };
    if !done {
        return Ok(Acted::NothingToDo);
    }
    audit::append(tx, tenant_id, now, actor, &subject(appliance_id), &event).await?;
    mark_change(tx).await?;
    Ok(Acted::Done)
}
