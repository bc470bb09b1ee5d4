//! A machine put back to an older snapshot: what it says afterwards is new, not a replay, and the rewind is found (R25).

use anyhow::Result;
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::business::BusinessService;
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use mainstay_shared::ids::Lane;
use mainstay_shared::record::Record;

use crate::scene::{Scene, raise, started, text};

both_databases!(a_rewound_spool_is_found_and_its_new_faults_are_new, the_same_record_id_with_other_words_is_no_replay,);

async fn appliance(scene: &Scene) -> Result<serde_json::Value> {
    Ok(scene.desk.list("/appliances").await?.remove(0))
}

async fn a_rewound_spool_is_found_and_its_new_faults_are_new(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let (mut first, mut second) = (BusinessService::start().await?, BusinessService::start().await?);
    let services = [http_service("first", &first.url()), http_service("second", &second.url())].concat();
    let mut agent = Agent::running(&scene.collector.join_string(&[]).await?, &services).await?;
    eventually("the services to be checked", A_WHILE, async || Ok((first.asked() > 0 && second.asked() > 0).then_some(())))
        .await?;
    eventually("the agent to be heard", A_WHILE, async || Ok((scene.collector.link.connections() > 1).then_some(()))).await?;
    agent.stop().await?;
    let snapshot = agent.snapshot()?;

    agent.start()?;
    first.take_down().await;
    scene.desk.ticket_about("service:first").await?;
    first.bring_back().await?;
    eventually("the first ticket to recover", A_WHILE, async || {
        Ok((text(&scene.desk.ticket_about("service:first").await?, "state")? == "recovered").then_some(()))
    })
    .await?;
    agent.stop().await?;

    agent.restore(&snapshot)?;
    agent.start()?;
    second.take_down().await;
    scene.desk.ticket_about("service:second").await?;
    let held = eventually("the rewind to be found", A_WHILE, async || {
        Ok(Some(appliance(&scene).await?).filter(|a| a["state"] == "held"))
    })
    .await?;
    assert!(!text(&held, "held_reason")?.is_empty());
    let counts = scene.tickets_by_component().await?;
    assert_eq!((counts.get("service:first"), counts.get("service:second")), (Some(&1), Some(&1)), "{counts:?}");
    Ok(())
}

/// A clone counts on from the same place in the same epoch: the id was used before, the words are others.
async fn the_same_record_id_with_other_words_is_no_replay(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut original = scene.peer("box", &["a", "b"]).await?;
    let mut clone = original.clone();
    let of_original = raise(&mut original, "a");
    original.report(vec![of_original.clone()]).await?;
    original.report(Vec::new()).await?;
    original.report(Vec::new()).await?;

    let of_clone: Record = raise(&mut clone, "b");
    assert_eq!(of_original.id, of_clone.id, "a clone's next record has an id that was used");
    clone.attempt = original.attempt;
    let reply = clone.report(vec![of_clone]).await?;
    assert!(reply.held, "an old nonce proves a clone");
    scene.desk.ticket_about("service:a").await?;
    scene.desk.ticket_about("service:b").await?;

    // A held appliance's faults go on being taken.
    clone.restart();
    let start = clone.record(Lane::Fault, started(&["a", "b", "c"]));
    let more = raise(&mut clone, "c");
    clone.report(vec![start, more]).await?;
    scene.desk.ticket_about("service:c").await?;
    Ok(())
}
