//! Staff offer a signed file to appliances, or take an offer back. One transaction: offers, directives, events, links and their mails.
//!
//! An offer carries no authority; the box judges the file. Whether the vendor offers is `releases::rules`; who may is settled here.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::patch::PatchKind;
use mainstay_shared::severity::Severity;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::record::{Desk, happened};
use crate::appliances::{Appliance, ApplianceEvent, ApplianceState, PatchNews, directives, store as appliances, subject};
use crate::audit;
use crate::customers::store as customers;
use crate::db::{Conn, Turn, mark_change, transact};
use crate::entitlements;
use crate::notices::{self, patch_mail};
use crate::releases::life::OfferState;
use crate::releases::links::{self, Link};
use crate::releases::rules::{Circumstances, NotOffered, may_offer};
use crate::releases::{OfferRow, ReleaseFile, files, kind_name, offers, reports};
use crate::tickets::acts::By;
use crate::tickets::{TicketEvent, store as tickets};

/// So long a patch waits for a box that is not heard.
const PATCH_STANDS: Duration = Duration::from_secs(30 * 86_400);
/// An action belongs to its moment.
const ACTION_STANDS: Duration = Duration::from_secs(86_400);
/// Appliances in one go.
pub(crate) const MOST_AT_ONCE: usize = 500;

/// What staff want.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) file: String,
    pub(crate) appliances: Vec<String>,
    /// The ticket that it is offered from, or nothing.
    pub(crate) ticket_id: String,
    /// It is charged, and the customer ordered it.
    pub(crate) ordered: bool,
    /// The customers' contacts get a mail with a link.
    pub(crate) by_mail: bool,
}

/// What became of it for one appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) appliance_id: String,
    pub(crate) outcome: Result<String, NotOffered>,
}

/// Why nothing was offered at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The role does not do this.
    #[error("offering files takes system_engineer, support_manager or service_manager")]
    Role,
    /// No file of that name in the repository.
    #[error("there is no file {0:?} in the repository")]
    NoFile(String),
    /// No appliance, or more than in one go.
    #[error("{0} appliances: expected 1 to {MOST_AT_ONCE}")]
    Count(usize),
    /// The ticket is not there.
    #[error("there is no ticket {0:?}")]
    NoTicket(String),
}

/// Offers a file.
///
/// # Errors
/// The outer error is the database's; the inner says why nothing was offered.
pub(crate) async fn offer(
    world: &World,
    by: &By,
    tenant: Option<&str>,
    wish: &Wish,
) -> anyhow::Result<Result<Vec<Offered>, Refused>> {
    if !by.role.works_on_tickets() {
        return Ok(Err(Refused::Role));
    }
    if !(1..=MOST_AT_ONCE).contains(&wish.appliances.len()) {
        return Ok(Err(Refused::Count(wish.appliances.len())));
    }
    let now = world.time.now();
    let done = transact!(world.db, Turn::Console, |tx| { offer_all(tx, world, by, tenant, wish, now).await });
    world.look_now.notify_one();
    Ok(done)
}

async fn offer_all(
    tx: &mut Conn,
    world: &World,
    by: &By,
    tenant: Option<&str>,
    wish: &Wish,
    now: UnixMs,
) -> anyhow::Result<Result<Vec<Offered>, Refused>> {
    let Some(file) = files::get(tx, &wish.file).await? else { return Ok(Err(Refused::NoFile(wish.file.clone()))) };
    if !wish.ticket_id.is_empty() {
        let ticket = tickets::find(tx, &wish.ticket_id).await?;
        if ticket.is_none_or(|ticket| tenant.is_some_and(|tenant| ticket.tenant_id != tenant)) {
            return Ok(Err(Refused::NoTicket(wish.ticket_id.clone())));
        }
    }
    let mut told = Vec::new();
    let mut made: BTreeMap<String, Vec<(OfferRow, Appliance)>> = BTreeMap::new();
    for appliance_id in &wish.appliances {
        let outcome = match known(tx, tenant, appliance_id).await? {
            None => Err(NotOffered::NoAppliance),
            Some(appliance) => {
                let judged = may_offer(&file, &circumstances(tx, &appliance, &file, wish.ordered).await?, now);
                match judged {
                    Err(not) => Err(not),
                    Ok(terms) => {
                        let batches = made.entry(appliance.tenant_id.clone()).or_default();
                        let batch_id =
                            batches.first().map_or_else(|| random_hex_128(&world.rng), |(first, _)| first.batch_id.clone());
                        let offer = new_offer(world, by, wish, &file, &appliance, terms.as_str(), batch_id, now);
                        write(tx, world, &by.actor, &offer, now).await?;
                        let offer_id = offer.offer_id.clone();
                        batches.push((offer, appliance));
                        Ok(offer_id)
                    }
                }
            }
        };
        told.push(Offered { appliance_id: appliance_id.clone(), outcome });
    }
    for (tenant_id, made) in made.iter().filter(|_| wish.by_mail) {
        mail(tx, world, &file, tenant_id, made, now).await?;
    }
    mark_change(tx).await?;
    Ok(Ok(told))
}

