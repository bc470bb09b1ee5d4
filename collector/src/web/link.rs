//! The page of a mail's link: what is offered, for which boxes; approve or refuse with the box's six digits, download for a stick. It
//! needs no cookie and no account. A GET never acts (R18); what acts is a form, and what it says is judged on the box.
//!
//! The token is the address: it is never logged, and no referrer carries it (R33).

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use mainstay_shared::patch::{Decision, PatchStep};
use serde::Deserialize;

use super::offers_view::{Step, step_words, steps};
use super::shell::{PageError, PageResult, Said, Shell, back_to, error_page, page, said};
use super::upload;
use crate::appliances::Appliance;
use crate::customers::{Language, store as customers};
use crate::flow::World;
use crate::flow::link_is_used::{self, Behind, Carried, Download, Typed};
use crate::flow::receipt_is_read::receipt_is_read;
use crate::notices::patch_mail::{notes_of, title_of};
use crate::releases::life::OfferState;
use crate::releases::links::MOST_DOWNLOADS;
use crate::releases::{FileState, OfferRow, kind_name, sending};
use crate::words::{Words, when};

/// One box of the link.
struct BoxRow {
    offer_id: String,
    name: String,
    serial: String,
    site: String,
    state: String,
    /// What the box says, and how it is marked.
    told: String,
    /// The customer's own words.
    why: String,
    tone: &'static str,
    /// Something was typed and the box has not answered yet.
    waits: bool,
    open: bool,
    steps: Vec<Step>,
}

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage {
    shell: Shell,
    said: Option<Said>,
    token: String,
    /// The language's code, which its forms keep, and the other one's.
    own: &'static str,
    other: &'static str,
    name: String,
    notes: String,
    file: String,
    version: String,
    bytes: u64,
    sha256: String,
    until: String,
    good: bool,
    security: bool,
    boxes: Vec<BoxRow>,
    any_open: bool,
    downloads_left: i64,
    waits: bool,
}

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    /// `zh` or `en`.
    l: Option<String>,
    said: Option<String>,
}

/// `GET /p/{token}`.
pub(crate) async fn show(
    State(world): State<World>,
    Path(token): Path<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> PageResult {
    let wished = wish.l.as_deref().and_then(Language::from_code);
    let Some(behind) = link_is_used::look(&world, &token).await? else {
        // Nothing says any more to whom it was sent: the browser's language.
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let spoken = wished.or_else(|| Language::from_code(accepted?.get(..2)?)).unwrap_or(world.config.language);
        return Ok(error_page(spoken, StatusCode::NOT_FOUND, "link.gone", ""));
    };
    let language = wished.unwrap_or(behind.link.language);
    let shell = Shell::for_link(&world, language);
    let (w, file) = (shell.w, &behind.file);
    let mut boxes = Vec::new();
    let mut zone = "UTC".to_owned();
    for (offer, appliance) in &behind.offers {
        let site = customers::site(&mut *world.db.read().await?, &appliance.tenant_id, &appliance.site_id).await?;
        let name = site.as_ref().map(|site| site.name.clone()).unwrap_or_default();
        zone = site.map_or(zone, |site| site.time_zone);
        boxes.push(box_row(w, offer, appliance, name));
    }
    let title = title_of(w, file);
    page(&LinkPage {
        said: said(w, wish.said.as_deref()),
        token,
        own: language.as_str(),
        other: if language == Language::Zh { "en" } else { "zh" },
        notes: notes_of(w, file),
        file: file.file.clone(),
        version: file.manifest.as_ref().map(|manifest| manifest.version.to_string()).unwrap_or_default(),
        bytes: file.bytes,
        sha256: behind.link.sha256.clone(),
        until: when::moment(behind.link.expires_at, &zone),
        good: is_good(&behind),
        security: file.patch().is_some_and(|patch| patch.security_fix),
        downloads_left: (MOST_DOWNLOADS - behind.link.downloads).max(0),
        any_open: behind.offers.iter().any(|(offer, _)| offer.ended_at.is_none()),
        waits: boxes.iter().any(|row| row.waits),
        boxes,
        shell: shell.titled(title.clone()),
        name: title,
    })
}

fn is_good(behind: &Behind) -> bool {
    behind.file.state == FileState::Good && behind.file.sha256 == behind.link.sha256
}

fn box_row(w: Words, offer: &OfferRow, appliance: &Appliance, site: String) -> BoxRow {
    let typed = offer.decided_at.is_some();
    let answered = offer.decided_at.is_none_or(|at| offer.changed_at >= at && offer.number > 0 && offer.changed_at != at);
    let before = matches!(offer.state, OfferState::Offered | OfferState::Box(PatchStep::Fetching | PatchStep::AwaitingConsent));
    let waits = typed && before && !answered;
    let tone = match offer.state {
        OfferState::Box(PatchStep::Done) => "good",
        OfferState::Box(PatchStep::RolledBack | PatchStep::Failed | PatchStep::Refused | PatchStep::Unknown) => "bad",
        _ if offer.reason == "wrong_code" => "bad",
        _ => "plain",
    };
    BoxRow {
        offer_id: offer.offer_id.clone(),
        name: appliance.name.clone(),
        serial: appliance.serial.clone(),
        site,
        state: step_words(w, kind_name(offer.kind), offer.state.as_str()),
        told: if offer.reason.is_empty() { String::new() } else { w.of("patch_reason", &offer.reason).into_owned() },
        why: if offer.reason == "refused_by_customer" { offer.detail.clone() } else { String::new() },
        tone,
        waits,
        open: offer.ended_at.is_none() && before,
        steps: steps(w, offer),
    }
}

fn gone(world: &World) -> Response {
    error_page(world.config.language, StatusCode::NOT_FOUND, "link.gone", "")
}

/// What the forms of a box send.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Typing {
    offer: String,
    code: String,
    reason: String,
}

