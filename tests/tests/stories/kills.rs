//! SIGKILL under load, and answers that get lost: every accepted fault is one event and one ticket (TRUST, the oracle).

use anyhow::{Context as _, Result};
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::business::BusinessService;
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use mainstay_shared::api::PATH_REPORTS;
use mainstay_shared::report::ReportReply;

use crate::scene::{Scene, event_kinds, raise, text};

const FAULTS: usize = 24;

both_databases!(
    the_collector_is_killed_again_and_again_under_load,
    an_acknowledgement_is_lost_or_repeated,
    the_agent_is_killed_while_a_service_fails,
    the_link_is_cut_delayed_and_half_closed,
);

/// Peers send until they are acknowledged, as agents do, while the collector dies under them.
async fn the_collector_is_killed_again_and_again_under_load(engine: Engine) -> Result<()> {
    let mut scene = Scene::set(engine).await?;
    let services: Vec<String> = (0..FAULTS).map(|n| format!("service-{n:02}")).collect();
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    let mut peer = scene.peer("loaded", &names).await?;
    for (n, service) in services.iter().enumerate() {
        let record = raise(&mut peer, service);
        if n % 6 == 3 {
            scene.collector.kill()?;
            assert!(peer.report(vec![record.clone()]).await.is_err(), "a dead collector acknowledges nothing");
            scene.collector.start().await?;
        }
        if n % 6 == 5 {
            // The report is on its way when the collector dies: whether it was taken, only the repetition tells.
            let request = peer.report_of(vec![record.clone()]);
            let (on_its_way, killed) = tokio::join!(peer.send(PATH_REPORTS, &request), async { scene.collector.kill() });
            killed?;
            if let Ok(answer) = on_its_way {
                peer.nonce = Some(answer.good::<ReportReply>()?.nonce);
            }
            scene.collector.start().await?;
        }
        eventually("the record to be acknowledged", A_WHILE, async || Ok(Some(peer.report(vec![record.clone()]).await?))).await?;
    }
    let counts = scene.tickets_by_component().await?;
    assert_eq!(counts.len(), FAULTS, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for ticket in scene.desk.tickets().await? {
        let full = scene.desk.ticket(text(&ticket, "ticket_id")?).await?;
        let kinds = event_kinds(&full);
        assert_eq!(kinds.iter().filter(|k| ["opened", "joined", "reopened"].contains(&k.as_str())).count(), 1, "{kinds:?}");
    }
    scene.collector.command(&["audit", "verify"]).await?.good().context("audit verify")?;
    Ok(())
}

/// The same record three times, once with its answer thrown away, once as an exact copy of the request.
async fn an_acknowledgement_is_lost_or_repeated(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut peer = scene.peer("forgetful", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    let request = peer.report_of(vec![record.clone()]);
    let first = peer.send(PATH_REPORTS, &request).await?;
    assert!(first.status.is_success());
    // The answer was lost: the agent asks again, with the nonce it had.
    let again = peer.report(vec![record.clone()]).await?;
    assert_eq!(again.acks, std::slice::from_ref(&record.id));
    assert!(!again.held, "a lost answer is no clone");
    // A network that repeats the old request: it is told as late, and nothing happens.
    assert_eq!(peer.send(PATH_REPORTS, &request).await?.refusal()?, "stale_request");
    let more = peer.report(Vec::new()).await?;
    assert!(!more.held);
    let tickets = scene.desk.tickets().await?;
    assert_eq!(tickets.len(), 1, "{tickets:?}");
    Ok(())
}

/// The real agent is killed in the middle of it, several times; the service fails and recovers between.
async fn the_agent_is_killed_while_a_service_fails(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut shop = BusinessService::start().await?;
    let mut agent = Agent::running(&scene.collector.join_string(&[]).await?, &http_service("shop", &shop.url())).await?;
    eventually("the service to be checked", A_WHILE, async || Ok((shop.asked() > 0).then_some(()))).await?;
    shop.take_down().await;
    for _ in 0..4 {
        agent.kill()?;
        agent.start()?;
    }
    let ticket = scene.desk.ticket_about("service:shop").await?;
    assert_eq!(text(&ticket, "severity")?, "critical");
    agent.kill()?;
    shop.bring_back().await?;
    agent.start()?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    eventually("the ticket to recover", A_WHILE, async || {
        Ok((text(&scene.desk.ticket(&id).await?["ticket"], "state")? == "recovered").then_some(()))
    })
    .await?;
    assert_eq!(scene.tickets_by_component().await?.get("service:shop"), Some(&1));
    Ok(())
}

/// The real agent behind a bad link.
async fn the_link_is_cut_delayed_and_half_closed(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut services = Vec::new();
    let mut declared = String::new();
    for n in 0..3 {
        let service = BusinessService::start().await?;
        declared.push_str(&http_service(&format!("shop-{n}"), &service.url()));
        services.push(service);
    }
    let agent = Agent::running(&scene.collector.join_string(&[]).await?, &declared).await?;
    eventually("the agent to be connected", A_WHILE, async || Ok((scene.collector.link.connections() > 1).then_some(()))).await?;
    scene.collector.link.cut();
    services[0].take_down().await;
    agent.sees("shop-0", "down").await?;
    scene.collector.link.delay(std::time::Duration::from_millis(300));
    scene.desk.ticket_about("service:shop-0").await?;
    scene.collector.link.lose_answers();
    services[1].take_down().await;
    scene.desk.ticket_about("service:shop-1").await?;
    scene.collector.link.half_close();
    services[2].take_down().await;
    agent.sees("shop-2", "down").await?;
    scene.collector.link.restore();
    scene.desk.ticket_about("service:shop-2").await?;
    let counts = scene.tickets_by_component().await?;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    Ok(())
}
