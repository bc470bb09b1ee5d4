//! `GET /agent/v1/repository/metadata/NAME` and `.../files/NAME`: what was signed, as it lies there, files with ranges. An appliance gets the
//! patches and actions that were offered to it, and what is for everyone; whether it believes a byte of them, it decides itself.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, header};
use mainstay_shared::api::PATH_REPOSITORY;

use super::{Door, Refusal};
use crate::appliances::Identity;
use crate::releases::online::Role;
use crate::releases::{FileState, ReleaseFile, files, offers, place, sending};

/// Whether a path is in the repository: its folder and the name in it.
pub(super) fn place(path: &str) -> Option<(&str, &str)> {
    let (folder, name) = path.strip_prefix(PATH_REPOSITORY)?.split_once('/')?;
    (matches!(folder, "metadata" | "files") && place::is_plain_name(name)).then_some((folder, name))
}

/// Answers a GET or HEAD.
pub(super) async fn answer(
    door: &Door,
    identity: &Identity,
    head: &Parts,
    (folder, name): (&str, &str),
) -> Result<Response<Body>, Refusal> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::method_get());
    }
    door.rates.repository(&door.world, identity)?;
    let mut response = match folder {
        "metadata" => metadata(door, name).await?,
        _ => file(door, identity, head, name).await?,
    };
    if head.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

async fn metadata(door: &Door, name: &str) -> Result<Response<Body>, Refusal> {
    let Some(place) = &door.world.repository else { return Err(Refusal::not_found()) };
    let version_of = |role: &str| name.strip_suffix(role).and_then(|version| version.parse().ok());
    let signed = {
        let mut conn = door.world.db.read().await?;
        match (name, version_of(".snapshot.json"), version_of(".root.json")) {
            ("timestamp.json", ..) => files::newest_signed(&mut conn, Role::Timestamp).await?,
            (_, Some(version), _) => files::signed(&mut conn, Role::Snapshot, version).await?,
            // A client that is led to a root that does not verify is stuck there.
            (.., Some(version)) => {
                let believed = files::root_version(&mut conn).await?;
                if believed.is_some_and(|believed| u64::try_from(version).is_ok_and(|version| version > believed)) {
                    return Err(Refusal::not_found());
                }
                None
            }
            _ => None,
        }
    };
    let body = match signed {
        Some(signed) => Some(signed.body.into_bytes()),
        None => place.metadata(name).await.map_err(|error| unreadable(name, &error))?,
    };
    let Some(body) = body else { return Err(Refusal::not_found()) };
    let mut response = Response::new(Body::from(body));
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

fn unreadable(name: &str, error: &anyhow::Error) -> Refusal {
    tracing::warn!(file = name, error = %format!("{error:#}"), "a file of the repository could not be sent");
    Refusal::slow_down(StatusCode::SERVICE_UNAVAILABLE, 30, "the file can't be read now; try again")
}

async fn file(door: &Door, identity: &Identity, head: &Parts, name: &str) -> Result<Response<Body>, Refusal> {
    let Some(place) = &door.world.repository else { return Err(Refusal::not_found()) };
    let file = {
        let mut conn = door.world.db.read().await?;
        // A file that is known, but is not what lies there now: whoever was offered it waits until that is put right.
        let is_other = |file: &ReleaseFile| file.state == FileState::Refused && file.manifest.is_some();
        let known = files::get(&mut conn, name).await?;
        let key = (identity.tenant_id.as_str(), identity.appliance_id.as_str());
        if known.as_ref().is_some_and(|file| file.state == FileState::Gone) && offers::is_awaited(&mut conn, key, name).await? {
            let message = "the file is not in the repository now; try again later";
            return Err(Refusal::slow_down(StatusCode::SERVICE_UNAVAILABLE, 300, message));
        }
        let file = known.filter(|file| file.state == FileState::Good || is_other(file));
        let Some(file) = file else { return Err(Refusal::not_found()) };
        if !offers::may_fetch(&mut conn, key, name, offers::needs_offer(file.kind())).await? {
            let message = "this file is not offered to this appliance".to_owned();
            return Err(Refusal::new(StatusCode::FORBIDDEN, "not_offered", message));
        }
        if is_other(&file) {
            let message = "another file lies there under this name; try again later";
            return Err(Refusal::slow_down(StatusCode::SERVICE_UNAVAILABLE, 300, message));
        }
        file
    };
    sending::answer(place, &file, Some(&head.headers)).await.map_err(|error| unreadable(name, &error))
}
