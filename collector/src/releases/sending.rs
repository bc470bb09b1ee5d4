//! Files as answers: in part or whole, in pieces, so that a large one costs no memory. For the appliances' door and for links.

use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};

use super::ReleaseFile;
use super::range::{Wanted, wanted};
use super::repository::file_path;

/// Bytes read and sent at a time.
const PIECE_BYTES: usize = 64 << 10;

/// The answer that sends `file`, or the part of it that `asked` wants (`None`: all of it).
///
/// # Errors
/// If it lies there no more, or is another one than was verified.
pub(crate) async fn answer(dir: &Path, file: &ReleaseFile, asked: Option<&HeaderMap>) -> anyhow::Result<Response<Body>> {
    let path = file_path(dir, &file.file).ok_or_else(|| anyhow::anyhow!("{:?}: no file's name", file.file))?;
    let mut open = File::open(&path).await?;
    let length = open.metadata().await?.len();
    anyhow::ensure!(length == file.bytes, "{}: {length} bytes, {} were verified", file.file, file.bytes);
    let tag = format!("\"{}\"", file.sha256);
    let text = |name: HeaderName| asked.and_then(|headers| headers.get(name)).and_then(|value| value.to_str().ok());
    let wanted = wanted(text(header::RANGE), text(header::IF_RANGE), &tag, length);
    let (status, first, count, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, length, None),
        Wanted::Part { first, last } => {
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1, Some(format!("bytes {first}-{last}/{length}")))
        }
        Wanted::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0, Some(format!("bytes */{length}"))),
    };
    open.seek(SeekFrom::Start(first)).await?;
    let mut response = Response::new(if count == 0 { Body::empty() } else { pieces(open, count) });
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

/// `left` bytes from where the file stands. A file that ends early, or fails, ends the connection: the length was promised.
fn pieces(file: File, left: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; most];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(read);
        Ok(Some((Bytes::from(piece), (file, left - read as u64))))
    }))
}
