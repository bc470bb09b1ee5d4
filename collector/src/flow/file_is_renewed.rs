//! A file was signed anew: the same content with other signatures, and so with another hash. Offers of it that no box has taken up yet are
//! made anew, with their links; a box that holds the file as it was keeps it: those signatures last until their date.

use mainstay_shared::ids::random_hex_128;
use mainstay_shared::patch::PatchStep;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::file_is_offered::{end, write};
use crate::audit;
use crate::db::Conn;
use crate::releases::life::OfferState;
use crate::releases::{OfferRow, ReleaseFile, links, offers};

/// Makes anew what was offered of `file` with another hash.
///
/// # Errors
/// If the database refuses.
pub(super) async fn file_is_renewed(tx: &mut Conn, world: &World, file: &ReleaseFile, now: UnixMs) -> anyhow::Result<()> {
    let waits = |offer: &OfferRow| {
        let not_taken = matches!(offer.state, OfferState::Offered | OfferState::Box(PatchStep::Fetching));
        offer.ended_at.is_none() && not_taken && offer.sha256 != file.sha256
    };
    for offer in offers::of_name(tx, &file.file, None, i64::MAX).await?.into_iter().filter(waits) {
        end(tx, world, audit::SYSTEM, offer.clone(), OfferState::TakenBack, now).await?;
        links::follow(tx, (&offer.tenant_id, &offer.batch_id), &file.sha256).await?;
        let key = (offer.tenant_id.as_str(), offer.appliance_id.as_str());
        if offers::of_file(tx, key, &file.sha256).await?.is_some_and(|other| other.ended_at.is_none()) {
            continue;
        }
        let anew = OfferRow {
            offer_id: random_hex_128(&world.rng),
            sha256: file.sha256.clone(),
            bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
            state: OfferState::Offered,
            percent: 0,
            number: 0,
            made_at: now,
            changed_at: now,
            expires_at: offer.expires_at.min(file.expires_at),
            ..offer
        };
        write(tx, world, audit::SYSTEM, &anew, now).await?;
    }
    Ok(())
}
