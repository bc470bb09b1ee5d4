//! Every route asked without credentials, with the wrong ones, with odd spellings; sign-in from the first form to the page; what
//! acts refuses foreign origins and forged forms; streams end with their session. Through the whole router, on a real database.

mod link;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use futures_util::StreamExt as _;
use tower::ServiceExt as _;

use super::routes::{ROUTES, Who};
use crate::customers::Role;
use crate::db::testing::{TestDb, both_databases};
use crate::db::{Db, Turn, transact};
use crate::flow::World;
use crate::web::sample;

both_databases!(
    signing_in_takes_password_and_code_and_a_code_counts_once,
    a_disabled_account_is_out_at_once_everywhere,
    a_token_bound_to_a_customer_sees_no_other,
    many_wrong_passwords_let_the_account_rest
);

fn app(world: &World) -> Router {
    super::web(world, Router::new())
}

async fn ask(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.expect("an answer")
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 4 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path)
}

fn form(path: &str, cookie: &str, body: &str) -> Request<Body> {
    request("POST", path)
        .header("cookie", cookie)
        .header("origin", sample::ADDRESS)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

fn filled(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('/').skip(1) {
        out.push('/');
        out.push_str(if part.starts_with('{') { "T-000001" } else { part });
    }
    out
}

async fn seeded(db: &Db) -> World {
    let (world, _) = sample::world(db, sample::ADDRESS);
    sample::seed(&world, "").await.expect("a seeded world");
    world
}

#[tokio::test]
async fn without_credentials_every_route_but_the_public_ones_refuses() {
    let t = TestDb::sqlite().await;
    let app = app(&seeded(&t.db).await);
    for route in ROUTES {
        for credentials in ["", "mainstay-session=0000", "Bearer mst_wrong"] {
            let mut asked = request(route.method, &filled(route.path)).header("origin", sample::ADDRESS);
            if let Some(cookie) = credentials.strip_prefix("mainstay") {
                asked = asked.header("cookie", format!("__Host-mainstay{cookie}"));
            } else if !credentials.is_empty() {
                asked = asked.header("authorization", credentials);
            }
            let response = ask(&app, asked.body(Body::empty()).expect("a request")).await;
            let (status, to) = (response.status(), response.headers().get("location").cloned());
            let refused = match route.who {
                Who::Anyone => continue,
                // No such link, or no form: nothing behind it either way.
                Who::Link => status == StatusCode::NOT_FOUND || status == StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Who::Token(_) => status == StatusCode::UNAUTHORIZED,
                Who::Metrics => status != StatusCode::OK,
                Who::Session(_) | Who::HalfSignedIn => {
                    status == StatusCode::UNAUTHORIZED
                        || to.as_ref().is_some_and(|to| to == "/sign-in")
                        || status == StatusCode::FORBIDDEN
                }
            };
            assert!(refused, "{} {} answered {status} to {credentials:?}", route.method, route.path);
        }
    }
}

#[tokio::test]
async fn the_described_api_is_the_table_and_nothing_else() {
    let (_, description) = crate::api::parts();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in &description.paths.paths {
        for (method, there) in [("GET", item.get.is_some()), ("POST", item.post.is_some())] {
            if there {
                described.push((method.to_owned(), path.clone()));
            }
        }
    }
    let mut listed: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.path.starts_with("/api/") && route.path != "/api/v1/openapi.json")
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    described.sort();
    listed.sort();
    assert_eq!(described, listed);
}

#[tokio::test]
async fn every_answer_carries_the_strict_headers() {
    let t = TestDb::sqlite().await;
    let app = app(&seeded(&t.db).await);
    for path in ["/sign-in", "/", "/nothing", "/api/v1/tickets", "/%2e%2e/etc"] {
        let response = ask(&app, request("GET", path).body(Body::empty()).expect("a request")).await;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!((header("x-frame-options").as_str(), header("cache-control").as_str()), ("DENY", "no-store"), "{path}");
        assert!(!header("strict-transport-security").is_empty(), "{path}");
    }
}

