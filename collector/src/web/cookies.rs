//! The console's three cookies: session, form token before sign-in, language before sign-in. All are HttpOnly and SameSite=Strict,
//! and over TLS `__Host-`: bound to this host, never set from a sibling's page.

use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::config::Config;

/// The opaque id of a session.
pub(crate) const SESSION: &str = "mainstay-session";
/// What forms carry before anybody is known.
pub(crate) const FORM: &str = "mainstay-form";
/// The language chosen before sign-in.
pub(crate) const LANGUAGE: &str = "mainstay-language";

fn is_tls(config: &Config) -> bool {
    config.web_public_url.starts_with("https://")
}

/// A cookie's full name.
pub(crate) fn name(config: &Config, base: &str) -> String {
    if is_tls(config) { format!("__Host-{base}") } else { base.to_owned() }
}

/// `response` setting a cookie until the browser closes. `value` is ours: hex or a language code.
pub(crate) fn with(response: Response, config: &Config, base: &str, value: &str) -> Response {
    set(response, config, base, value, "")
}

/// `response` removing a cookie.
pub(crate) fn without(response: Response, config: &Config, base: &str) -> Response {
    set(response, config, base, "", "; Max-Age=0")
}

fn set(mut response: Response, config: &Config, base: &str, value: &str, more: &str) -> Response {
    let secure = if is_tls(config) { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", name(config, base));
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}
