//! A mail server that refuses, is slow or dies: nothing is lost, everyone is told once; a second copy, with the same Message-ID,
//! only where the server took the mail and its answer was lost.

use std::sync::Arc;

use mainstay_shared::severity::BusinessImpact;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use super::*;
use crate::audit;
use crate::config::{self, Config};
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::notices;
use crate::notices::testing::{Act, ScriptedServer, fill, header, ticket};
use crate::tickets::{self, TicketEvent};

both_databases!(
    an_opened_ticket_is_told_once_to_each_in_a_thread,
    a_busy_server_is_tried_again_after_a_restart,
    a_refused_mail_is_recorded_and_the_others_go_out,
    a_lost_answer_makes_a_second_copy_with_the_same_message_id,
    a_slow_server_holds_up_nothing_for_longer_than_its_limit,
    two_nodes_never_send_one_notice_at_once,
    a_node_that_stood_still_sends_only_what_is_still_its_own,
    the_daily_mails_are_written_once,
);

const OPENED_AT: UnixMs = UnixMs(1_800_000_000_000);

fn world(db: &Db, server: &ScriptedServer) -> World {
    let text = "[agents]\naddresses = [\"https://a.example:8443\"]\n[web]\npublic_url = \"https://support.example.com\"\n";
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).expect("writes");
    let config = Config { mail: Some(server.config()), ..config::load(&path).expect("good settings") };
    World {
        config: Arc::new(config),
        db: db.clone(),
        time: TimeSource::manual(OPENED_AT),
        rng: SystemRandom::new(),
        changes: watch::channel(0).1,
        look_now: Arc::new(Notify::new()),
        repository: None,
    }
}

fn way(world: &World) -> Way {
    Way::open(world.config.mail.as_ref().expect("mail")).expect("a way")
}

fn opened() -> TicketEvent {
    TicketEvent::Opened {
        impact: BusinessImpact::Interrupted,
        presumed: false,
        reason: "service_down".into(),
        summary: "web".into(),
        already_recovered: false,
    }
}

async fn tell(world: &World, event: TicketEvent) -> anyhow::Result<()> {
    let (ticket, now) = (ticket(42, BusinessImpact::Interrupted), world.time.now());
    transact!(world.db, Turn::Intake, |tx| {
        let written = audit::append(tx, "bank", now, audit::SYSTEM, &tickets::subject(&ticket.ticket_id), &event).await?;
        notices::tell(tx, &world.config, now, &ticket, written.seq, &event).await?;
        notices::tell(tx, &world.config, now, &ticket, written.seq, &event).await?;
        Ok(())
    });
    Ok(())
}

async fn send_due(world: &World) -> usize {
    once(world, &way(world), &Lifecycle::begin().0.stop()).await.expect("a turn")
}

async fn kinds(db: &Db) -> Vec<String> {
    let mut conn = db.read().await.expect("reads");
    let events = audit::of_subject(&mut conn, "bank", "ticket:T-000042").await.expect("events");
    events.into_iter().map(|event| event.kind).collect()
}

async fn an_opened_ticket_is_told_once_to_each_in_a_thread(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[]).await;
    let world = world(&db, &server);
    tell(&world, opened()).await.expect("told");
    assert_eq!(send_due(&world).await, 2);
    tell(&world, TicketEvent::Taken { staff_id: "id-li".into(), name: "李伟\r\nBcc: x@y.example".into() }).await.expect("told");
    assert_eq!(send_due(&world).await, 1);
    assert_eq!(send_due(&world).await, 0);
    let mails = server.received();
    let of =
        |to: &str| mails.iter().filter(|mail| header(mail, "To").is_some_and(|found| found.contains(to))).collect::<Vec<_>>();
    assert_eq!(of("li@vendor.example").len(), 1);
    let contact = of("wang@bank.example");
    assert_eq!(contact.len(), 2);
    assert_eq!(header(contact[1], "In-Reply-To"), header(contact[0], "Message-ID"));
    for mail in &mails {
        assert_eq!(header(mail, "Auto-Submitted").as_deref(), Some("auto-generated"));
        assert!(header(mail, "Bcc").is_none());
    }
    assert_eq!(kinds(&db).await, ["opened", "notice_sent", "notice_sent", "taken", "notice_sent"]);
}

async fn a_busy_server_is_tried_again_after_a_restart(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[Act::AnswerRcpt("452 mailbox full"), Act::AnswerRcpt("451 later")]).await;
    let world = world(&db, &server);
    tell(&world, opened()).await.expect("told");
    assert_eq!(send_due(&world).await, 0);
    let waiting = outbox::list(&mut db.read().await.expect("reads"), "bank", "waiting", 9).await.expect("lists");
    assert_eq!(waiting.len(), 2);
    assert!(waiting[0].last_error.contains("45"), "{}", waiting[0].last_error);
    assert_eq!(send_due(&world).await, 0, "not before its time");
    // Nothing but the rows survives a restart: another way, another stop, the same database.
    world.time.advance(Duration::from_secs(15));
    assert_eq!(send_due(&world).await, 2);
    assert_eq!(server.received().len(), 2);
}

