//! Oversized, deep, malformed, bombs, strangers: limits hit, clear errors, others unharmed (R5, R11, R20).

use anyhow::Result;
use e2e::both_databases;
use e2e::database::Engine;
use e2e::desk::Console;
use e2e::wire::{send, stranger};
use mainstay_shared::api::{PATH_POLL, PATH_RENEW, PATH_REPORTS};
use mainstay_shared::limits::{MAX_BODY_BYTES, MAX_INFLATED_BYTES, MAX_RECORDS};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::scene::{Scene, clear, raise};

both_databases!(
    what_is_too_much_or_no_message_is_refused_and_others_go_on,
    hostile_names_are_refused_record_by_record,
    no_route_answers_without_credentials,
);

/// What it is, the body, its encoding, the statuses that refuse it.
type Case = (&'static str, Vec<u8>, Option<&'static str>, &'static [u16]);

async fn what_is_too_much_or_no_message_is_refused_and_others_go_on(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut bad = scene.peer("bad", &["shop"]).await?;
    let mut good = scene.peer("good", &["shop"]).await?;
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut many = serde_json::to_value(bad.report_of(Vec::new()))?;
    let one = serde_json::to_value(raise(&mut bad, "shop"))?;
    many["records"] = Value::Array(vec![one; MAX_RECORDS + 1]);
    let random: Vec<u8> = (0..=u8::MAX).cycle().map(|b| b.wrapping_mul(167)).take(MAX_BODY_BYTES + 1).collect();
    let cases: [Case; 11] = [
        ("larger than a body may be", random, Some("zstd"), &[413]),
        ("a bomb", zstd(&vec![b' '; MAX_INFLATED_BYTES * 8])?, Some("zstd"), &[413]),
        ("deep", zstd(deep.as_bytes())?, Some("zstd"), &[400]),
        ("cut off", zstd(b"{\"version\":1,\"epoch\":")?, Some("zstd"), &[400]),
        ("no zstd", b"{}".to_vec(), Some("zstd"), &[400]),
        ("another encoding", b"{}".to_vec(), Some("br"), &[400, 415]),
        ("not UTF-8", zstd(&[0xff, 0xfe, 0x00])?, Some("zstd"), &[400]),
        ("another type", zstd(b"[1,2,3]")?, Some("zstd"), &[400]),
        ("too many records", zstd(&serde_json::to_vec(&many)?)?, Some("zstd"), &[400, 413]),
        ("a version from the future", zstd(json!({"version": 99}).to_string().as_bytes())?, Some("zstd"), &[400]),
        ("nothing", Vec::new(), None, &[400]),
    ];
    for (what, body, encoding, accepted) in cases {
        let answer = bad.send_bytes(PATH_REPORTS, body, encoding).await?;
        assert!(accepted.contains(&answer.status.as_u16()), "{what}: {}", answer.status);
        let word = answer.refusal()?;
        assert!(!word.is_empty(), "{what}");
    }
    let record = raise(&mut good, "shop");
    assert!(!good.report(vec![record]).await?.acks.is_empty());
    assert_eq!(scene.tickets_by_component().await?.get("service:shop"), Some(&1));
    Ok(())
}

async fn hostile_names_are_refused_record_by_record(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut peer = scene.peer("names", &["shop"]).await?;
    let long = raise(&mut peer, &"x".repeat(5000));
    let control = raise(&mut peer, "a\u{0}b\u{202E}c");
    let good = raise(&mut peer, "shop");
    let reply = peer.report(vec![long.clone(), control.clone(), good.clone()]).await?;
    assert!(reply.acks.contains(&good.id), "the good one is taken: {reply:?}");
    let refused: Vec<_> = reply.refused.iter().map(|r| &r.id).collect();
    assert_eq!(refused, [&long.id, &control.id]);
    let cleared = clear(&mut peer, "shop", &good);
    peer.report(vec![cleared]).await?;
    assert_eq!(scene.desk.tickets().await?.len(), 1);
    Ok(())
}

/// Every route of the description, every page that a person can reach, and the agents' listener, by a stranger.
async fn no_route_answers_without_credentials(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let description = scene.desk.get("/openapi.json").await?;
    let stranger = stranger()?;
    let mut walked = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = if path.starts_with("/api/v1") { path.clone() } else { format!("/api/v1{path}") };
        let filled = path.replace("{ticket}", "T-000001").replace(['{', '}'], "");
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase().parse()?;
            let url = format!("{}{filled}", scene.collector.web_url());
            let status =
                stranger.request(method, &url).header("Content-Type", "application/json").body("{}").send().await?.status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            walked += 1;
        }
    }
    assert!(walked > 15, "{walked} routes");
    let visitor = Console::visitor(&scene.collector.web_url())?;
    for path in ["/", "/tickets/T-000001", "/tickets/open", "/appliances", "/customers", "/account"] {
        let page = visitor.page(path).await?;
        assert_eq!(page.location.as_deref(), Some("/sign-in"), "{path}: {}", page.status);
    }
    for path in ["//", "/%2e%2e/", "/tickets/", "/TICKETS/T-000001", "/api/v1/tickets;x", "/api//v1/tickets", "/nothing"] {
        let page = visitor.page(path).await?;
        assert!([401, 404, 303, 302].contains(&page.status.as_u16()) && !page.html.contains("T-0"), "{path}: {}", page.status);
    }
    for path in [PATH_REPORTS, PATH_POLL, PATH_RENEW, "/agent/v1/anything", "/", "/agent/v1/reports/", "/AGENT/v1/reports"] {
        let answer = send(&stranger, &format!("{}{path}", scene.collector.agents_url()), b"{}".to_vec(), None).await?;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    Ok(())
}
