//! The console's own style, script and mark, embedded in the binary. Their names carry their content's hash, so that browsers may
//! keep them for ever; no other name is served, and nothing comes from another host.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

const TYPES: [(&str, &str); 3] =
    [("css", "text/css; charset=utf-8"), ("js", "text/javascript; charset=utf-8"), ("svg", "image/svg+xml")];

/// The address of `name` (`console.css`), with its hash: `/assets/console.0123456789abcdef.css`.
pub(crate) fn address(name: &str) -> String {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let hash = Files::get(name).map(|file| hex::encode(&file.metadata.sha256_hash()[..8])).unwrap_or_default();
    format!("/assets/{stem}.{hash}.{kind}")
}

/// `GET /assets/{name}`.
pub(crate) async fn serve(Path(given): Path<String>) -> Response {
    let file = Files::iter().find(|name| address(name).strip_prefix("/assets/") == Some(&given));
    let found = file.and_then(|name| Some((name.rsplit_once('.')?.1.to_owned(), Files::get(&name)?)));
    let kind = found.as_ref().and_then(|(kind, _)| TYPES.iter().find(|(known, _)| known == kind));
    match (found, kind) {
        (Some((_, file)), Some((_, kind))) => ([(header::CONTENT_TYPE, *kind)], file.data.into_owned()).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
