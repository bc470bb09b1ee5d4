//! The main job: a business service dies, and by itself there is a critical ticket with its grounds, its 30-minute clock and the
//! mails that went out, in the console and in the API; then a person responds, and the service comes back.

use anyhow::{Context as _, Result};
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::browser::Browser;
use e2e::business::BusinessService;
use e2e::collector::{CONTACT_MAIL, MailWay, Settings};
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use e2e::postfix::Postfix;
use serde_json::json;
use thirtyfour::By;

use crate::scene::{Scene, event_kinds, text};

const RESPONSE_MS: i64 = 30 * 60 * 1000;

both_databases!(a_service_dies_and_everything_follows_in_the_browser_too, an_idle_agent_asks_at_most_twice_a_minute);

async fn a_service_dies_and_everything_follows_in_the_browser_too(engine: Engine) -> Result<()> {
    let post = Postfix::start().await?;
    let mail = MailWay { port: post.port(), ca_file: Some(post.ca_file()) };
    let scene = Scene::with(engine, Settings { mail: Some(mail), ..Settings::default() }).await?;
    let engineer = scene.collector.account("lin", "system_engineer").await?;
    let mut shop = BusinessService::start().await?;
    let agent = Agent::running(&scene.collector.join_string(&[]).await?, &http_service("shop", &shop.url())).await?;
    agent.sees("shop", "up").await?;
    let receipt = agent.command(&["test"]).await?.good().context("test")?.stdout;
    assert!(!receipt.is_empty());

    shop.take_down().await;
    let ticket = scene.desk.ticket_about("service:shop").await?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    assert_eq!((text(&ticket, "severity")?, text(&ticket, "impact")?), ("critical", "interrupted"));
    assert_eq!(ticket["presumed"], json!(false));
    let full = scene.desk.ticket(&id).await?;
    assert!(full.to_string().contains("refused"), "the grounds are there: {full}");
    let clock = &full["clocks"][0];
    let moment = |name: &str| clock[name].as_i64().with_context(|| format!("{name} in {clock}"));
    assert_eq!(moment("due_at")? - moment("started_at")?, RESPONSE_MS);
    assert_eq!(text(clock, "state")?, "running");

    let mails = eventually("the mails to the customer and to the engineer", A_WHILE, async || {
        let mails = post.mails()?;
        let both = [CONTACT_MAIL, "lin@test.invalid"].iter().all(|to| mails.iter().any(|m| m.to.iter().any(|t| t == to)));
        Ok(both.then_some(mails))
    })
    .await?;
    for mail in &mails {
        let told = format!("{}\n{}", mail.subject, mail.text);
        assert!(told.contains(&id) && told.contains("严重故障"), "{told}");
        assert!(mail.subject.contains("业务服务无应答：shop"), "a fault is told by its code: {}", mail.subject);
    }
    let explained = scene.collector.command(&["explain", &id]).await?.good().context("explain")?.stdout;
    assert!(explained.contains("30"), "{explained}");

    let desk = e2e::desk::Desk::of_account(&scene.collector.web_url(), &engineer).await?;
    desk.post(&format!("/tickets/{id}/acts"), &json!({"act": "take"})).await?;
    desk.post(&format!("/tickets/{id}/acts"), &json!({"act": "respond", "way": "phone", "note": "called Wang"})).await?;
    let full = scene.desk.ticket(&id).await?;
    assert_eq!(text(&full["clocks"][0], "state")?, "met");
    shop.bring_back().await?;
    eventually("the ticket to recover", A_WHILE, async || {
        Ok((text(&scene.desk.ticket(&id).await?["ticket"], "state")? == "recovered").then_some(()))
    })
    .await?;
    let kinds = event_kinds(&scene.desk.ticket(&id).await?);
    for kind in ["opened", "clock_started", "notice_sent", "taken", "responded", "clock_stopped", "recovered"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind} in {kinds:?}");
    }

    let browser = Browser::open("zh-CN").await?;
    crate::console::sign_in(&browser, &scene.collector, "seer").await?;
    browser.goto(format!("{}/tickets/{id}", scene.collector.web_url())).await?;
    let page = browser.find(By::Tag("main")).await?.text().await?;
    assert!(page.contains(&id) && page.contains("严重故障"), "{page}");
    browser.close().await
}

/// Counted at the collector, over two minutes of peace.
async fn an_idle_agent_asks_at_most_twice_a_minute(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let shop = BusinessService::start().await?;
    let agent = Agent::running(&scene.collector.join_string(&[]).await?, &http_service("shop", &shop.url())).await?;
    eventually("the agent to be heard", A_WHILE, async || Ok((scene.requests().await? > 1).then_some(()))).await?;
    agent.sees("shop", "up").await?;
    agent.command(&["test"]).await?.good().context("the agent's beginnings are told")?;
    let before = scene.requests().await?;
    // The one wait in true time: what is measured is what happens while nothing happens.
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let asked = scene.requests().await? - before;
    assert!((1..=4).contains(&asked), "{asked} requests in two minutes");
    Ok(())
}
