//! An appliance's signed receipt arrives by hand: what a box without a network did with signed files. Believed only if a certificate
//! that this service issued to that appliance signed it (R13); then it is taken as its records would be. Duplicates are harmless.

use mainstay_shared::patch_receipt::{BadReceipt, PatchReceipt, SignedReceipt};
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::faults_arrive::ArrivedFrom;
use super::patch_is_reported::patch_is_reported;
use crate::appliances::{certificates, store as appliances};
use crate::db::{Conn, Turn, mark_change, transact};
use crate::intake::rules::clean_patch;
use crate::releases::reports::Way;

/// What a receipt brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    /// Reports in it.
    pub(crate) reports: usize,
    /// Of these, not known before.
    pub(crate) new: usize,
}

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    /// No receipt, or not signed by the certificate that it names.
    #[error(transparent)]
    Bad(#[from] BadReceipt),
    /// A certificate that this service never issued, or that was revoked.
    #[error("it is signed by a certificate that is not known here or was revoked")]
    UnknownCertificate,
    /// It names another appliance than its certificate.
    #[error("it names another appliance than the certificate that signed it")]
    OtherAppliance,
    /// An appliance of another customer than the caller serves.
    #[error("it is of an appliance that is not known here")]
    NotYours,
}

/// Reads a `.mreceipt`. `tenant`: the one customer that the caller may touch, or all.
///
/// # Errors
/// The outer error is the database's; the inner says why it is not taken.
pub(crate) async fn receipt_is_read(world: &World, tenant: Option<&str>, file: &[u8]) -> anyhow::Result<Result<Read, NotTaken>> {
    let signed = match SignedReceipt::read(file) {
        Ok(signed) => signed,
        Err(bad) => return Ok(Err(bad.into())),
    };
    let now = world.time.now();
    let read = transact!(world.db, Turn::Console, |tx| {
        match believed(tx, tenant, &signed).await? {
            Ok((who, receipt)) => take(tx, world, who, receipt, now).await.map(Ok),
            Err(not) => Ok(Err(not)),
        }
    });
    world.look_now.notify_one();
    Ok(read)
}

/// An expired certificate may still have signed what is true: the box that has no network renews nothing.
async fn believed(
    tx: &mut Conn,
    tenant: Option<&str>,
    signed: &SignedReceipt,
) -> anyhow::Result<Result<(ArrivedFrom, PatchReceipt), NotTaken>> {
    let certificate = certificates::get(tx, &signed.certificate).await?.filter(|known| known.revoked_at.is_none());
    let Some(certificate) = certificate else { return Ok(Err(NotTaken::UnknownCertificate)) };
    if tenant.is_some_and(|own| own != certificate.tenant_id) {
        return Ok(Err(NotTaken::NotYours));
    }
    let key = hex::decode(&certificate.public_key).unwrap_or_default();
    let receipt = match signed.verify(&key) {
        Ok(receipt) => receipt,
        Err(bad) => return Ok(Err(bad.into())),
    };
    if receipt.appliance.as_str() != certificate.appliance_id {
        return Ok(Err(NotTaken::OtherAppliance));
    }
    let appliance = appliances::get(tx, &certificate.tenant_id, &certificate.appliance_id).await?;
    let Some(appliance) = appliance else { return Ok(Err(NotTaken::NotYours)) };
    let who =
        ArrivedFrom { tenant_id: certificate.tenant_id, appliance_id: certificate.appliance_id, site_id: appliance.site_id };
    Ok(Ok((who, receipt)))
}

async fn take(tx: &mut Conn, world: &World, who: ArrivedFrom, receipt: PatchReceipt, now: UnixMs) -> anyhow::Result<Read> {
    let mut new = 0;
    let at = receipt.at.min(now);
    for report in &receipt.reports {
        let Ok(report) = clean_patch(report) else { continue };
        let taken = patch_is_reported(tx, &world.config, &who, &report, Way::Receipt, (at, now)).await?;
        new += usize::from(taken);
    }
    mark_change(tx).await?;
    Ok(Read { tenant_id: who.tenant_id, appliance_id: who.appliance_id, reports: receipt.reports.len(), new })
}
