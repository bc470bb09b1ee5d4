//! Answers to agents: a JSON message, or a refusal with a word to branch on and a sentence for a person. Internals never leak
//! through a refusal: what failed inside is logged where it is handled.

use axum::http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use mainstay_shared::api::{ErrorBody, error_words};
use serde::Serialize;

/// An answered message: its status and JSON.
#[derive(Debug)]
pub(crate) struct Answered {
    status: StatusCode,
    json: Vec<u8>,
}

impl Answered {
    /// 200 with `message` as JSON.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    pub(super) fn ok(message: &impl Serialize) -> Result<Self, Refusal> {
        Ok(Self { status: StatusCode::OK, json: serde_json::to_vec(message).map_err(anyhow::Error::new)? })
    }

    /// 202: it waits for an operator.
    pub(super) fn waits_for_operator() -> Self {
        let body = ErrorBody {
            error: error_words::WAITS_FOR_OPERATOR.to_owned(),
            message: "an operator has to allow the renewal of an expired certificate; ask again later".to_owned(),
        };
        Self { status: StatusCode::ACCEPTED, json: serde_json::to_vec(&body).unwrap_or_default() }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        response(self.status, self.json)
    }
}

/// A refused message.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    word: &'static str,
    message: String,
    retry_after_s: Option<u64>,
    /// The path is read, not written.
    reads: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, word: &'static str, message: String) -> Self {
        Self { status, word, message, retry_after_s: None, reads: false }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here".to_owned())
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path accepts POST only".to_owned())
    }

    pub(super) fn method_get() -> Self {
        let message = "this path accepts GET and HEAD only".to_owned();
        Self { reads: true, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    pub(super) fn not_enrolled() -> Self {
        let message = "the certificate is missing, unknown or revoked: the appliance must be enrolled again";
        Self::new(StatusCode::UNAUTHORIZED, error_words::NOT_ENROLLED, message.to_owned())
    }

    pub(super) fn bad_message(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error_words::BAD_MESSAGE, message)
    }

    /// 429 or 503: come again after that many seconds.
    pub(super) fn slow_down(status: StatusCode, retry_after_s: u64, message: &str) -> Self {
        let refusal = Self::new(status, error_words::SLOW_DOWN, message.to_owned());
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn word(&self) -> &'static str {
        self.word
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = ErrorBody { error: self.word.to_owned(), message: self.message };
        let mut response = response(self.status, serde_json::to_vec(&body).unwrap_or_default());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = if self.reads { "GET, HEAD" } else { "POST" };
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            // What is beyond the limit of dropping is not read: the connection can't be used again.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        tracing::error!(error = %format!("{error:#}"), "a message could not be answered");
        Self::slow_down(StatusCode::SERVICE_UNAVAILABLE, 5, "the collector could not do it now; try again")
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::new(error).into()
    }
}

fn response(status: StatusCode, json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
