//! A mail's link at the front door: no cookie, no origin, twenty visits and posted forms of a mail gateway, and what a person does there.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::{app, ask, request, seeded, text};
use crate::customers::Role;
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::flow::World;
use crate::flow::file_is_offered::{self, Wish};
use crate::flow::testing::staff;
use crate::web::sample;

both_databases!(a_link_survives_a_mail_gateway_and_carries_what_a_person_types);

fn form(path: &str, body: &str) -> Request<Body> {
    request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

async fn asked(world: &World) -> i64 {
    let mut conn = world.db.read().await.expect("reads");
    sqlx::query_scalar("SELECT COUNT(*) FROM directives").fetch_one(&mut *conn).await.expect("counts")
}

async fn token_in_the_mail(world: &World) -> String {
    let mut conn = world.db.read().await.expect("reads");
    let body: String =
        sqlx::query_scalar("SELECT body FROM outbox WHERE kind = 'patch_link'").fetch_one(&mut *conn).await.expect("a mail");
    body.split("/p/").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link").to_owned()
}

async fn a_link_survives_a_mail_gateway_and_carries_what_a_person_types(db: Db) {
    let world = seeded(&db).await;
    sample::release(&world).await.expect("a file");
    let wish = Wish {
        file: "acme-gateway-2.1.0.mpatch".into(),
        appliances: vec![sample::BOX_A.into()],
        by_mail: true,
        ..Wish::default()
    };
    let told = file_is_offered::offer(&world, &staff("li", Role::SystemEngineer), None, &wish).await.expect("asks").expect("may");
    let offer = told[0].outcome.clone().expect("offered");
    let (app, page) = (app(&world), format!("/p/{}", token_in_the_mail(&world).await));
    for _ in 0..20 {
        for method in ["GET", "HEAD"] {
            let seen = ask(&app, request(method, &page).body(Body::empty()).expect("a request")).await;
            assert_eq!(seen.status(), StatusCode::OK);
            let header = |name: &str| seen.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            assert_eq!((header("referrer-policy").as_str(), header("set-cookie").as_str()), ("no-referrer", ""));
        }
        for (act, body) in [("approve", ""), ("approve", "code=000"), ("refuse", "reason=spam&code="), ("receipt", "receipt=x")] {
            let answer = ask(&app, form(&format!("{page}/{act}"), body)).await;
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{act}");
        }
    }
    assert_eq!(asked(&world).await, 1, "the box was asked nothing but the offer");
    let shown = text(ask(&app, request("GET", &page).body(Body::empty()).expect("a request")).await).await;
    assert!(
        shown.contains(&"5".repeat(64)) && shown.contains("vpn-gw-01") && !shown.contains("http-equiv=\"refresh\""),
        "{shown}"
    );
    let answer = ask(&app, form(&format!("{page}/approve"), &format!("offer={offer}&code=123456"))).await;
    let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(to, format!("{page}?said=done_typed"));
    assert_eq!(asked(&world).await, 2);
    let english = text(ask(&app, request("GET", &format!("{page}?l=en")).body(Body::empty()).expect("a request")).await).await;
    assert!(english.contains("on its way to the appliance") && english.contains("http-equiv=\"refresh\""), "{english}");
    let unknown = ask(&app, request("GET", &format!("/p/{}", "0".repeat(64))).body(Body::empty()).expect("a request")).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}
