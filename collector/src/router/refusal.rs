//! How a refusal of the layer is told: `ErrorBody` under `/api` and to scripts, a small page to people. It never says which of
//! several things was wrong with a credential.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::api::answers::ApiError;
use crate::customers::Language;
use crate::web::error_page;

/// Why a request does not reach the router.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No route has that path, spelt exactly so.
    NoSuchPath,
    /// It has other methods.
    OtherMethod(Vec<&'static str>),
    /// No session, no token, or one that no longer counts.
    NotSignedIn,
    /// The password was right, the code is missing.
    OwesCode,
    /// Known, but the role has not that right.
    NotAllowed,
    /// It came from another site's page, or from no page at all.
    ForeignOrigin,
    /// The form's token is missing or another one's: an old page, or a forgery.
    BadForm,
    /// The body is larger than any form of ours.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Ours to mend.
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl Refusal {
    /// The answer, in the form that `path`'s callers read.
    pub(crate) fn answer(self, path: &str, language: Language, public_url: &str) -> Response {
        if path.starts_with("/api/") {
            return self.for_programs();
        }
        match self {
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT.into_response(),
            Self::NotSignedIn if path != "/events" => Redirect::to("/sign-in").into_response(),
            Self::OwesCode => Redirect::to("/sign-in/code").into_response(),
            Self::NotSignedIn => StatusCode::UNAUTHORIZED.into_response(),
            Self::NoSuchPath => error_page(language, StatusCode::NOT_FOUND, "error.not_found", ""),
            Self::OtherMethod(methods) => {
                allowing(error_page(language, StatusCode::METHOD_NOT_ALLOWED, "error.other_method", ""), &methods)
            }
            Self::NotAllowed => error_page(language, StatusCode::FORBIDDEN, "error.not_allowed", ""),
            Self::ForeignOrigin => error_page(language, StatusCode::FORBIDDEN, "error.foreign_origin", public_url),
            Self::BadForm => error_page(language, StatusCode::FORBIDDEN, "error.old_form", ""),
            Self::TooLarge => error_page(language, StatusCode::PAYLOAD_TOO_LARGE, "error.too_large", ""),
            Self::Internal(error) => {
                tracing::error!(error = format!("{error:#}"), "a request failed before its handler");
                error_page(language, StatusCode::INTERNAL_SERVER_ERROR, "error.internal", "")
            }
        }
    }

    fn for_programs(self) -> Response {
        match self {
            Self::NoSuchPath => ApiError::NotFound.into_response(),
            Self::OtherMethod(methods) => {
                let message = format!("expected one of {}", methods.join(", "));
                let mut response = ApiError::Refused { word: "other_method", message }.into_response();
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                allowing(response, &methods)
            }
            Self::NotSignedIn | Self::OwesCode => {
                let mut response = ApiError::NotSignedIn.into_response();
                response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
                response
            }
            Self::NotAllowed => {
                let message = "expected a token whose role may do this".to_owned();
                ApiError::Refused { word: "not_allowed", message }.into_response()
            }
            Self::ForeignOrigin | Self::BadForm => {
                let message = "expected a request from no other site's page".to_owned();
                ApiError::Refused { word: "foreign_origin", message }.into_response()
            }
            Self::TooLarge => ApiError::TooLarge.into_response(),
            Self::TooSlow => ApiError::TooSlow.into_response(),
            Self::Internal(error) => ApiError::Internal(error).into_response(),
        }
    }
}

fn allowing(mut response: Response, methods: &[&str]) -> Response {
    if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert("allow", value);
    }
    response
}
