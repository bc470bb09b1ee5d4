//! Somebody uses the link of a mail: looks, asks the box by the six digits that it shows, downloads the file for a stick.
//!
//! The link identifies and authorises nothing (R18): what was typed is carried to the box, which made the code and judges it. A form
//! without six digits changes nothing; codes and downloads are counted, so that no gateway and no guesser goes on for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_shared::directive::Ask;
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::Decision;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::file_is_offered::{ask, note};
use crate::appliances::{Appliance, store as appliances};
use crate::db::{Conn, Turn, transact};
use crate::releases::links::{self, Link};
use crate::releases::{FileState, OfferRow, ReleaseFile, files, offers};

/// What was typed is carried to the box within this time, or never.
const CARRIED_WITHIN: Duration = Duration::from_secs(3600);

/// What stands behind a token.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    pub(crate) link: Link,
    pub(crate) file: ReleaseFile,
    /// The offers that it is about, with their boxes.
    pub(crate) offers: Vec<(OfferRow, Appliance)>,
}

/// What was typed at the page, for one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) offer_id: String,
    pub(crate) code: String,
    pub(crate) decision: Decision,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// On its way to the box, which judges the code.
    OnItsWay,
    /// Not six digits: nothing was done.
    NoCode,
    /// The offer is over, or not this link's.
    NotOpen,
    /// Too many codes were typed at this link.
    TooMany,
    /// A refusal needs its reason.
    NoReason,
    /// No such link, or no longer.
    NoLink,
}

/// What stands behind a token now; `None`: no such link, or no longer. Changes nothing.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn look(world: &World, token: &str) -> anyhow::Result<Option<Behind>> {
    let mut conn = world.db.snapshot().await?;
    behind(&mut conn, token, world.time.now()).await
}

async fn behind(conn: &mut Conn, token: &str, now: UnixMs) -> anyhow::Result<Option<Behind>> {
    let Some(link) = links::by_token(conn, token, now).await? else { return Ok(None) };
    // A batch is of one content. Signed anew, an appliance's offer was made anew: the living one counts, or else the newest.
    let mut of_batch: BTreeMap<String, OfferRow> = BTreeMap::new();
    let counts = |offer: &OfferRow| (offer.ended_at.is_none(), offer.made_at);
    for offer in offers::of_batch(conn, &link.tenant_id, &link.batch_id).await? {
        if of_batch.get(&offer.appliance_id).is_none_or(|other| counts(other) < counts(&offer)) {
            of_batch.insert(offer.appliance_id.clone(), offer);
        }
    }
    let mut found = Vec::new();
    for offer in of_batch.into_values() {
        if let Some(appliance) = appliances::get(conn, &link.tenant_id, &offer.appliance_id).await? {
            found.push((offer, appliance));
        }
    }
    let Some((first, _)) = found.first() else { return Ok(None) };
    let Some(file) = files::get(conn, &first.file).await? else { return Ok(None) };
    Ok(Some(Behind { link, file, offers: found }))
}

/// Carries what was typed to the box.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn decide(world: &World, token: &str, typed: &Typed) -> anyhow::Result<Carried> {
    let code = typed.code.trim();
    if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Carried::NoCode);
    }
    let decision = match &typed.decision {
        Decision::Approve => Decision::Approve,
        Decision::Refuse { reason } => Decision::Refuse { reason: clean_text(reason.trim(), MAX_TEXT_CHARS) },
    };
    if matches!(&decision, Decision::Refuse { reason } if reason.is_empty()) {
        return Ok(Carried::NoReason);
    }
    let now = world.time.now();
    let carried = transact!(world.db, Turn::Console, |tx| {
        let Some(behind) = behind(tx, token, now).await? else { return Ok(Carried::NoLink) };
        let named = behind.offers.into_iter().map(|(offer, _)| offer).find(|offer| offer.offer_id == typed.offer_id);
        let Some(mut offer) = named.filter(|offer| offer.ended_at.is_none()) else { return Ok(Carried::NotOpen) };
        if !links::count_code(tx, &behind.link.token_hash).await? {
            return Ok(Carried::TooMany);
        }
        let (word, text) = match &decision {
            Decision::Approve => ("approve", ""),
            Decision::Refuse { reason } => ("refuse", reason.as_str()),
        };
        (offer.decision, offer.decided_at) = (word.to_owned(), Some(now));
        offers::update(tx, &offer).await?;
        let actor = format!("link:{}", behind.link.recipient);
        let wish = Ask::Decided { offer_id: offer.offer_id.clone(), decision: decision.clone(), code: code.to_owned() };
        ask(tx, world, &actor, &offer, wish, (now, now.plus(CARRIED_WITHIN))).await?;
        note(tx, world, &actor, &offer, (&format!("{word}_typed"), "", text), now).await?;
        Ok(Carried::OnItsWay)
    });
    world.look_now.notify_one();
    Ok(carried)
}

/// What becomes of a wish to download.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one at a time, never kept")]
pub(crate) enum Download {
    /// Counted: this file is to be sent, or a part of it.
    File(ReleaseFile),
    /// Every offer of the link is over.
    Over,
    /// The file lies there no more as it was offered.
    NotGood,
    /// There were enough.
    TooMany,
    /// No such link, or no longer.
    NoLink,
}

/// Counts a download and answers the file to be sent. A part of it counts like the whole, or nobody would have to ask for the whole.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn download(world: &World, token: &str) -> anyhow::Result<Download> {
    let now = world.time.now();
    Ok(transact!(world.db, Turn::Console, |tx| {
        let Some(behind) = behind(tx, token, now).await? else { return Ok(Download::NoLink) };
        let open: Vec<&OfferRow> =
            behind.offers.iter().map(|(offer, _)| offer).filter(|offer| offer.ended_at.is_none()).collect();
        if open.is_empty() {
            return Ok(Download::Over);
        }
        if behind.file.state != FileState::Good || behind.file.sha256 != behind.link.sha256 {
            return Ok(Download::NotGood);
        }
        if !links::count_download(tx, &behind.link.token_hash).await? {
            return Ok(Download::TooMany);
        }
        // Told once a link: gateways and managers of downloads ask many times.
        if behind.link.downloads == 0 {
            let actor = format!("link:{}", behind.link.recipient);
            for offer in open {
                note(tx, world, &actor, offer, ("downloaded", "", ""), now).await?;
            }
        }
        Ok(Download::File(behind.file))
    }))
}
