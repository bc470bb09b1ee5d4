//! Pairs and silence: what "the business is interrupted" means across appliances, and that nobody is called silent for the
//! collector's own absence.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use e2e::both_databases;
use e2e::collector::{CUSTOMER, Settings};
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use e2e::wire::WireAgent;
use mainstay_shared::check::ServiceState;
use serde_json::Value;

use crate::scene::{Scene, clear, event_kinds, raise, text};

both_databases!(
    one_of_a_pair_down_is_general_and_both_down_is_one_ticket_upgraded,
    a_collector_that_was_down_calls_nobody_silent,
    an_appliance_that_falls_silent_gets_a_ticket_that_recovers_with_it,
);

async fn pair(scene: &Scene) -> Result<(WireAgent, WireAgent)> {
    let (a, b) = (scene.peer("node-a", &["core"]).await?, scene.peer("node-b", &["core"]).await?);
    let members = [format!("{}:core", a.enrolment.appliance), format!("{}:core", b.enrolment.appliance)];
    let group = ["group", "set", "core-pair", "--customer", CUSTOMER, "--name", "Core", "--needs", "1"];
    let mut all = group.to_vec();
    for member in &members {
        all.extend(["--member", member]);
    }
    scene.collector.command(&all).await?.good().context("group set")?;
    for peer in [&a, &b] {
        peer.beat_telling(BTreeMap::from([("core".to_owned(), ServiceState::Up)])).await?;
    }
    Ok((a, b))
}

async fn one_of_a_pair_down_is_general_and_both_down_is_one_ticket_upgraded(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let (mut a, mut b) = pair(&scene).await?;
    let down_a = raise(&mut a, "core");
    a.report(vec![down_a.clone()]).await?;
    let ticket = scene.desk.ticket_about("service:core").await?;
    assert_eq!(text(&ticket, "severity")?, "general", "the other node still serves: {ticket}");

    let down_b = raise(&mut b, "core");
    b.report(vec![down_b.clone()]).await?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    let full = eventually("the ticket to be upgraded", A_WHILE, async || {
        Ok(Some(scene.desk.ticket(&id).await?).filter(|full| full["ticket"]["severity"] == "critical"))
    })
    .await?;
    assert_eq!(full["ticket"]["presumed"], Value::Bool(false), "{full}");
    let kinds = event_kinds(&full);
    assert!(kinds.contains(&"joined".into()) && kinds.contains(&"impact_changed".into()), "{kinds:?}");
    assert_eq!(scene.desk.tickets().await?.len(), 1);

    let (up_a, up_b) = (clear(&mut a, "core", &down_a), clear(&mut b, "core", &down_b));
    a.report(vec![up_a]).await?;
    b.report(vec![up_b]).await?;
    let full = scene.desk.ticket(&id).await?;
    assert_eq!(text(&full["ticket"], "state")?, "recovered");
    assert_eq!(text(&full["ticket"], "severity")?, "critical", "nothing goes down by itself");
    Ok(())
}

fn quick_silence() -> Settings {
    Settings { tickets: vec![("silence_after", "5s")], ..Settings::default() }
}

/// The agents go on trying while it is away; it must wait before it judges.
async fn a_collector_that_was_down_calls_nobody_silent(engine: Engine) -> Result<()> {
    let mut scene = Scene::with(engine, quick_silence()).await?;
    let peers = [scene.peer("one", &["shop"]).await?, scene.peer("two", &["shop"]).await?];
    scene.collector.kill()?;
    // Longer than the appliances may be silent, as two hours would be with the default.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    scene.collector.start().await?;
    let desk = scene.desk.clone();
    for _ in 0..8 {
        for peer in &peers {
            eventually("a heartbeat", A_WHILE, async || Ok(Some(peer.beat().await?))).await?;
        }
        assert!(desk.tickets().await?.is_empty(), "{:?}", desk.tickets().await?);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn an_appliance_that_falls_silent_gets_a_ticket_that_recovers_with_it(engine: Engine) -> Result<()> {
    let scene = Scene::with(engine, quick_silence()).await?;
    let peer = scene.peer("quiet", &["shop"]).await?;
    let ticket = eventually("a ticket about the silence", A_WHILE, async || {
        Ok(scene.desk.tickets().await?.into_iter().find(|t| t["source"] == "silence"))
    })
    .await?;
    assert_eq!(text(&ticket, "severity")?, "critical", "its service is covered by nobody");
    assert_eq!(ticket["presumed"], Value::Bool(true));
    peer.beat().await?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    eventually("the ticket to recover", A_WHILE, async || {
        Ok((text(&scene.desk.ticket(&id).await?["ticket"], "state")? == "recovered").then_some(()))
    })
    .await?;
    Ok(())
}