/// Signs in by the forms, as a browser would; answers the session's cookie.
async fn sign_in(app: &Router, world: &World, username: &str) -> String {
    let page = ask(app, request("GET", "/sign-in").body(Body::empty()).expect("a request")).await;
    let set = page.headers().get("set-cookie").expect("a form cookie").to_str().expect("text").to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Secure") && set.starts_with("__Host-"));
    let form_cookie = set.split(';').next().expect("a cookie").to_owned();
    let token = form_cookie.split('=').nth(1).expect("a value").to_owned();
    let body = format!("csrf={token}&username={username}&password=correct+horse+battery+staple");
    let answer = ask(app, form("/sign-in", &form_cookie, &body)).await;
    assert_eq!(answer.headers().get("location").expect("goes on"), "/sign-in/code");
    let half = cookie_of(&answer);
    // The half session opens nothing.
    let early = ask(app, request("GET", "/").header("cookie", &half).body(Body::empty()).expect("a request")).await;
    assert_eq!(early.headers().get("location").expect("sent back"), "/sign-in/code");
    let page =
        text(ask(app, request("GET", "/sign-in/code").header("cookie", &half).body(Body::empty()).expect("a request")).await)
            .await;
    let body = format!("csrf={}&code={}", csrf_in(&page), code_now(world));
    let answer = ask(app, form("/sign-in/code", &half, &body)).await;
    assert_eq!(answer.headers().get("location").map(|to| to.as_bytes()), Some(b"/".as_slice()), "signed in");
    cookie_of(&answer)
}

fn cookie_of(response: &Response<Body>) -> String {
    let set = response.headers().get("set-cookie").expect("a cookie").to_str().expect("text");
    set.split(';').next().expect("a cookie").to_owned()
}

fn csrf_in(page: &str) -> String {
    page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a form token").to_owned()
}

fn code_now(world: &World) -> String {
    let secret = totp_rs::Secret::try_from_base32(sample::TOTP).expect("base32");
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("x").build().expect("a TOTP");
    totp.generate(u64::try_from(world.time.now().0 / 1000).expect("after 1970")).to_string()
}

async fn signing_in_takes_password_and_code_and_a_code_counts_once(db: Db) {
    let world = seeded(&db).await;
    let app = app(&world);
    let cookie = sign_in(&app, &world, "mia").await;
    let page = ask(&app, request("GET", "/").header("cookie", &cookie).body(Body::empty()).expect("a request")).await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = text(page).await;
    assert!(page.contains("T-000001") && page.contains("Mia Chen"));
    // The same code again, within its step, opens nothing.
    let half = {
        let outcome = crate::api::sessions::sign_in::password(&world, "mia", sample::PASSWORD).await.expect("asks");
        let crate::api::sessions::sign_in::Outcome::Right { cookie } = outcome else { panic!("the password is right") };
        format!("__Host-mainstay-session={cookie}")
    };
    let asked = ask(&app, request("GET", "/sign-in/code").header("cookie", &half).body(Body::empty()).expect("a request")).await;
    let body = format!("csrf={}&code={}", csrf_in(&text(asked).await), code_now(&world));
    assert_eq!(ask(&app, form("/sign-in/code", &half, &body)).await.status(), StatusCode::FORBIDDEN);
    // Signing out ends it.
    let body = format!("csrf={}", csrf_in(&page));
    ask(&app, form("/sign-out", &cookie, &body)).await;
    let after = ask(&app, request("GET", "/").header("cookie", &cookie).body(Body::empty()).expect("a request")).await;
    assert_eq!(after.headers().get("location").expect("sent away"), "/sign-in");
}

