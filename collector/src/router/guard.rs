//! The one authentication layer: it stands outside the router, so that no handler can be reached past it (R5). It finds the route
//! in the table, the caller behind cookie or token, checks origin and form token of whatever may act, and puts the security headers
//! on every answer. It decides who may come in, never what they may do to a record.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Form, FromRequest as _, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use axum_extra::extract::CookieJar;
use http_body_util::BodyExt as _;
use mainstay_shared::ids::random_hex_128;
use serde::Deserialize;

use super::headers;
use super::refusal::Refusal;
use super::routes::{self, NoRoute, Route, Who};
use crate::api::access::{Principal, Right, Via, Viewer};
use crate::api::sessions::rules::{TOUCH_EVERY, TokenVerdict, judge_token};
use crate::api::sessions::{Session, Stage, hash_of, standing, store, tokens};
use crate::customers::Language;
use crate::db::{Turn, transact};
use crate::flow::World;
use crate::web::{cookies, upload};

/// The largest body of a form or an API call.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 10;
/// The largest receipt, with what a form wraps around it.
pub(crate) const MAX_RECEIPT_BYTES: usize = mainstay_shared::patch_receipt::MAX_BYTES + (16 << 10);
/// How much of a body that is too large is read to its end.
const READ_TO_BE_HEARD: usize = 4 << 20;
/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// Set by the console's script on what it fetches by itself: such a request doesn't keep a session alive.
const LIVE_HEADER: &str = "x-mainstay-live";

/// The layer.
pub(crate) async fn guard(State(world): State<World>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let jar = CookieJar::from_headers(request.headers());
    let mut language = spoken(&world, &jar, request.headers());
    let mut fresh_form_cookie = None;
    let response = match admit(&world, &jar, request, &mut language, &mut fresh_form_cookie).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.answer(&path, language, &world.config.web_public_url),
    };
    let response = match fresh_form_cookie {
        Some(value) => cookies::with(response, &world.config, cookies::FORM, &value),
        None => response,
    };
    headers::secured(response, &path, world.config.web_public_url.starts_with("https://"))
}

/// The request as the router may see it, or why it may not.
async fn admit(
    world: &World,
    jar: &CookieJar,
    request: Request,
    language: &mut Language,
    fresh_form_cookie: &mut Option<String>,
) -> Result<Request, Refusal> {
    let route = routes::find(request.method().as_str(), request.uri().path()).map_err(|no| match no {
        NoRoute::OddSpelling | NoRoute::Unknown => Refusal::NoSuchPath,
        NoRoute::OtherMethod => Refusal::OtherMethod(routes::methods_of(request.uri().path())),
    })?;
    let acts = !matches!(*request.method(), Method::GET | Method::HEAD);
    if route.who == Who::Link {
        return if acts { with_whole_body(request, most_of(route)).await } else { Ok(request) };
    }
    if acts || route.path == "/events" {
        same_origin(request.headers(), &world.config.web_public_url, acts && !matches!(route.who, Who::Token(_)))?;
    }
    match route.who {
        Who::Token(right) => {
            let principal = by_token(world, request.headers()).await?.ok_or(Refusal::NotSignedIn)?;
            let request = with_right(right, principal, request)?;
            if acts { with_whole_body(request, most_of(route)).await } else { Ok(request) }
        }
        Who::Metrics => match by_token(world, request.headers()).await? {
            Some(principal) => with_right(Right::Read, principal, request),
            None => Ok(request),
        },
        Who::Link => Ok(request),
        Who::Anyone if route.path == "/healthz" || route.path.starts_with("/assets/") => Ok(request),
        Who::Anyone | Who::HalfSignedIn | Who::Session(_) => {
            let session = by_cookie(world, jar, !request.headers().contains_key(LIVE_HEADER) && route.path != "/events").await?;
            if let Some(session) = &session {
                *language = session.language;
            }
            let csrf_token = form_token(world, jar, session.as_ref(), fresh_form_cookie);
            let request = if acts { with_checked_form(request, &csrf_token, most_of(route)).await? } else { request };
            let viewer = Viewer { language: *language, csrf_token };
            let mut request = seated(route, session, request)?;
            request.extensions_mut().insert(viewer);
            Ok(request)
        }
    }
}

/// How large a body a route takes: an appliance's receipt carries the output of its scripts.
fn most_of(route: &Route) -> usize {
    if route.path.ends_with("/receipt") || route.path.ends_with("/receipts") { MAX_RECEIPT_BYTES } else { MAX_BODY_BYTES }
}

/// Puts a session where its route wants it, or says where it belongs.
fn seated(route: &Route, session: Option<Session>, mut request: Request) -> Result<Request, Refusal> {
    match (route.who, session) {
        (Who::Session(right), Some(session)) if session.stage == Stage::Full => {
            return with_right(right, Principal::of_session(session), request);
        }
        (Who::Session(_), Some(_)) => return Err(Refusal::OwesCode),
        (Who::Session(_) | Who::HalfSignedIn, None) => return Err(Refusal::NotSignedIn),
        (_, Some(session)) => drop(request.extensions_mut().insert(Principal::of_session(session))),
        (_, None) => {}
    }
    Ok(request)
}

fn with_right(right: Right, principal: Principal, mut request: Request) -> Result<Request, Refusal> {
    if !right.is_held_by(principal.role) {
        return Err(Refusal::NotAllowed);
    }
    request.extensions_mut().insert(principal);
    Ok(request)
}

