//! The security headers of every answer of the web listener (R12). Pages run only our own script and style files, never inline.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Only our own files; no frame, no base, no form to elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const EVERYWHERE: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // With "no-referrer" a browser sends `Origin: null` with our own forms, and the guard could not tell them from foreign ones.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// `response` with the headers; only assets, whose names carry their content's hash, may be kept by caches.
pub(crate) fn secured(mut response: Response, path: &str, tls: bool) -> Response {
    let success = response.status().is_success();
    let headers = response.headers_mut();
    for (name, value) in EVERYWHERE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A mail's link is its own key: no other page learns its address. Its forms are judged by what is typed, not by their origin.
    if path.starts_with("/p/") {
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    let cache = if path.starts_with("/assets/") && success { "public, max-age=31536000, immutable" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
