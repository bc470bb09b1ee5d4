//! Every route of the web listener and who may use it: what is not in this table does not exist (R5). The layer in `guard.rs`
//! reads it before any handler; the API's description and a walk without credentials are tested against it.

use crate::api::access::Right;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Everyone: sign-in, health, assets by exact name.
    Anyone,
    /// Who knew the password and owes the code.
    HalfSignedIn,
    /// A browser's session with that right.
    Session(Right),
    /// A bearer token with that right.
    Token(Right),
    /// Whoever holds a mail's link: the token in the path is looked up by the handler, and lets nobody do more than ask a box.
    Link,
    /// `/metrics`: the handler's own rule (loopback, or a token).
    Metrics,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// axum's spelling: `{name}` stands for one segment.
    pub(crate) path: &'static str,
    pub(crate) who: Who,
}

const fn route(method: &'static str, path: &'static str, who: Who) -> Route {
    Route { method, path, who }
}

const PAGE: Who = Who::Session(Right::Read);
const WORK: Who = Who::Session(Right::WorkOnTickets);
const ADMIN: Who = Who::Session(Right::Administer);
const READ: Who = Who::Token(Right::Read);
const ACT: Who = Who::Token(Right::WorkOnTickets);
const RULE: Who = Who::Token(Right::Administer);

/// The table. A new page or API route is one line here and one handler.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/healthz", Who::Anyone),
    route("GET", "/metrics", Who::Metrics),
    route("GET", "/assets/{name}", Who::Anyone),
    route("GET", "/sign-in", Who::Anyone),
    route("POST", "/sign-in", Who::Anyone),
    route("GET", "/sign-in/code", Who::HalfSignedIn),
    route("POST", "/sign-in/code", Who::HalfSignedIn),
    route("POST", "/language", Who::Anyone),
    route("POST", "/sign-out", PAGE),
    route("GET", "/events", PAGE),
    route("GET", "/", PAGE),
    route("GET", "/tickets/open", WORK),
    route("POST", "/tickets/open", WORK),
    route("GET", "/tickets/{ticket}", PAGE),
    route("POST", "/tickets/{ticket}/acts", WORK),
    route("GET", "/appliances", PAGE),
    route("GET", "/appliances/{appliance}", PAGE),
    route("POST", "/appliances/{appliance}/release", ADMIN),
    route("POST", "/appliances/{appliance}/approve-renewal", ADMIN),
    route("GET", "/p/{token}", Who::Link),
    route("POST", "/p/{token}/approve", Who::Link),
    route("POST", "/p/{token}/refuse", Who::Link),
    route("POST", "/p/{token}/download", Who::Link),
    route("POST", "/p/{token}/receipt", Who::Link),
    route("GET", "/releases", PAGE),
    route("POST", "/releases/receipts", WORK),
    route("GET", "/releases/{file}", PAGE),
    route("POST", "/releases/{file}/offers", WORK),
    route("POST", "/tickets/{ticket}/offers", WORK),
    route("POST", "/appliances/{appliance}/offers/{offer}/take-back", WORK),
    route("GET", "/customers", PAGE),
    route("GET", "/account", PAGE),
    route("POST", "/account/sessions/end-others", PAGE),
    route("POST", "/account/tokens", PAGE),
    route("POST", "/account/tokens/{token}/revoke", PAGE),
    route("GET", "/api/v1/openapi.json", READ),
    route("GET", "/api/v1/tickets", READ),
    route("POST", "/api/v1/tickets", ACT),
    route("GET", "/api/v1/tickets/{ticket}", READ),
    route("POST", "/api/v1/tickets/{ticket}/acts", ACT),
    route("GET", "/api/v1/tickets/{ticket}/notices", READ),
    route("GET", "/api/v1/appliances", READ),
    route("GET", "/api/v1/appliances/{appliance}", READ),
    route("GET", "/api/v1/appliances/{appliance}/health", READ),
    route("POST", "/api/v1/appliances/{appliance}/release", RULE),
    route("POST", "/api/v1/appliances/{appliance}/approve-renewal", RULE),
    route("POST", "/api/v1/appliances/{appliance}/report-now", RULE),
    route("GET", "/api/v1/releases", READ),
    route("GET", "/api/v1/releases/{file}", READ),
    route("POST", "/api/v1/releases/{file}/offers", ACT),
    route("POST", "/api/v1/receipts", ACT),
    route("GET", "/api/v1/appliances/{appliance}/patches", READ),
    route("POST", "/api/v1/appliances/{appliance}/offers/{offer}/take-back", ACT),
    route("POST", "/api/v1/appliances/{appliance}/entitlement", RULE),
    route("GET", "/api/v1/customers", READ),
    route("GET", "/api/v1/customers/{customer}/sites", READ),
    route("GET", "/api/v1/customers/{customer}/contacts", READ),
    route("GET", "/api/v1/customers/{customer}/groups", READ),
    route("GET", "/api/v1/customers/{customer}/audit/verify", READ),
    route("GET", "/api/v1/me", READ),
    route("GET", "/api/v1/tokens", READ),
    route("POST", "/api/v1/tokens/{token}/revoke", READ),
];