async fn a_refused_mail_is_recorded_and_the_others_go_out(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[Act::AnswerRcpt("550 no such user")]).await;
    let world = world(&db, &server);
    tell(&world, opened()).await.expect("told");
    assert_eq!(send_due(&world).await, 1);
    assert!(kinds(&db).await.contains(&"notice_refused".to_owned()));
    world.time.advance(Duration::from_secs(86_400));
    assert_eq!(send_due(&world).await, 0, "refused for good");
    again(&world).await.expect("retries");
    assert_eq!(send_due(&world).await, 1);
}

async fn again(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    let count = transact!(world.db, Turn::Console, |tx| { Ok(outbox::try_again(tx, "", now).await?) });
    assert_eq!(count, 1);
    Ok(())
}

async fn a_lost_answer_makes_a_second_copy_with_the_same_message_id(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[]).await;
    let world = world(&db, &server);
    tell(&world, TicketEvent::Taken { staff_id: "id-li".into(), name: "li".into() }).await.expect("told");
    let dying = ScriptedServer::start(&[Act::DropAfterData]).await;
    let first_way = Way::open(&dying.config()).expect("a way");
    assert_eq!(once(&world, &first_way, &Lifecycle::begin().0.stop()).await.expect("a turn"), 0);
    world.time.advance(Duration::from_secs(15));
    assert_eq!(send_due(&world).await, 1);
    let (first, second) = (dying.received(), server.received());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0], second[0], "byte for byte the same mail");
}

async fn a_slow_server_holds_up_nothing_for_longer_than_its_limit(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[Act::Hang, Act::Hang]).await;
    let world = world(&db, &server);
    tell(&world, opened()).await.expect("told");
    let hasty = way(&world).with_time_limit(Duration::from_millis(100));
    assert_eq!(once(&world, &hasty, &Lifecycle::begin().0.stop()).await.expect("a turn"), 0);
    let waiting = outbox::list(&mut db.read().await.expect("reads"), "bank", "waiting", 9).await.expect("lists");
    assert!(waiting.iter().all(|notice| notice.last_error.contains("no answer within")), "{waiting:?}");
    world.time.advance(Duration::from_secs(15));
    assert_eq!(send_due(&world).await, 2);
}

async fn two_nodes_never_send_one_notice_at_once(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[]).await;
    let (one, other) = (world(&db, &server), world(&db, &server));
    for number in 0..10 {
        let taken = TicketEvent::Taken { staff_id: format!("id-{number}"), name: "li".into() };
        tell(&one, taken).await.expect("told");
    }
    let (a, b) = tokio::join!(send_due(&one), send_due(&other));
    assert_eq!(a + b, 10);
    assert_eq!(server.received().len(), 10);
    // A node that dies with a claim leaves it to the other after the lease.
    tell(&one, opened()).await.expect("told");
    assert_eq!(claim(&one).await.expect("claims").len(), 2);
    assert_eq!(send_due(&other).await, 0);
    other.time.advance(outbox::LEASE);
    assert_eq!(send_due(&other).await, 2);
}

async fn a_node_that_stood_still_sends_only_what_is_still_its_own(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[]).await;
    let (one, other) = (world(&db, &server), world(&db, &server));
    tell(&one, opened()).await.expect("told");
    let held = claim(&one).await.expect("claims");
    one.time.advance(outbox::LEASE);
    let (way, stop) = (way(&one), Lifecycle::begin().0.stop());
    assert_eq!(
        send_all(&one, &way, &stop, &held[..1]).await.expect("settles"),
        [Settled::Sent],
        "nobody has claimed it: leased again"
    );
    other.time.advance(outbox::LEASE);
    assert_eq!(send_due(&other).await, 1);
    assert_eq!(send_all(&one, &way, &stop, &held[1..]).await.expect("settles"), [Settled::ByAnother]);
    assert_eq!(server.received().len(), 2);
}

async fn put(world: &World) -> anyhow::Result<()> {
    let ticket = ticket(42, BusinessImpact::Slight);
    transact!(world.db, Turn::Intake, |tx| { Ok(tickets::store::insert(tx, &ticket).await?) });
    Ok(())
}

async fn the_daily_mails_are_written_once(db: Db) {
    fill(&db).await.expect("fills");
    let server = ScriptedServer::start(&[]).await;
    let world = world(&db, &server);
    let over = TicketEvent::Opened {
        impact: BusinessImpact::Slight,
        presumed: false,
        reason: "services_up".into(),
        summary: "磁盘 disk\nfull".into(),
        already_recovered: true,
    };
    put(&world).await.expect("a ticket's row");
    tell(&world, over).await.expect("told");
    assert_eq!(send_due(&world).await, 0, "left to the digest");
    world.time.advance(Duration::from_secs(86_400));
    for _ in 0..2 {
        crate::flow::daily_mail::once(&world).await.expect("written");
    }
    assert_eq!(send_due(&world).await, 2);
    let to: Vec<_> = server.received().iter().filter_map(|mail| header(mail, "To")).collect();
    assert!(to.iter().any(|to| to.contains("op@")) && to.iter().any(|to| to.contains("wang@")), "{to:?}");
    let waiting = outbox::list(&mut world.db.read().await.expect("reads"), "bank", "sent", 9).await.expect("lists");
    assert!(
        waiting.iter().any(|notice| notice.body.contains("T-000042 业务服务无应答：web")),
        "a digest tells the fault by its code"
    );
}
