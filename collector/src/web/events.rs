//! `GET /events`: one stream per page. It says only that something changed; the page then fetches itself again, with the rights
//! that its session has at that moment. The session is asked again with every event and at least every 25 s (R14).

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;

use crate::api::access::Principal;
use crate::api::sessions::standing;
use crate::flow::World;

/// How often a quiet stream asks whether its session still counts.
const ASK_AGAIN: Duration = Duration::from_secs(25);
/// A burst of changes makes one event.
const GATHER: Duration = Duration::from_millis(300);

/// The stream; it ends when the session does.
pub(crate) async fn stream(State(world): State<World>, Extension(principal): Extension<Principal>) -> Response {
    let Some(session) = principal.session() else { return StatusCode::UNAUTHORIZED.into_response() };
    let changes = world.changes.clone();
    Sse::new(events(world, session.session_hash.clone(), changes)).into_response()
}

fn events(world: World, session_hash: String, changes: watch::Receiver<i64>) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((world, session_hash, changes, true), |(world, session_hash, mut changes, first)| async move {
        let event = if first {
            changes.borrow_and_update();
            Event::default().event("ready").data("-").retry(Duration::from_secs(3))
        } else {
            match tokio::time::timeout(ASK_AGAIN, changes.changed()).await {
                Ok(Ok(())) => {
                    tokio::time::sleep(GATHER).await;
                    let change = *changes.borrow_and_update();
                    Event::default().event("change").data(change.to_string())
                }
                // The collector stops.
                Ok(Err(_)) => return None,
                Err(_quiet) => Event::default().comment("-"),
            }
        };
        if !matches!(standing(&world, &session_hash).await, Ok(Some(_))) {
            return None;
        }
        Some((Ok(event), (world, session_hash, changes, false)))
    })
}