async fn many_wrong_passwords_let_the_account_rest(db: Db) {
    use crate::api::sessions::sign_in::{Outcome, password};
    let world = seeded(&db).await;
    for _ in 0..5 {
        assert_eq!(password(&world, "li", "wrong").await.expect("asks"), Outcome::Refused);
    }
    assert_eq!(password(&world, "li", sample::PASSWORD).await.expect("asks"), Outcome::Refused, "it rests");
    assert_eq!(password(&world, "nobody", "wrong").await.expect("asks"), Outcome::Refused);
    world.time.advance(std::time::Duration::from_secs(31));
    assert!(matches!(password(&world, "li", sample::PASSWORD).await.expect("asks"), Outcome::Right { .. }), "rested");
}

async fn a_disabled_account_is_out_at_once_everywhere(db: Db) {
    let world = seeded(&db).await;
    let app = app(&world);
    sample::session(&world, "mia", "m").await.expect("a session");
    let token = sample::token(&world, "mia", Role::SupportManager, None).await.expect("a token");
    let cookie = "__Host-mainstay-session=m";
    let by_cookie = || request("GET", "/").header("cookie", cookie).body(Body::empty()).expect("a request");
    let by_token = || {
        request("GET", "/api/v1/tickets")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request")
    };
    assert_eq!(ask(&app, by_cookie()).await.status(), StatusCode::OK);
    assert_eq!(ask(&app, by_token()).await.status(), StatusCode::OK);
    let stream = ask(&app, request("GET", "/events").header("cookie", cookie).body(Body::empty()).expect("a request")).await;
    let mut stream = stream.into_body().into_data_stream();
    assert!(stream.next().await.is_some(), "the stream is open");
    disable(&db, "mia").await.expect("disables");
    assert_eq!(ask(&app, by_cookie()).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(ask(&app, by_token()).await.status(), StatusCode::UNAUTHORIZED);
    // The stream asks again within 25 s by itself.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), stream.next()).await.expect("within a minute");
    assert!(ended.is_none(), "the stream has ended");
}

async fn disable(db: &Db, staff_id: &str) -> anyhow::Result<()> {
    transact!(*db, Turn::Console, |tx| { Ok(crate::customers::store::disable_staff(tx, staff_id, sample::NOW).await?) });
    Ok(())
}

async fn a_token_bound_to_a_customer_sees_no_other(db: Db) {
    let world = seeded(&db).await;
    let app = app(&world);
    let token = sample::token(&world, "li", Role::SystemEngineer, Some("bank")).await.expect("a token");
    let get = |path: &str| {
        request("GET", path).header("authorization", format!("Bearer {token}")).body(Body::empty()).expect("a request")
    };
    let list = text(ask(&app, get("/api/v1/tickets")).await).await;
    assert!(list.contains("T-000001") && !list.contains("T-000003"), "{list}");
    for path in [
        "/api/v1/tickets/T-000003".to_owned(),
        "/api/v1/tickets/T-000003/notices".to_owned(),
        format!("/api/v1/appliances/{}", sample::BOX_OTHER),
        format!("/api/v1/appliances/{}/health", sample::BOX_OTHER),
        "/api/v1/customers/city/sites".to_owned(),
        "/api/v1/customers/vendor/audit/verify".to_owned(),
    ] {
        assert_eq!(ask(&app, get(&path)).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/api/v1/tickets?customer=city", "/api/v1/appliances", "/api/v1/customers"] {
        let body = text(ask(&app, get(path)).await).await;
        assert!(!body.contains("city") && !body.contains("Riverside"), "{path}: {body}");
    }
    assert_eq!(ask(&app, get(&format!("/api/v1/appliances/{}/health", sample::BOX_A))).await.status(), StatusCode::OK);
    sample::token(&world, "li", Role::SystemEngineer, None).await.expect("a token");
    for (id, expected) in [("id-li-all", StatusCode::NOT_FOUND), ("id-li-bank", StatusCode::NO_CONTENT)] {
        let revoke = request("POST", &format!("/api/v1/tokens/{id}/revoke")).header("authorization", format!("Bearer {token}"));
        let answer = ask(&app, revoke.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status(), expected, "a bound token ends itself and no token of all customers: {id}");
    }
}

#[tokio::test]
async fn what_acts_refuses_other_sites_forged_forms_and_roles_without_the_right() {
    let t = TestDb::sqlite().await;
    let world = seeded(&t.db).await;
    let app = app(&world);
    sample::session(&world, "li", "l").await.expect("a session");
    sample::session(&world, "ann", "a").await.expect("a session");
    let act = |cookie: &str, origin: Option<(&str, &str)>, body: &str| {
        let mut asked = request("POST", "/tickets/T-000001/acts")
            .header("cookie", format!("__Host-mainstay-session={cookie}"))
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some((name, value)) = origin {
            asked = asked.header(name, value);
        }
        asked.body(Body::from(body.to_owned())).expect("a request")
    };
    let own = Some(("origin", sample::ADDRESS));
    let rows = [
        ("l", Some(("origin", "https://evil.example")), "csrf=form-token&act=take", "another origin"),
        ("l", Some(("origin", "null")), "csrf=form-token&act=take", "a hidden origin"),
        ("l", Some(("sec-fetch-site", "cross-site")), "csrf=form-token&act=take", "another site"),
        ("l", Some(("sec-fetch-site", "same-site")), "csrf=form-token&act=take", "a sibling host"),
        ("l", None, "csrf=form-token&act=take", "no page at all"),
        ("l", own, "act=take", "no form token"),
        ("l", own, "csrf=form-toke&act=take", "another form token"),
        ("a", own, "csrf=form-token&act=take", "a role without the right"),
    ];
    for (cookie, origin, body, why) in rows {
        assert_eq!(ask(&app, act(cookie, origin, body)).await.status(), StatusCode::FORBIDDEN, "{why}");
    }
    let huge = format!("csrf=form-token&text={}", "x".repeat(70_000));
    assert_eq!(ask(&app, act("l", own, &huge)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let stream = request("GET", "/events")
        .header("cookie", "__Host-mainstay-session=l")
        .header("origin", "https://evil.example")
        .body(Body::empty())
        .expect("a request");
    assert_eq!(ask(&app, stream).await.status(), StatusCode::FORBIDDEN, "a stream for another origin");
}

#[tokio::test]
async fn whatever_the_api_refuses_it_refuses_with_an_error_body() {
    let t = TestDb::sqlite().await;
    let world = seeded(&t.db).await;
    let app = app(&world);
    let token = sample::token(&world, "li", Role::SystemEngineer, None).await.expect("a token");
    let rows = [
        ("GET", "/api/v1/tickets?limit=abc", "", 400),
        ("GET", "/api/v1/tickets?limit=0", "", 400),
        ("GET", "/api/v1/tickets?state=odd", "", 400),
        ("GET", "/api/v1/tickets?unknown=1", "", 400),
        ("GET", "/api/v1/nothing", "", 404),
        ("GET", "/api/v1/tickets/../me", "", 404),
        ("DELETE", "/api/v1/tickets", "", 405),
        ("POST", "/api/v1/tickets/T-000001/acts", "{", 400),
        ("POST", "/api/v1/tickets/T-000001/acts", "{\"act\":\"dance\"}", 400),
        ("POST", "/api/v1/tickets/T-999999/acts", "{\"act\":\"take\"}", 404),
        ("GET", "/api/v1/appliances?limit=1000", "", 400),
        ("GET", "/api/v1/appliances/x/health?from=5&to=1", "", 400),
        ("POST", "/api/v1/appliances/x/release", "", 403),
    ];
    for (method, path, body, status) in rows {
        let asked = request(method, path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .expect("a request");
        let response = ask(&app, asked).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let body = text(response).await;
        let error: mainstay_shared::api::ErrorBody = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}"));
        assert!(!error.error.is_empty() && !error.message.is_empty());
    }
}
