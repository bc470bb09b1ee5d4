//! Reads a body within its limits: bytes as sent, time, bytes once unpacked, depth of JSON. A bomb is stopped while it unpacks,
//! not after. Of a refused body a bounded part is read and dropped, so that its sender hears why.

use std::cell::RefCell;
use std::io::Read as _;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use mainstay_shared::api::error_words;
use mainstay_shared::limits::MAX_INFLATED_BYTES;
use serde::de::DeserializeOwned;

use super::{Door, Refusal};

/// How long a body may take to arrive; a slow link of 64 kbit/s brings the largest in two minutes, compressed samples in seconds.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
/// How much of a refused body is read and dropped, and for how long: a sender that reads no answer before it has sent all would
/// meet a closed connection instead.
const READ_TO_BE_HEARD: usize = 16 << 20;
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// log2 of the largest window that a zstd frame may ask memory for: as large as the largest body unpacked.
const WINDOW_LOG: u32 = 23;

/// The message in a body of at most `most_bytes` as sent, and the body unpacked.
pub(super) async fn message<T: DeserializeOwned>(
    door: &Door,
    head: &Parts,
    body: &mut Incoming,
    most_bytes: usize,
) -> Result<(T, Bytes), Refusal> {
    let packed = is_packed(head)?;
    let bytes = tokio::time::timeout(ARRIVES_WITHIN, collect(body, most_bytes))
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time".to_owned()))??;
    // Held while it is unpacked and parsed: what hostile JSON makes of memory is bounded by the number of turns.
    let _turn = door.reading.acquire().await.map_err(anyhow::Error::new)?;
    let bytes = if packed { Bytes::from(unpack(&bytes)?) } else { bytes };
    Ok((parse(&bytes)?, bytes))
}

/// Keeps at most `most_bytes`; stops at the first byte beyond, or before the first where the length is announced.
async fn collect(body: &mut Incoming, most_bytes: usize) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > most_bytes as u64 {
        return Err(too_large(most_bytes));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::bad_message("the body was cut off".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most_bytes {
            return Err(too_large(most_bytes));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from(bytes))
}

/// Reads and drops what is left of a refused message's body, within limits.
pub(super) async fn read_out(body: &mut Incoming) {
    let read = async {
        let mut read_bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read_bytes += frame.data_ref().map_or(0, Bytes::len);
            if read_bytes > READ_TO_BE_HEARD {
                return;
            }
        }
    };
    // Whoever sends more, or slower, is cut off.
    drop(tokio::time::timeout(HEARD_WITHIN, read).await);
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| Refusal::bad_message(format!("the body is not such a message: {error}")))
}

fn is_packed(head: &Parts) -> Result<bool, Refusal> {
    match head.headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes()) {
        None | Some(b"identity") => Ok(false),
        Some(b"zstd") => Ok(true),
        Some(_) => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "Content-Encoding: expected zstd or none".to_owned(),
        )),
    }
}

thread_local! {
    /// Making a decoder costs more than unpacking a report.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Unpacks a body of one frame that tells its honest length, as agents send it.
fn unpack_told(packed: &[u8]) -> Option<Vec<u8>> {
    let told = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten()?;
    let told = usize::try_from(told).ok().filter(|told| *told <= MAX_INFLATED_BYTES)?;
    UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(packed, told).ok(),
        None => unpacker.insert(zstd::bulk::Decompressor::new().ok()?).decompress(packed, told).ok(),
    })
}

/// Unpacks zstd up to [`MAX_INFLATED_BYTES`].
fn unpack(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    if let Some(bytes) = unpack_told(packed) {
        return Ok(bytes);
    }
    let broken = |_| Refusal::bad_message("the body is not whole zstd of a window of at most 8 MiB".to_owned());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut bytes = Vec::new();
    decoder.take(MAX_INFLATED_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() > MAX_INFLATED_BYTES { Err(too_large(MAX_INFLATED_BYTES)) } else { Ok(bytes) }
}

fn too_large(most_bytes: usize) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error_words::TOO_LARGE, format!("at most {most_bytes} bytes are accepted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped_while_it_unpacks() {
        let bomb = zstd::encode_all(std::io::repeat(b' ').take(1 << 30), 1).expect("packs");
        assert!(bomb.len() < 200_000);
        assert_eq!(unpack(&bomb).expect_err("refused").status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(unpack(&zstd::encode_all(&b"{}"[..], 1).expect("packs")).expect("unpacks"), b"{}");
        assert_eq!(unpack(b"\x28\xb5\x2f\xfdxx").expect_err("refused").status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn deep_json_is_refused_and_not_followed() {
        let deep = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_err());
    }
}
