//! The promise: a response in 30 minutes. It is warned about, missed and told, or kept by a named engineer's act; two collectors on
//! one database keep one promise, not two.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use e2e::both_databases;
use e2e::collector::{CONTACT_MAIL, Collector, MailWay, Settings};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::patience::{A_WHILE, eventually};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use serde_json::json;

use crate::scene::{Scene, event_kinds, raise, text};

both_databases!(
    a_missed_response_is_warned_of_recorded_and_told_upward,
    a_response_stops_the_clock_and_the_customer_is_told,
    two_collectors_on_one_database_open_one_ticket_and_send_one_mail,
);

async fn scene(engine: Engine, post: &ScriptedMailServer) -> Result<Scene> {
    let mail = MailWay { port: post.port(), ca_file: None };
    Scene::with(engine, Settings { mail: Some(mail), own_clock: true, ..Settings::default() }).await
}

/// How many different mails went to `name@test.invalid`.
fn mails_to(post: &ScriptedMailServer, address: &str) -> usize {
    post.taken().iter().filter(|taken| taken.recipients.iter().any(|to| to == address)).count()
}

async fn a_missed_response_is_warned_of_recorded_and_told_upward(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::Accepts).await?;
    let scene = scene(engine, &post).await?;
    scene.collector.account("boss", "senior_management").await?;
    let engineer =
        Desk::of_account(&scene.collector.web_url(), &scene.collector.account("lin", "system_engineer").await?).await?;
    let mut peer = scene.peer("box", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    let id = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    eventually("the engineer's mail", A_WHILE, async || Ok((mails_to(&post, "lin@test.invalid") > 0).then_some(()))).await?;
    assert_eq!(mails_to(&post, "boss@test.invalid"), 0, "nothing is late yet");
    for (minutes, event) in [(21, "clock_warned"), (31, "clock_missed")] {
        scene.collector.clock()?.jump_to_offset(minutes * 60)?;
        eventually(event, A_WHILE, async || {
            Ok(event_kinds(&scene.desk.ticket(&id).await?).contains(&event.to_owned()).then_some(()))
        })
        .await?;
    }
    eventually("the mail to senior management", A_WHILE, async || Ok((mails_to(&post, "boss@test.invalid") > 0).then_some(())))
        .await?;
    engineer.post(&format!("/tickets/{id}/acts"), &json!({"act": "respond", "way": "phone", "note": "late"})).await?;
    let full = scene.desk.ticket(&id).await?;
    assert_eq!(text(&full["clocks"][0], "state")?, "missed", "a late response heals nothing");
    Ok(())
}

async fn a_response_stops_the_clock_and_the_customer_is_told(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::Accepts).await?;
    let scene = scene(engine, &post).await?;
    let engineer =
        Desk::of_account(&scene.collector.web_url(), &scene.collector.account("lin", "system_engineer").await?).await?;
    let mut peer = scene.peer("box", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    let id = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    let acts = format!("/tickets/{id}/acts");
    engineer.post(&acts, &json!({"act": "take"})).await?;
    assert_eq!(text(&scene.desk.ticket(&id).await?["clocks"][0], "state")?, "running", "taking it is no response");
    engineer.post(&acts, &json!({"act": "respond", "way": "phone", "note": "spoke with Wang"})).await?;
    assert_eq!(text(&scene.desk.ticket(&id).await?["clocks"][0], "state")?, "met");
    eventually("the customer to be told who answers", A_WHILE, async || {
        let told = |taken: &e2e::scripted_mail::Taken| {
            taken.recipients.iter().any(|to| to == CONTACT_MAIL)
                && taken.mail.text.contains("lin")
                && taken.mail.text.contains(&id)
        };
        Ok(post.taken().iter().any(told).then_some(()))
    })
    .await?;
    scene.collector.clock()?.jump_to_offset(40 * 60)?;
    let note = json!({"act": "note", "text": "forty minutes later"});
    engineer.post(&acts, &note).await?;
    let kinds = event_kinds(&scene.desk.ticket(&id).await?);
    assert!(!kinds.iter().any(|kind| kind == "clock_missed" || kind == "clock_warned"), "{kinds:?}");
    Ok(())
}

/// Each node is asked for the same fault at the same moment; each sends mails; each lets time pass. SQLite serves one node: there
/// the second is refused, and the first goes on.
async fn two_collectors_on_one_database_open_one_ticket_and_send_one_mail(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::Accepts).await?;
    let mail = MailWay { port: post.port(), ca_file: None };
    let settings = Settings { mail: Some(mail), ..Settings::default() };
    let scene = Scene::with(engine, settings.clone()).await?;
    let second = Collector::another_node(&scene.collector, &settings).await;
    let other_door = match &second {
        Ok(second) => second.agents_url(),
        Err(refused) => {
            assert_eq!(engine, Engine::Sqlite, "{refused:?}");
            assert!(format!("{refused:?}").contains("another collector serves from here"), "{refused:?}");
            scene.collector.agents_url()
        }
    };
    let services = ["a", "b", "c", "d", "e", "f"];
    let mut peer = scene.peer("box", &services).await?;
    for service in services {
        let record = raise(&mut peer, service);
        let mut elsewhere = peer.at(&other_door);
        elsewhere.attempt += 1;
        let (here, there) = tokio::join!(peer.report(vec![record.clone()]), elsewhere.report(vec![record.clone()]));
        // The later attempt may overtake the earlier, which is then stale; one of them is taken for sure.
        anyhow::ensure!(here.is_ok() || there.is_ok(), "{here:?} {there:?}");
        peer.attempt = elsewhere.attempt;
        peer.nonce = peer.nonce.or(elsewhere.nonce);
        peer.report(vec![record]).await.context("the record again")?;
    }
    let counts = scene.tickets_by_component().await?;
    assert_eq!(counts.len(), services.len(), "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    eventually("every notice to be sent", A_WHILE, async || {
        let waiting = scene.collector.command(&["notice", "list", "--state", "waiting", "--json"]).await?.good()?.stdout;
        Ok((waiting.trim() == "[]").then_some(()))
    })
    .await?;
    let mut copies: BTreeMap<(String, String), usize> = BTreeMap::new();
    for taken in post.taken() {
        *copies.entry((taken.recipients.join(","), taken.mail.message_id)).or_default() += 1;
    }
    assert!(!copies.is_empty() && copies.values().all(|count| *count == 1), "{copies:?}");
    Ok(())
}