async fn known(tx: &mut Conn, tenant: Option<&str>, appliance_id: &str) -> anyhow::Result<Option<Appliance>> {
    let Some(tenant_id) = appliances::tenant_of(tx, appliance_id).await? else { return Ok(None) };
    if tenant.is_some_and(|own| own != tenant_id) {
        return Ok(None);
    }
    Ok(appliances::get(tx, &tenant_id, appliance_id).await?)
}

/// Everything that an offer to an appliance is judged by.
pub(crate) async fn circumstances(
    tx: &mut Conn,
    appliance: &Appliance,
    file: &ReleaseFile,
    ordered: bool,
) -> anyhow::Result<Circumstances> {
    let (tenant_id, id) = (appliance.tenant_id.as_str(), appliance.appliance_id.as_str());
    let installed = reports::installed(tx, tenant_id, id).await?;
    let before = offers::of_file(tx, (tenant_id, id), &file.sha256).await?;
    let (product, version) = version_of(file);
    let filter = tickets::Filter {
        tenant_id: Some(tenant_id.to_owned()),
        appliance_id: Some(id.to_owned()),
        not_closed: true,
        severity: Some(Severity::Critical),
        ..tickets::Filter::default()
    };
    Ok(Circumstances {
        active: appliance.state == ApplianceState::Active,
        product: appliance.product.clone(),
        installed: installed.map(|now| (now.product, now.version, now.hardware)),
        entitlement: entitlements::store::get(tx, tenant_id, id).await?,
        offered: before.is_some_and(|offer| offer.ended_at.is_none()),
        ended: reports::ends_of(tx, (tenant_id, id), (&product, &version)).await?,
        critical_ticket: !tickets::list(tx, &filter, None, 1).await?.is_empty(),
        ordered,
    })
}

fn version_of(file: &ReleaseFile) -> (String, String) {
    file.manifest.as_ref().map(|manifest| (manifest.subject().to_owned(), manifest.version.to_string())).unwrap_or_default()
}

#[expect(clippy::too_many_arguments, reason = "a row of many columns, made in one place")]
fn new_offer(
    world: &World,
    by: &By,
    wish: &Wish,
    file: &ReleaseFile,
    appliance: &Appliance,
    terms: &str,
    batch_id: String,
    now: UnixMs,
) -> OfferRow {
    let (product, version) = version_of(file);
    let stands = if file.kind() == PatchKind::Action { ACTION_STANDS } else { PATCH_STANDS };
    OfferRow {
        tenant_id: appliance.tenant_id.clone(),
        offer_id: random_hex_128(&world.rng),
        batch_id,
        appliance_id: appliance.appliance_id.clone(),
        file: file.file.clone(),
        sha256: file.sha256.clone(),
        bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        kind: file.kind(),
        product,
        version,
        ticket_id: wish.ticket_id.clone(),
        terms: terms.to_owned(),
        state: OfferState::Offered,
        percent: 0,
        reason: String::new(),
        detail: String::new(),
        number: 0,
        decision: String::new(),
        decided_at: None,
        made_by: by.actor.clone(),
        made_at: now,
        changed_at: now,
        expires_at: now.plus(stands).min(file.expires_at),
        ended_at: None,
    }
}

/// Writes a new offer, asks its appliance and records it.
pub(super) async fn write(tx: &mut Conn, world: &World, actor: &str, offer: &OfferRow, now: UnixMs) -> anyhow::Result<()> {
    offers::add(tx, offer).await?;
    ask(tx, world, actor, offer, Ask::Offered(offer.on_the_wire()), (now, offer.expires_at)).await?;
    note(tx, world, actor, offer, ("offered", &offer.terms, ""), now).await
}

/// Asks the offer's appliance for something, through the long poll.
pub(super) async fn ask(
    tx: &mut Conn,
    world: &World,
    actor: &str,
    offer: &OfferRow,
    ask: Ask,
    (now, expires_at): (UnixMs, UnixMs),
) -> anyhow::Result<()> {
    let key = (offer.tenant_id.clone(), offer.appliance_id.clone());
    let directive = Directive { id: random_hex_128(&world.rng), ask, expires_at };
    directives::add(tx, &key, &directive, actor, now).await
}

