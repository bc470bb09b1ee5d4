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

const MINUTE_S: i64 = 60;
/// How far a clock moves while it is asked again: a collector that misses minutes takes that for a pause of its own.
const STEP_S: i64 = 10;

/// The collector is away for two hours while agents go on trying. When it is back it calls nobody silent for that; who stays away
/// from then on is.
async fn a_collector_that_was_down_calls_nobody_silent(engine: Engine) -> Result<()> {
    let mut scene = Scene::with(engine, Settings { own_clock: true, ..Settings::default() }).await?;
    // The peers live by true time: the collector's two hours end there, so that they believe its certificate throughout.
    let mut offset_s = -130 * MINUTE_S;
    scene.collector.clock()?.jump_to_offset(offset_s)?;
    let peers = [scene.peer("one", &["shop"]).await?, scene.peer("two", &["bank"]).await?];
    let gone = scene.peer("gone", &["archive"]).await?.enrolment.appliance.to_string();
    scene.collector.kill()?;
    offset_s += 120 * MINUTE_S;
    let back_at_s = offset_s;
    scene.collector.clock()?.jump_to_offset(offset_s)?;
    scene.collector.start().await?;
    let ticket = eventually("a ticket about who really is away", A_WHILE, async || {
        for peer in &peers {
            peer.beat().await?;
        }
        offset_s += STEP_S;
        scene.collector.clock()?.jump_to_offset(offset_s)?;
        let about_silence = scene.desk.tickets().await?;
        Ok(about_silence.into_iter().find(|ticket| ticket["appliance_id"] == gone))
    })
    .await?;
    let judged_after_s = offset_s - back_at_s;
    assert!(judged_after_s >= 10 * MINUTE_S, "twice what it may be silent passes first, not {judged_after_s} s");
    assert_eq!(text(&ticket, "source")?, "silence");
    assert_eq!(scene.desk.tickets().await?.len(), 1, "nobody else: {:?}", scene.desk.tickets().await?);
    Ok(())
}

async fn an_appliance_that_falls_silent_gets_a_ticket_that_recovers_with_it(engine: Engine) -> Result<()> {
    let scene = Scene::with(engine, Settings { own_clock: true, ..Settings::default() }).await?;
    let peer = scene.peer("quiet", &["shop"]).await?;
    let other = scene.peer("loud", &["mail"]).await?;
    let mut offset_s = 0;
    let ticket = eventually("a ticket about the silence", A_WHILE, async || {
        other.beat().await?;
        offset_s += STEP_S;
        scene.collector.clock()?.jump_to_offset(offset_s)?;
        Ok(scene.desk.tickets().await?.into_iter().find(|t| t["source"] == "silence"))
    })
    .await?;
    assert_eq!(text(&ticket, "appliance_id")?, peer.enrolment.appliance.as_str());
    assert_eq!(text(&ticket, "severity")?, "critical", "its service is covered by nobody");
    assert_eq!(ticket["presumed"], Value::Bool(true));
    peer.beat().await?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    eventually("the ticket to recover", A_WHILE, async || {
        Ok((text(&scene.desk.ticket(&id).await?["ticket"], "state")? == "recovered").then_some(()))
    })
    .await?;
    assert_eq!(scene.desk.tickets().await?.len(), 1);
    Ok(())
}
