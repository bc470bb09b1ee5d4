//! `GET /events`: one stream per page. It says only that something changed; the page then fetches itself again, with the rights
//! that its session has at that moment. The session is asked again with every event and at least every 25 s (R14). How many may be open is bounded.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// Streams that one account may hold open: more pages than anybody looks at.
const PER_ACCOUNT: usize = 32;
/// Streams of one node, well below its connections: each asks the database at every change.
const IN_ALL: usize = 1_000;

/// The stream; it ends when the session does.
pub(crate) async fn stream(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Extension(streams): Extension<Streams>,
) -> Response {
    let Some(session) = principal.session() else { return StatusCode::UNAUTHORIZED.into_response() };
    let Some(place) = streams.place(&session.staff_id) else { return StatusCode::TOO_MANY_REQUESTS.into_response() };
    let changes = world.changes.clone();
    Sse::new(events(world, session.session_hash.clone(), changes, place)).into_response()
}

/// The open streams of this node, by account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<String, usize>>>);

impl Streams {
    /// A place for one stream of that account, if neither the account nor the node has too many.
    fn place(&self, staff_id: &str) -> Option<Place> {
        let mut open = self.table();
        if open.values().sum::<usize>() >= IN_ALL || open.get(staff_id).is_some_and(|count| *count >= PER_ACCOUNT) {
            return None;
        }
        *open.entry(staff_id.to_owned()).or_default() += 1;
        Some(Place { streams: self.clone(), staff_id: staff_id.to_owned() })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream's place; free again when dropped.
#[derive(Debug)]
struct Place {
    streams: Streams,
    staff_id: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.table();
        if let Some(count) = open.get_mut(&self.staff_id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.staff_id);
            }
        }
    }
}

fn events(
    world: World,
    session_hash: String,
    changes: watch::Receiver<i64>,
    place: Place,
) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((world, session_hash, changes, place, true), |(world, session_hash, mut changes, place, first)| async move {
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
        Some((Ok(event), (world, session_hash, changes, place, false)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_holds_so_many_streams_and_harms_no_other() {
        let streams = Streams::default();
        let mut held: Vec<Place> = (0..PER_ACCOUNT).map(|_| streams.place("li").expect("a place")).collect();
        assert!(streams.place("li").is_none());
        assert!(streams.place("mia").is_some());
        held.pop();
        assert!(streams.place("li").is_some(), "a closed stream frees its place");
        held.extend((held.len()..IN_ALL).map(|n| streams.place(&format!("s{n}")).expect("a place")));
        assert!(streams.place("mia").is_none(), "the node has a bound too");
        held.clear();
        assert!(streams.table().is_empty());
    }
}