/// Records a step of the vendor's, or of somebody at a link, with the appliance and with the ticket that the offer was made from.
pub(super) async fn note(
    tx: &mut Conn,
    world: &World,
    actor: &str,
    offer: &OfferRow,
    (what, reason, text): (&str, &str, &str),
    now: UnixMs,
) -> anyhow::Result<()> {
    let news = PatchNews {
        offer_id: offer.offer_id.clone(),
        kind: kind_name(offer.kind).to_owned(),
        file: offer.file.clone(),
        sha256: offer.sha256.clone(),
        version: offer.version.clone(),
        what: what.to_owned(),
        reason: reason.to_owned(),
        text: text.to_owned(),
    };
    let its = subject(&offer.appliance_id);
    audit::append(tx, &offer.tenant_id, now, actor, &its, &ApplianceEvent::Patch(news.clone())).await?;
    if !offer.ticket_id.is_empty()
        && let Some(mut ticket) = tickets::get(tx, &offer.tenant_id, &offer.ticket_id).await?
    {
        let desk = Desk { config: &world.config, now, actor };
        let event = TicketEvent::Patch { appliance_id: offer.appliance_id.clone(), news };
        happened(tx, desk, &mut ticket, &event).await?;
    }
    mark_change(tx).await?;
    Ok(())
}

/// A link for each contact of the customer that is concerned, and the mail with it.
async fn mail(
    tx: &mut Conn,
    world: &World,
    file: &ReleaseFile,
    tenant_id: &str,
    made: &[(OfferRow, Appliance)],
    now: UnixMs,
) -> anyhow::Result<()> {
    let Some((first, appliance)) = made.first() else { return Ok(()) };
    let zone = customers::site(tx, tenant_id, &appliance.site_id).await?.map_or_else(|| "UTC".to_owned(), |site| site.time_zone);
    let concerns = |site: Option<&String>| site.is_none_or(|site| made.iter().any(|(_, appliance)| appliance.site_id == *site));
    let boxes: Vec<String> = made.iter().map(|(_, one)| format!("{} {}", one.name, one.serial).trim_end().to_owned()).collect();
    for contact in customers::contacts(tx, tenant_id).await?.into_iter().filter(|contact| concerns(contact.site_id.as_ref())) {
        let token = links::new_token(&world.rng)?;
        let link = Link {
            token_hash: links::hash_of(&token),
            tenant_id: tenant_id.to_owned(),
            batch_id: first.batch_id.clone(),
            sha256: first.sha256.clone(),
            recipient: contact.email.clone(),
            language: contact.language,
            created_at: now,
            expires_at: first.expires_at,
            downloads: 0,
            codes_typed: 0,
        };
        links::add(tx, &link).await?;
        let told = patch_mail::Told {
            file,
            boxes: &boxes,
            link: format!("{}/p/{token}", world.config.web_public_url),
            expires_at: link.expires_at,
            zone: &zone,
            service_name: &world.config.service_name,
        };
        let recipient = notices::Recipient { name: contact.name, email: contact.email, language: contact.language };
        let subject_id = if first.ticket_id.is_empty() { first.batch_id.as_str() } else { first.ticket_id.as_str() };
        let row =
            notices::outbox::New { tenant_id, subject_id, about: &first.batch_id, kind: patch_mail::KIND, recipient: &recipient };
        notices::outbox::enqueue(tx, &world.config, now, &row, &patch_mail::text(recipient.language, &told)).await?;
    }
    Ok(())
}

/// What became of taking an offer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenBack {
    Done,
    /// It is over, or the box has begun: it would come too late.
    TooLate,
    NoOffer,
}

/// Takes an offer back.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn take_back(world: &World, actor: &str, tenant_id: &str, offer_id: &str) -> anyhow::Result<TakenBack> {
    let now = world.time.now();
    let done = transact!(world.db, Turn::Console, |tx| {
        match offers::get(tx, tenant_id, offer_id).await? {
            None => Ok(TakenBack::NoOffer),
            Some(offer) => end(tx, world, actor, offer, OfferState::TakenBack, now).await,
        }
    });
    world.look_now.notify_one();
    Ok(done)
}

/// Ends an offer from the vendor's side: the box is told, and what it never heard of it hears no more.
pub(super) async fn end(
    tx: &mut Conn,
    world: &World,
    actor: &str,
    mut offer: OfferRow,
    state: OfferState,
    now: UnixMs,
) -> anyhow::Result<TakenBack> {
    use mainstay_shared::patch::PatchStep::{Applying, Probation};
    if offer.ended_at.is_some() || matches!(offer.state, OfferState::Box(Applying | Probation)) {
        return Ok(TakenBack::TooLate);
    }
    (offer.state, offer.changed_at, offer.ended_at) = (state, now, Some(now));
    offers::update(tx, &offer).await?;
    directives::forget_offer(tx, &(offer.tenant_id.clone(), offer.appliance_id.clone()), &offer.offer_id, now).await?;
    let taken_back = Ask::TakenBack { offer_id: offer.offer_id.clone() };
    ask(tx, world, actor, &offer, taken_back, (now, now.plus(PATCH_STANDS))).await?;
    note(tx, world, actor, &offer, (state.as_str(), "", ""), now).await?;
    Ok(TakenBack::Done)
}
