//! The agent where customers put it: behind a proxy that wants a name and a password, with a plugin that never answers, and for
//! longer than its certificate lives (R26).

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::business::BusinessService;
use e2e::collector::Settings;
use e2e::connect_proxy::ConnectProxy;
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use serde_json::Value;

use crate::scene::{Scene, text};

both_databases!(
    an_agent_behind_a_proxy_reports_through_it_alone,
    a_plugin_that_hangs_is_killed_with_all_it_started,
    a_certificate_renews_in_time_and_an_expired_one_by_an_operators_click,
);

fn proxy_config(agent: &Agent, proxy: &ConnectProxy, password: &str) -> Result<String> {
    let file = agent.path("proxy-password");
    std::fs::write(&file, format!("{password}\n"))?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(format!("[proxy]\nurl = \"{}\"\nusername = \"bank\"\npassword_file = {file:?}\n\n", proxy.url()))
}

async fn an_agent_behind_a_proxy_reports_through_it_alone(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let proxy = ConnectProxy::start("bank", "let me out").await?;
    let mut shop = BusinessService::start().await?;
    let join = scene.collector.join_string(&[]).await?;
    let mut agent = Agent::fresh("")?;
    agent.configure(&proxy_config(&agent, &proxy, "wrong")?)?;
    let refused = agent.enrol(&join).await?;
    assert_ne!(refused.code, 0);
    assert!(proxy.refused() > 0 && proxy.tunnels() == 0, "{refused:?}");
    assert!(!format!("{refused:?}").contains("wrong"), "the password is never shown: {refused:?}");

    let config = [proxy_config(&agent, &proxy, "let me out")?, http_service("shop", &shop.url())].concat();
    agent.configure(&config)?;
    agent.enrol(&join).await?.good().context("enroll through the proxy")?;
    agent.start()?;
    eventually("the service to be checked", A_WHILE, async || Ok((shop.asked() > 0).then_some(()))).await?;
    shop.take_down().await;
    let ticket = scene.desk.ticket_about("service:shop").await?;
    assert_eq!(text(&ticket, "severity")?, "critical");
    assert_eq!(scene.collector.link.connections(), proxy.tunnels(), "nothing goes past the proxy");
    Ok(())
}

async fn a_plugin_that_hangs_is_killed_with_all_it_started(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut agent = Agent::fresh("")?;
    let (plugin, children) = (agent.path("check_forever"), agent.path("children"));
    std::fs::write(&plugin, format!("#!/bin/sh\nsleep 3600 &\necho $! >> {}\nwait\n", children.display()))?;
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    agent.configure(&format!(
        "[[service]]\nname = \"ledger\"\ninterval = \"1s\"\nretry_after = \"200ms\"\n\n\
         [[service.check]]\nname = \"forever\"\nkind = \"plugin\"\ncommand = [{plugin:?}]\ntimeout = \"1s\"\n"
    ))?;
    agent.enrol(&scene.collector.join_string(&[]).await?).await?.good().context("enroll")?;
    agent.start()?;
    let ticket = scene.desk.ticket_about("service:ledger").await?;
    let full = scene.desk.ticket(text(&ticket, "ticket_id")?).await?;
    assert!(full["grounds"].to_string().contains("timeout") || full["episodes"].to_string().contains("timeout"), "{full}");
    agent.stop().await?;
    let started = std::fs::read_to_string(&children)?;
    assert!(started.lines().count() >= 3, "asked and asked again: {started:?}");
    eventually("all that the plugin started to be gone", A_WHILE, async || {
        Ok(started.lines().all(|pid| !std::path::Path::new("/proc").join(pid).exists()).then_some(()))
    })
    .await
}

const DAY: Duration = Duration::from_secs(86_400);

/// Both sides live by one clock; between the acts both are switched off.
async fn days_later(scene: &mut Scene, agent: &mut Agent, days: u32) -> Result<()> {
    agent.stop().await?;
    scene.collector.stop().await?;
    scene.collector.clock()?.jump_to_offset(i64::try_from((DAY * days).as_secs())?)?;
    scene.collector.start().await?;
    agent.start()
}

async fn certificates(scene: &Scene, id: &str) -> Result<(usize, Value)> {
    let appliance = scene.desk.get(&format!("/appliances/{id}")).await?;
    let count = appliance["certificates"].as_array().map_or(0, Vec::len);
    Ok((count, appliance["renewal_waits_since"].clone()))
}

async fn a_certificate_renews_in_time_and_an_expired_one_by_an_operators_click(engine: Engine) -> Result<()> {
    let mut scene = Scene::with(engine, Settings { own_clock: true, ..Settings::default() }).await?;
    let mut agent = Agent::fresh("")?;
    agent.live_by(scene.collector.clock()?.clone());
    agent.enrol(&scene.collector.join_string(&[]).await?).await?.good().context("enroll")?;
    agent.start()?;
    let id = text(&scene.desk.list("/appliances").await?.remove(0), "appliance_id")?.to_owned();
    assert_eq!(certificates(&scene, &id).await?.0, 1);
    sends_a_test(&agent).await?;

    days_later(&mut scene, &mut agent, 62).await?;
    eventually("a second certificate at two thirds of the first one's life", A_WHILE, async || {
        Ok((certificates(&scene, &id).await?.0 == 2).then_some(()))
    })
    .await?;
    sends_a_test(&agent).await?;

    days_later(&mut scene, &mut agent, 62 + 120).await?;
    eventually("the renewal of an expired certificate to wait for an operator", A_WHILE, async || {
        Ok((certificates(&scene, &id).await?.1 != Value::Null).then_some(()))
    })
    .await?;
    assert_eq!(certificates(&scene, &id).await?.0, 2, "nothing is signed before the click");
    scene.collector.command(&["appliance", "approve-renewal", &id]).await?.good().context("approve-renewal")?;
    eventually("the third certificate", A_WHILE, async || Ok((certificates(&scene, &id).await?.0 == 3).then_some(()))).await?;
    sends_a_test(&agent).await
}

async fn sends_a_test(agent: &Agent) -> Result<()> {
    let receipt = eventually("a receipt", A_WHILE, async || {
        let sent = agent.command(&["test"]).await?;
        Ok((sent.code == 0).then_some(sent.stdout))
    })
    .await?;
    anyhow::ensure!(!receipt.is_empty(), "a test shows its receipt");
    Ok(())
}