/// Why a request fits no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The path is spelt in a way that no route has: escapes, doubled or closing slashes, dots, parameters.
    OddSpelling,
    /// There is no such path.
    Unknown,
    /// There is, but not for that method.
    OtherMethod,
}

/// The route of `method` and `path`; HEAD counts as GET. Exact match only: nothing is decoded, trimmed or folded.
pub(crate) fn find(method: &str, path: &str) -> Result<&'static Route, NoRoute> {
    if !is_plainly_spelt(path) {
        return Err(NoRoute::OddSpelling);
    }
    let method = if method == "HEAD" { "GET" } else { method };
    let mut answer = NoRoute::Unknown;
    // A literal path stands before the pattern that would also fit, as in axum.
    for pattern in [false, true] {
        for route in ROUTES.iter().filter(|route| route.path.contains('{') == pattern && fits(route.path, path)) {
            if route.method == method {
                return Ok(route);
            }
            answer = NoRoute::OtherMethod;
        }
        if answer == NoRoute::OtherMethod {
            break;
        }
    }
    Err(answer)
}

/// The methods that a path has.
pub(crate) fn methods_of(path: &str) -> Vec<&'static str> {
    ROUTES.iter().filter(|route| fits(route.path, path)).map(|route| route.method).collect()
}

fn is_plainly_spelt(path: &str) -> bool {
    path == "/"
        || (path.starts_with('/')
            && path.len() <= 256
            && path[1..].split('/').all(|segment| {
                !segment.is_empty()
                    && !segment.starts_with('.')
                    && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            }))
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted.starts_with('{') || wanted == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_spelling_of_a_route_is_a_route() {
        let rows = [
            ("GET", "/tickets/T-000001", None, "as it is"),
            ("HEAD", "/tickets/T-000001", None, "HEAD is GET"),
            ("GET", "/tickets/open", None, "the literal before the pattern"),
            ("DELETE", "/tickets/T-000001", Some(NoRoute::OtherMethod), "another method"),
            ("GET", "/tickets/T-000001/", Some(NoRoute::OddSpelling), "a closing slash"),
            ("GET", "//tickets/T-000001", Some(NoRoute::OddSpelling), "a doubled slash"),
            ("GET", "/tickets/../account", Some(NoRoute::OddSpelling), "dots"),
            ("GET", "/tickets/%2e%2e/account", Some(NoRoute::OddSpelling), "escaped dots"),
            ("GET", "/account;a=b", Some(NoRoute::OddSpelling), "a path parameter"),
            ("GET", "/account%00", Some(NoRoute::OddSpelling), "a NUL"),
            ("GET", "/Account", Some(NoRoute::Unknown), "another case"),
            ("GET", "/api/v1/Tickets", Some(NoRoute::Unknown), "another case within"),
            ("GET", "", Some(NoRoute::OddSpelling), "nothing"),
            ("OPTIONS", "*", Some(NoRoute::OddSpelling), "the server itself"),
        ];
        for (method, path, refused, why) in rows {
            assert_eq!(find(method, path).err(), refused, "{why}: {method} {path}");
        }
    }

    #[test]
    fn only_sign_in_language_health_and_assets_are_open_to_everyone() {
        let open: Vec<_> = ROUTES.iter().filter(|r| r.who == Who::Anyone).map(|r| (r.method, r.path)).collect();
        let expected =
            [("GET", "/healthz"), ("GET", "/assets/{name}"), ("GET", "/sign-in"), ("POST", "/sign-in"), ("POST", "/language")];
        assert_eq!(open, expected);
    }
}
