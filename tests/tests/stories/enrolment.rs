//! Join strings are worth one appliance each, for a short time (R4, R25), and an identity is a certificate, only (R13).

use std::sync::Arc;

use anyhow::{Context as _, Result};
use e2e::agent::Agent;
use e2e::both_databases;
use e2e::collector::{CUSTOMER, Settings};
use e2e::database::Engine;
use e2e::wire::{enrol_request, send, stranger};
use mainstay_shared::api::{PATH_ENROL, PATH_REPORTS};
use reqwest::StatusCode;
use tokio::task::JoinSet;

use crate::scene::{Scene, raise};

both_databases!(
    fifty_race_for_one_join_string_and_one_wins,
    a_join_string_is_refused_when_used_expired_or_altered,
    another_appliances_id_in_a_body_is_refused_and_recorded,
    a_lost_enrolment_answer_is_asked_for_again,
);

async fn appliances(scene: &Scene) -> Result<usize> {
    Ok(scene.desk.list("/appliances").await?.len())
}

async fn fifty_race_for_one_join_string_and_one_wins(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let join = Arc::new(scene.collector.join_string(&[]).await?);
    let url = format!("{}{PATH_ENROL}", scene.collector.agents_url());
    let mut race = JoinSet::new();
    for n in 0..50 {
        let (join, url) = (Arc::clone(&join), url.clone());
        race.spawn(async move {
            let (request, _key) = enrol_request(&join, &format!("racer-{n}"), &format!("S{n}"))?;
            send(&stranger()?, &url, serde_json::to_vec(&request)?, None).await
        });
    }
    let mut enrolled = 0;
    while let Some(answer) = race.join_next().await {
        let answer = answer??;
        match answer.status {
            StatusCode::OK => enrolled += 1,
            // Too many at once from one place may be told to wait; nobody else gets in.
            StatusCode::TOO_MANY_REQUESTS => {}
            _ => assert_eq!(answer.refusal()?, "bad_join_secret"),
        }
    }
    assert_eq!(enrolled, 1);
    assert_eq!(appliances(&scene).await?, 1);
    Ok(())
}

async fn a_join_string_is_refused_when_used_expired_or_altered(engine: Engine) -> Result<()> {
    let scene = Scene::with(engine, Settings { own_clock: true, ..Settings::default() }).await?;
    let join = scene.collector.join_string(&[]).await?;
    Agent::enrolled(&join, "").await?;
    let second = Agent::fresh("")?.enrol(&join).await?;
    assert_eq!(second.code, 77, "{second:?}");
    assert!(!format!("{second:?}").contains(&join.secret), "the secret is never repeated");

    let expired = scene.collector.join_string(&["--for", "10min"]).await?;
    scene.collector.clock()?.jump_to_offset(11 * 60)?;
    assert_eq!(Agent::fresh("")?.enrol(&expired).await?.code, 77);
    scene.collector.clock()?.jump_to_offset(0)?;

    let mut altered = scene.collector.join_string(&[]).await?;
    altered.secret = "0".repeat(altered.secret.len());
    assert_eq!(Agent::fresh("")?.enrol(&altered).await?.code, 77);

    let mut other_service = scene.collector.join_string(&[]).await?;
    other_service.ca_pin = "00".repeat(32);
    let refused = Agent::fresh("")?.enrol(&other_service).await?;
    assert_ne!(refused.code, 0, "a service with another CA is not believed");
    assert_eq!(appliances(&scene).await?, 1);
    Ok(())
}

async fn another_appliances_id_in_a_body_is_refused_and_recorded(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut liar = scene.peer("liar", &["shop"]).await?;
    let victim = scene.peer("victim", &["shop"]).await?;
    let record = raise(&mut liar, "shop");
    let mut body = serde_json::to_value(liar.report_of(vec![record]))?;
    body["appliance"] = victim.enrolment.appliance.to_string().into();
    let answer = liar.send(PATH_REPORTS, &body).await?;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(scene.desk.tickets().await?.is_empty(), "nothing of it was taken");
    let subject = format!("appliance:{}", liar.enrolment.appliance);
    let told = scene.collector.command(&["audit", "list", "--tenant", CUSTOMER, "--subject", &subject]).await?.good()?.stdout;
    assert!(told.contains("identity_disagreed") && told.contains(victim.enrolment.appliance.as_str()), "on record: {told}");
    Ok(())
}

async fn a_lost_enrolment_answer_is_asked_for_again(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let join = scene.collector.join_string(&[]).await?;
    let (request, _key) = enrol_request(&join, "box", "S1")?;
    let url = format!("{}{PATH_ENROL}", scene.collector.agents_url());
    let body = serde_json::to_vec(&request)?;
    let first: serde_json::Value = send(&stranger()?, &url, body.clone(), None).await?.good()?;
    let again: serde_json::Value = send(&stranger()?, &url, body, None).await?.good().context("the same attempt again")?;
    assert_eq!(first["appliance"], again["appliance"]);
    assert_eq!(appliances(&scene).await?, 1);
    Ok(())
}
