//! The agents' door: four messages, each at one exact path, and the repository of signed files; everything else is refused (R5). Thin: no SQL, no decisions.
//!
//! [`answer`] is the one way in: it settles the path, then who speaks (the verified certificate, only: R13), then how often, and
//! only then reads a body. docs/wire.md describes what stands on the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::{Bytes, Incoming};
use mainstay_shared::api::{PATH_ENROL, PATH_POLL, PATH_RENEW, PATH_REPORTS, error_words};
use mainstay_shared::limits::MAX_BODY_BYTES;
use tokio::sync::Semaphore;

use crate::appliances::Identity;
use crate::appliances::authority::Authority;
use crate::flow::World;
use crate::flow::directives_wait::Board;
use crate::flow::intake_worker::Intake;
use crate::lifecycle::Stop;

mod answers;
mod body;
mod identity;
mod rates;
mod enrol;
mod renew;
mod reports;
mod poll;
mod repository;

pub(crate) use answers::Answered;
use answers::Refusal;

/// Bodies that are unpacked and parsed at the same time: work for the processor, and up to 200 MiB of memory for the most hostile.
const READING: usize = 4;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Hex SHA-256 of the client certificate that the handshake verified.
    pub(crate) fingerprint: Option<String>,
}

/// What the door needs; one per node.
pub(crate) struct Door {
    world: World,
    authority: Arc<Authority>,
    intake: Intake,
    board: Board,
    stop: Stop,
    identities: identity::Cache,
    rates: rates::Rates,
    reading: Semaphore,
}

impl Door {
    /// A door that lets messages through to `intake`.
    pub(crate) fn new(world: World, authority: Arc<Authority>, intake: Intake, board: Board, stop: Stop) -> Self {
        Self {
            world,
            authority,
            intake,
            board,
            stop,
            identities: identity::Cache::default(),
            rates: rates::Rates::default(),
            reading: Semaphore::new(READING),
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// An enrolled appliance, by its certificate.
    Enrolled,
    /// Anyone: the message itself carries the proof (a join secret; an expired certificate and its key).
    Anyone,
}

/// One message.
#[derive(Debug, Clone, Copy)]
enum Route {
    Enrol,
    Renew,
    Reports,
    Poll,
}

/// Every path there is: exact spelling, who may, how large a body. All of them are POST.
const ROUTES: [(&str, Route, Who, usize); 4] = [
    (PATH_ENROL, Route::Enrol, Who::Anyone, 64 << 10),
    (PATH_RENEW, Route::Renew, Who::Anyone, 64 << 10),
    (PATH_REPORTS, Route::Reports, Who::Enrolled, MAX_BODY_BYTES),
    (PATH_POLL, Route::Poll, Who::Enrolled, 256 << 10),
];

/// Where a message led.
enum Led {
    Answered(Answered),
    /// A poll that waits: its request is let go of before it does.
    Waits(poll::Waiting),
    /// A part of the repository.
    Sends(Response<Body>),
}

/// Answers one request, whatever it is. What a message needs to be taken stands in boxes of its own, so that a connection whose poll
/// waits, as nearly all do nearly always, holds little.
pub(crate) async fn answer(door: &Door, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
    let outcome = match Box::pin(taken(door, peer, request)).await {
        Ok(Led::Answered(answered)) => Ok(answered),
        Ok(Led::Waits(poll)) => poll.answer(door).await,
        Ok(Led::Sends(response)) => return response,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(answered) => answered.into_response().map(Body::new),
        Err(refusal) => {
            tracing::debug!(peer = %peer.address, status = refusal.status().as_u16(), why = refusal.word(), "refused");
            door.intake.counts.refused.get_or_create(&[("why", refusal.word())]).inc();
            refusal.into_response().map(Body::new)
        }
    }
}

/// Takes a request in; of a refused one the body is read out.
async fn taken(door: &Door, peer: &Peer, request: Request<Incoming>) -> Result<Led, Refusal> {
    let (head, mut body) = request.into_parts();
    let led = route(door, peer, &head, &mut body).await;
    if led.is_err() {
        body::read_out(&mut body).await;
    }
    led
}

async fn route(door: &Door, peer: &Peer, head: &Parts, body: &mut Incoming) -> Result<Led, Refusal> {
    let path = head.uri.path();
    if let Some(place) = repository::place(path).filter(|_| head.uri.query().is_none()) {
        let Some(identity) = identify(door, peer).await? else { return Err(Refusal::not_enrolled()) };
        return repository::answer(door, &identity, head, place).await.map(Led::Sends);
    }
    // Exact: `//`, `%2e`, `;`, another case, a trailing slash or a query are other paths, and there are none.
    let known = ROUTES.iter().find(|(known, ..)| *known == path && head.uri.query().is_none());
    let Some((path, route, who, most_bytes)) = known else { return Err(Refusal::not_found()) };
    if head.method != Method::POST {
        return Err(Refusal::method());
    }
    let identity = identify(door, peer).await?;
    if *who == Who::Enrolled && identity.is_none() {
        return Err(Refusal::not_enrolled());
    }
    match (route, identity) {
        (Route::Reports, Some(identity)) => {
            door.rates.report(&door.world, &identity)?;
            reports::answer(door, identity, path, body::message(door, head, body, *most_bytes).await?).await.map(Led::Answered)
        }
        (Route::Poll, Some(identity)) => {
            door.rates.poll(&door.world, &identity)?;
            let polled = poll::answer(door, identity, path, body::message(door, head, body, *most_bytes).await?).await?;
            Ok(match polled {
                poll::Polled::Answered(answered) => Led::Answered(answered),
                poll::Polled::Waits(poll) => Led::Waits(poll),
            })
        }
        (Route::Enrol, _) => {
            door.rates.stranger(&door.world, peer)?;
            enrol::answer(door, peer, body::message(door, head, body, *most_bytes).await?.0).await.map(Led::Answered)
        }
        (Route::Renew, identity) => {
            door.rates.stranger(&door.world, peer)?;
            renew::answer(door, peer, identity, body::message(door, head, body, *most_bytes).await?.0).await.map(Led::Answered)
        }
        (Route::Reports | Route::Poll, None) => Err(Refusal::not_enrolled()),
    }
}

/// Who speaks: by the certificate of the handshake, only.
async fn identify(door: &Door, peer: &Peer) -> Result<Option<Identity>, Refusal> {
    Ok(match &peer.fingerprint {
        Some(fingerprint) => door.identities.find(&door.world, fingerprint).await?,
        None => None,
    })
}

/// Refuses a message of a version that this collector does not read.
fn check_version(version: u32) -> Result<(), Refusal> {
    let newest = mainstay_shared::api::WIRE_VERSION;
    if (1..=newest).contains(&version) {
        return Ok(());
    }
    let message = format!("version {version}: this collector reads versions 1 to {newest}");
    Err(Refusal::new(StatusCode::BAD_REQUEST, error_words::BAD_MESSAGE, message))
}

/// Refuses and records a message that names another appliance than its certificate (R13).
async fn check_claim(door: &Door, identity: &Identity, path: &str, bytes: &Bytes) -> Result<(), Refusal> {
    match identity::other_claim(identity, bytes) {
        None => Ok(()),
        Some(claimed) => {
            identity::record_claim(&door.world, identity, claimed, path).await?;
            let message = "the message names another appliance than its certificate; this was recorded";
            Err(Refusal::new(StatusCode::FORBIDDEN, "identity_disagrees", message.to_owned()))
        }
    }
}
