//! Reads a body within its limits: bytes as sent, time, bytes once unpacked, depth of JSON. A bomb is stopped while it unpacks,
//! not after; what is far too large is refused before it is read where its length is announced.

use std::io::Read as _;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use mainstay_shared::limits::MAX_INFLATED_BYTES;
use serde::de::DeserializeOwned;

use super::{Door, Refusal};

/// How long a body may take to arrive; a slow link of 64 kbit/s brings the largest in two minutes, compressed samples in seconds.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
/// How much of a body that is too large is read to its end, so that its sender hears why it is refused.
const READ_TO_BE_HEARD: usize = 4 << 20;
/// log2 of the largest window that a zstd frame may ask memory for: as large as the largest body unpacked.
const WINDOW_LOG: u32 = 23;

/// The message in a body of at most `most_bytes` as sent, and the body unpacked.
pub(super) async fn message<T: DeserializeOwned>(
    door: &Door,
    request: Request<Incoming>,
    most_bytes: usize,
) -> Result<(T, Bytes), Refusal> {
    let packed = is_packed(&request)?;
    let body = request.into_body();
    if body.size_hint().lower() > (most_bytes + READ_TO_BE_HEARD) as u64 {
        return Err(too_large(most_bytes));
    }
    let bytes = tokio::time::timeout(ARRIVES_WITHIN, collect(body, most_bytes))
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time".to_owned()))??;
    // Held while it is unpacked and parsed: what hostile JSON makes of memory is bounded by the number of turns.
    let _turn = door.reading.acquire().await.map_err(anyhow::Error::new)?;
    let bytes = if packed { Bytes::from(unpack(&bytes)?) } else { bytes };
    Ok((parse(&bytes)?, bytes))
}

/// Keeps at most `most_bytes`. A little more is read and dropped, or the sender would meet a closed connection, not the answer.
async fn collect(mut body: Incoming, most_bytes: usize) -> Result<Bytes, Refusal> {
    let (mut bytes, mut read_bytes) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::bad_message("the body was cut off".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue };
        read_bytes += data.len();
        if read_bytes > most_bytes + READ_TO_BE_HEARD {
            break;
        }
        if read_bytes <= most_bytes {
            bytes.extend_from_slice(&data);
        }
    }
    if read_bytes > most_bytes { Err(too_large(most_bytes)) } else { Ok(Bytes::from(bytes)) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| Refusal::bad_message(format!("the body is not such a message: {error}")))
}

fn is_packed(request: &Request<Incoming>) -> Result<bool, Refusal> {
    match request.headers().get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes()) {
        None | Some(b"identity") => Ok(false),
        Some(b"zstd") => Ok(true),
        Some(_) => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "Content-Encoding: expected zstd or none".to_owned(),
        )),
    }
}

/// Unpacks zstd up to [`MAX_INFLATED_BYTES`].
fn unpack(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let broken = |_| Refusal::bad_message("the body is not whole zstd of a window of at most 8 MiB".to_owned());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut bytes = Vec::new();
    decoder.take(MAX_INFLATED_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() > MAX_INFLATED_BYTES { Err(too_large(MAX_INFLATED_BYTES)) } else { Ok(bytes) }
}

fn too_large(most_bytes: usize) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("at most {most_bytes} bytes are accepted"))
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
