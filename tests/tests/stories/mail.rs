//! The mail server refuses, is slow, dies: nothing is lost, everyone is told once; a second copy, with the same Message-ID, only
//! where the server took the mail and its answer was lost (R32).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::both_databases;
use e2e::collector::{MailWay, Settings};
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};
use e2e::scripted_mail::{Mood, ScriptedMailServer};

use crate::scene::{Scene, event_kinds, raise, text};

both_databases!(
    a_mail_server_that_refuses_is_slow_or_dies_loses_nothing,
    a_mail_taken_without_an_answer_comes_again_under_the_same_id,
    a_mail_refused_for_good_is_shown_on_the_ticket,
);

async fn scene(engine: Engine, post: &ScriptedMailServer) -> Result<Scene> {
    let mail = MailWay { port: post.port(), ca_file: None };
    Scene::with(engine, Settings { mail: Some(mail), ..Settings::default() }).await
}

/// How often each (recipient, Message-ID) was acknowledged, and how often it was taken in all.
fn copies(post: &ScriptedMailServer) -> BTreeMap<(String, String), (usize, usize)> {
    let mut copies: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for taken in post.taken() {
        let count = copies.entry((taken.recipients.join(","), taken.mail.message_id)).or_default();
        count.0 += usize::from(taken.acknowledged);
        count.1 += 1;
    }
    copies
}

async fn a_mail_server_that_refuses_is_slow_or_dies_loses_nothing(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::RefusesForNow).await?;
    let mut scene = scene(engine, &post).await?;
    let mut peer = scene.peer("box", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    let id = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    for mood in [Mood::RefusesForNow, Mood::Dead, Mood::DiesBeforeTaking] {
        let before = post.attempts();
        post.set_mood(mood);
        scene.collector.retry_notices().await?;
        eventually("another attempt", A_WHILE, async || Ok((post.attempts() > before).then_some(()))).await?;
    }
    assert!(post.taken().is_empty());
    scene.collector.kill()?;
    scene.collector.start().await?;
    post.set_mood(Mood::Slow(Duration::from_millis(200)));
    scene.collector.retry_notices().await?;
    eventually("the notices to be recorded as sent", A_WHILE, async || {
        let kinds = event_kinds(&scene.desk.ticket(&id).await?);
        let sent = kinds.iter().filter(|k| *k == "notice_sent").count();
        Ok((sent > 0 && sent == copies(&post).len()).then_some(()))
    })
    .await?;
    let copies = copies(&post);
    assert!(copies.values().all(|count| *count == (1, 1)), "{copies:?}");
    Ok(())
}

async fn a_mail_taken_without_an_answer_comes_again_under_the_same_id(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::DiesAfterTaking).await?;
    let scene = scene(engine, &post).await?;
    let mut peer = scene.peer("box", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    eventually("the server to take a mail", A_WHILE, async || Ok((!post.taken().is_empty()).then_some(()))).await?;
    let id = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    assert!(!event_kinds(&scene.desk.ticket(&id).await?).contains(&"notice_sent".into()), "sent means acknowledged");
    post.set_mood(Mood::Accepts);
    scene.collector.retry_notices().await?;
    eventually("every notice to be acknowledged", A_WHILE, async || {
        Ok(copies(&post).values().all(|count| count.0 == 1).then_some(()))
    })
    .await?;
    Ok(())
}

async fn a_mail_refused_for_good_is_shown_on_the_ticket(engine: Engine) -> Result<()> {
    let post = ScriptedMailServer::start(Mood::RefusesForGood).await?;
    let scene = scene(engine, &post).await?;
    let mut peer = scene.peer("box", &["shop"]).await?;
    let record = raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    let id = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    eventually("the refusal on the ticket", A_WHILE, async || {
        Ok(event_kinds(&scene.desk.ticket(&id).await?).contains(&"notice_refused".into()).then_some(()))
    })
    .await
}