/// To the page again, with a word and in the language that it was read in.
fn back(token: &str, wish: &Wish, word: &str) -> Response {
    let language = wish.l.as_deref().and_then(Language::from_code);
    let said = language.map_or_else(|| word.to_owned(), |language| format!("{word}&l={}", language.as_str()));
    back_to(&format!("/p/{token}"), &said)
}

/// `POST /p/{token}/approve`.
pub(crate) async fn approve(
    State(world): State<World>,
    Path(token): Path<String>,
    Query(wish): Query<Wish>,
    Form(typing): Form<Typing>,
) -> Result<Response, PageError> {
    carry(&world, &token, &wish, Typed { offer_id: typing.offer, code: typing.code, decision: Decision::Approve }).await
}

/// `POST /p/{token}/refuse`.
pub(crate) async fn refuse(
    State(world): State<World>,
    Path(token): Path<String>,
    Query(wish): Query<Wish>,
    Form(typing): Form<Typing>,
) -> Result<Response, PageError> {
    let decision = Decision::Refuse { reason: typing.reason };
    carry(&world, &token, &wish, Typed { offer_id: typing.offer, code: typing.code, decision }).await
}

async fn carry(world: &World, token: &str, wish: &Wish, typed: Typed) -> Result<Response, PageError> {
    let word = match link_is_used::decide(world, token, &typed).await? {
        Carried::OnItsWay => "done_typed",
        Carried::NoCode => "refused_no_code",
        Carried::NotOpen => "refused_offer_over",
        Carried::TooMany => "refused_too_many_codes",
        Carried::NoReason => "refused_no_reason",
        Carried::NoLink => return Ok(gone(world)),
    };
    Ok(back(token, wish, word))
}

/// `POST /p/{token}/download`: the file, or the rest that a cut left (`Range` with `If-Range`), counted. `patch apply LINK` reads the words.
pub(crate) async fn download(
    State(world): State<World>,
    Path(token): Path<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let no = |word: &str| Ok(back(&token, &wish, word));
    let file = match link_is_used::download(&world, &token).await? {
        Download::File(file) => file,
        Download::Over => return no("refused_offer_over"),
        Download::NotGood => return no("refused_file_not_good"),
        Download::TooMany => return no("refused_too_many_downloads"),
        Download::NoLink => return Ok(gone(&world)),
    };
    let Some(place) = &world.repository else { return Ok(gone(&world)) };
    let mut response = sending::answer(place, &file, Some(&headers)).await?.into_response();
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", file.file));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition.map_err(anyhow::Error::from)?);
    Ok(response)
}

/// `POST /p/{token}/receipt`: what the box wrote about it, carried by hand.
pub(crate) async fn receipt(
    State(world): State<World>,
    Path(token): Path<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let Some(behind) = link_is_used::look(&world, &token).await? else { return Ok(gone(&world)) };
    let file = upload::part(&headers, &body, "receipt").unwrap_or_default();
    let read = receipt_is_read(&world, Some(&behind.link.tenant_id), file).await?;
    Ok(back(&token, &wish, if read.is_ok() { "done_receipt" } else { "refused_receipt" }))
}