/// The session behind the cookie, if it counts now.
async fn by_cookie(world: &World, jar: &CookieJar, by_person: bool) -> Result<Option<Session>, Refusal> {
    let Some(cookie) = jar.get(&cookies::name(&world.config, cookies::SESSION)) else { return Ok(None) };
    let Some(session) = standing(world, &hash_of(cookie.value())).await? else { return Ok(None) };
    let now = world.time.now();
    if by_person && now >= session.last_seen_at.plus(TOUCH_EVERY) {
        touch(world, &session).await?;
    }
    Ok(Some(session))
}

async fn touch(world: &World, session: &Session) -> anyhow::Result<()> {
    let now = world.time.now();
    transact!(world.db, Turn::Console, |tx| { Ok(store::touch(tx, &session.session_hash, now).await?) });
    Ok(())
}

async fn by_token(world: &World, headers: &HeaderMap) -> Result<Option<Principal>, Refusal> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let Some(secret) = given.filter(|secret| secret.starts_with(tokens::PREFIX)) else { return Ok(None) };
    let token = {
        let mut conn = world.db.read().await.map_err(anyhow::Error::from)?;
        tokens::by_hash(&mut conn, &hash_of(secret)).await.map_err(anyhow::Error::from)?
    };
    let Some(token) = token else { return Ok(None) };
    let verdict = judge_token(&token, world.time.now());
    if verdict != TokenVerdict::Good {
        tracing::info!(token_id = %token.token_id, ?verdict, "a token was refused");
        return Ok(None);
    }
    Ok(Some(Principal {
        staff_id: token.staff_id,
        name: token.maker_name,
        role: token.role,
        tenant: token.tenant_id,
        via: Via::Token(token.token_id),
    }))
}

/// What forms carry: the session's token, else the form cookie's, else a fresh one that the answer sets.
fn form_token(world: &World, jar: &CookieJar, session: Option<&Session>, fresh: &mut Option<String>) -> String {
    if let Some(session) = session {
        return session.csrf_token.clone();
    }
    match jar.get(&cookies::name(&world.config, cookies::FORM)).filter(|cookie| cookie.value().len() == 32) {
        Some(cookie) => cookie.value().to_owned(),
        None => fresh.insert(random_hex_128(&world.rng)).clone(),
    }
}

/// R12: what acts, and streams, come from our own pages only. A browser says so by Origin or Sec-Fetch-Site.
fn same_origin(headers: &HeaderMap, public_url: &str, must_say: bool) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (origin, site) = (text("origin"), text("sec-fetch-site"));
    let foreign = origin.is_some_and(|origin| origin != public_url) || site.is_some_and(|site| site != "same-origin");
    if foreign || (must_say && origin.is_none() && site.is_none()) {
        return Err(Refusal::ForeignOrigin);
    }
    Ok(())
}

#[derive(Deserialize)]
struct FormToken {
    #[serde(default)]
    csrf: String,
}

/// Reads the form once, checks its token, and hands the bytes on.
async fn with_checked_form(request: Request, csrf_token: &str, most: usize) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = read(body, most).await?;
    if let Some(given) = upload::part(&parts.headers, &bytes, "csrf") {
        let good = same(given, csrf_token.as_bytes());
        return if good { Ok(Request::from_parts(parts, Body::from(bytes))) } else { Err(Refusal::BadForm) };
    }
    let mut probe = Request::new(Body::from(bytes.clone()));
    *probe.method_mut() = Method::POST;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        probe.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    let Form(form) = Form::<FormToken>::from_request(probe, &()).await.map_err(|_| Refusal::BadForm)?;
    if !same(form.csrf.as_bytes(), csrf_token.as_bytes()) {
        return Err(Refusal::BadForm);
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// The request with its body read.
async fn with_whole_body(request: Request, most: usize) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    Ok(Request::from_parts(parts, Body::from(read(body, most).await?)))
}

/// Keeps at most `most` bytes, within a limit of time. A part of what is beyond is read and dropped, or its sender would meet
/// a closed connection, not the answer.
async fn read(mut body: Body, most: usize) -> Result<Bytes, Refusal> {
    let arrives = async {
        let (mut bytes, mut read_bytes) = (Vec::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| Refusal::BadForm)?.into_data().unwrap_or_default();
            read_bytes += data.len();
            if read_bytes <= most {
                bytes.extend_from_slice(&data);
            } else if read_bytes > READ_TO_BE_HEARD {
                break;
            }
        }
        if read_bytes > most { Err(Refusal::TooLarge) } else { Ok(Bytes::from(bytes)) }
    };
    tokio::time::timeout(ARRIVES_WITHIN, arrives).await.unwrap_or(Err(Refusal::TooSlow))
}

/// Equality whose time tells nothing: both are hashed first.
fn same(left: &[u8], right: &[u8]) -> bool {
    let hash = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    hash(left).as_ref() == hash(right).as_ref()
}

/// The language before anybody is known: the cookie's, the browser's, the vendor's.
fn spoken(world: &World, jar: &CookieJar, headers: &HeaderMap) -> Language {
    let cookie = jar.get(&cookies::name(&world.config, cookies::LANGUAGE)).and_then(|cookie| Language::from_code(cookie.value()));
    let browser = || {
        let accepted = headers.get("accept-language")?.to_str().ok()?;
        Language::from_code(accepted.get(..2)?)
    };
    cookie.or_else(browser).unwrap_or(world.config.language)
}
