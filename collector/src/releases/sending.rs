//! Files as answers: in part or whole, in pieces, so that a large one costs no memory. For the appliances' door and for links.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use futures_util::stream;

use super::ReleaseFile;
use super::place::{Pieces, Place};
use super::range::{Wanted, wanted};

/// The answer that sends `file`, or the part of it that `asked` wants (`None`: all of it).
///
/// # Errors
/// If it lies there no more, is another one than was verified, or the place does not answer.
pub(crate) async fn answer(place: &Place, file: &ReleaseFile, asked: Option<&HeaderMap>) -> anyhow::Result<Response<Body>> {
    let (length, tag) = (file.bytes, format!("\"{}\"", file.sha256));
    let text = |name: HeaderName| asked.and_then(|headers| headers.get(name)).and_then(|value| value.to_str().ok());
    let wanted = wanted(text(header::RANGE), text(header::IF_RANGE), &tag, length);
    let (status, first, count, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, length, None),
        Wanted::Part { first, last } => {
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1, Some(format!("bytes {first}-{last}/{length}")))
        }
        Wanted::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0, Some(format!("bytes */{length}"))),
    };
    let body = if count == 0 { Body::empty() } else { body(place.part(file, first, count).await?, file.file.clone()) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag)?);
    if let Some(range) = range {
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range)?);
    }
    Ok(response)
}

/// What ends early, or fails, ends the connection: the length was promised.
fn body(pieces: Pieces, file: String) -> Body {
    Body::from_stream(stream::try_unfold((pieces, file), |(mut pieces, file)| async move {
        match pieces.next().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, (pieces, file)))),
            Err(error) => {
                tracing::warn!(file, %error, "a file of the repository broke off");
                Err(error)
            }
        }
    }))
}
