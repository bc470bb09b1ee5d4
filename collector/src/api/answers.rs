//! The API's one error type and its extractors: whatever is refused, wherever, answers with the same `ErrorBody`, and internals
//! never leak through it (they are logged here, once).

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use mainstay_shared::api::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// It makes no sense: what was wrong, what is accepted.
    Bad(String),
    /// No (good) credentials.
    NotSignedIn,
    /// Known, but not allowed: the stable word and the reason.
    Refused { word: &'static str, message: String },
    /// There is nothing of that name, or not for this caller.
    NotFound,
    /// It stands otherwise than the request assumes.
    Conflict { word: &'static str, message: String },
    /// Too large.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The body's type is not the one accepted.
    WrongType(String),
    /// Ours to mend.
    Internal(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

impl ApiError {
    /// Status, stable word and message.
    pub(crate) fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Bad(message) => (StatusCode::BAD_REQUEST, "bad_request", message.clone()),
            Self::NotSignedIn => {
                (StatusCode::UNAUTHORIZED, "not_signed_in", "expected a valid token: Authorization: Bearer mst_...".to_owned())
            }
            Self::Refused { word, message } => (StatusCode::FORBIDDEN, word, message.clone()),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "there is nothing here for this caller".to_owned()),
            Self::Conflict { word, message } => (StatusCode::CONFLICT, word, message.clone()),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "expected a body of at most 64 KiB".to_owned()),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow", "expected the body within 30 s".to_owned()),
            Self::WrongType(message) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_type", message.clone()),
            Self::Internal(error) => {
                tracing::error!(error = format!("{error:#}"), "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "the collector could not do this; its log says why".to_owned())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error, message) = self.parts();
        (status, Json(ErrorBody { error: error.to_owned(), message })).into_response()
    }
}

/// `ErrorBody` as the API's description shows it: the shared type knows nothing of OpenAPI.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorBody)]
pub(crate) struct ErrorShape {
    /// A stable word to branch on.
    error: String,
    /// For a person: what was wrong, what is accepted.
    message: String,
}

/// A JSON body, with our error body when it is none.
#[derive(Debug)]
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(error)) => Err(ApiError::WrongType(error.body_text())),
            Err(JsonRejection::BytesRejection(_)) => Err(ApiError::TooLarge),
            Err(error) => Err(ApiError::Bad(error.body_text())),
        }
    }
}

/// Query parameters, likewise.
#[derive(Debug)]
pub(crate) struct ApiQuery<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::Bad(error.body_text())),
        }
    }
}

/// Path parameters, likewise.
#[derive(Debug)]
pub(crate) struct ApiPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(_) => Err(ApiError::NotFound),
        }
    }
}
