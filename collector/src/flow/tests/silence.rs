//! Silence, told or held back.

use mainstay_shared::severity::Severity;

use crate::appliances::links;
use crate::customers::VENDOR_TENANT;
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};
use crate::flow::collector_faults::appliance_is_back;
use crate::flow::faults_arrive::ArrivedFrom;
use crate::flow::silence_falls;
use crate::flow::testing::Stage;
use crate::flow::time_passes::{self, LastLook};
use crate::tickets::TicketState;

both_databases!(
    a_silent_appliance_opens_a_ticket_that_recovers_when_it_is_back,
    a_silent_member_that_others_cover_is_general,
    a_goodbye_is_respected_until_it_is_overdue,
    a_silent_site_is_one_ticket,
    a_collector_that_was_down_two_hours_opens_nothing,
    a_collector_that_stood_still_opens_nothing_until_agents_could_be_heard,
    a_pause_in_the_middle_of_a_pass_calls_nobody_silent,
    an_appliance_that_never_comes_back_after_a_restore_is_silent,
    the_silence_of_many_customers_is_ours,
    a_node_that_falls_silent_while_the_other_is_down_upgrades_its_ticket,
);

async fn pass(stage: &Stage) {
    time_passes::once(&stage.world, &LastLook::default()).await.expect("passes");
}

async fn a_silent_appliance_opens_a_ticket_that_recovers_when_it_is_back(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &[])]).await;
    stage.later(240);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    assert!(stage.tickets("bank").await.is_empty());
    stage.later(61);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    pass(&stage).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    assert_eq!(
        (tickets[0].severity, tickets[0].reason.as_str(), tickets[0].presumed),
        (Severity::Critical, "silent_uncovered", true)
    );
    let who = ArrivedFrom { tenant_id: "bank".into(), appliance_id: "a".into(), site_id: "hall".into() };
    back(&stage, &who).await.expect("is back");
    assert_eq!(stage.tickets("bank").await[0].state, TicketState::Recovered);
}

async fn a_pause_in_the_middle_of_a_pass_calls_nobody_silent(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &[])]).await;
    stage.later(700);
    stage.heard_but(&[]).await;
    let looked_at = stage.world.time.now();
    stage.later(310);
    silence_falls::once(&stage.world, looked_at).await.expect("passes");
    assert!(stage.tickets("bank").await.is_empty(), "the pass goes on with the time that it has looked at");
}

async fn back(stage: &Stage, who: &ArrivedFrom) -> anyhow::Result<()> {
    let now = stage.world.time.now();
    transact!(stage.world.db, Turn::Intake, |tx| { appliance_is_back(tx, &stage.world.config, now, who).await });
    Ok(())
}

async fn a_silent_member_that_others_cover_is_general(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.group("bank", 1, "web", &["a", "b"]).await;
    stage.later(301);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!((ticket.severity, ticket.reason.as_str()), (Severity::General, "silent_covered"));
}

async fn a_goodbye_is_respected_until_it_is_overdue(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &[])]).await;
    let now = stage.world.time.now().0;
    stage.run(format!("UPDATE links SET goodbye_at = {now}, expected_back_at = {now} + 600000 WHERE appliance_id = 'a'")).await;
    stage.later(899);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    assert!(stage.tickets("bank").await.is_empty());
    stage.later(2);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    assert_eq!(stage.tickets("bank").await.len(), 1);
}

async fn a_silent_site_is_one_ticket(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["mail"]), ("c", &[])]).await;
    stage.later(50);
    stage.heard_but(&["a"]).await;
    stage.later(251);
    pass(&stage).await;
    stage.later(60);
    pass(&stage).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    assert_eq!((tickets[0].code.as_str(), tickets[0].severity), ("site_silent", Severity::Critical));
    for appliance in ["a", "b", "c"] {
        let who = ArrivedFrom { tenant_id: "bank".into(), appliance_id: appliance.into(), site_id: "hall".into() };
        back(&stage, &who).await.expect("is back");
    }
    assert_eq!(stage.tickets("bank").await[0].state, TicketState::Recovered);
}

async fn a_collector_that_was_down_two_hours_opens_nothing(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.later(7200);
    time_passes::collector_starts(&stage.world).await.expect("starts");
    for _ in 0..30 {
        pass(&stage).await;
        stage.later(20);
    }
    stage.heard_but(&[]).await;
    pass(&stage).await;
    assert!(stage.tickets("bank").await.is_empty());
}

async fn a_collector_that_stood_still_opens_nothing_until_agents_could_be_heard(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    let last = LastLook::default();
    time_passes::once(&stage.world, &last).await.expect("passes");
    stage.later(7200);
    time_passes::once(&stage.world, &last).await.expect("passes");
    stage.later(60);
    stage.heard_but(&["b"]).await;
    time_passes::once(&stage.world, &last).await.expect("passes");
    assert!(stage.tickets("bank").await.is_empty(), "its database was away for two hours, not the agents");
    for _ in 0..10 {
        stage.later(60);
        stage.heard_but(&["b"]).await;
        time_passes::once(&stage.world, &last).await.expect("passes");
    }
    assert_eq!(stage.tickets("bank").await.len(), 1, "who is still not heard is silent");
}

async fn an_appliance_that_never_comes_back_after_a_restore_is_silent(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &[])]).await;
    forget(&stage).await.expect("forgets");
    time_passes::collector_starts(&stage.world).await.expect("starts");
    stage.later(601);
    stage.heard_but(&["a"]).await;
    pass(&stage).await;
    assert_eq!(stage.tickets("bank").await.len(), 1);
}

async fn forget(stage: &Stage) -> anyhow::Result<()> {
    transact!(stage.world.db, Turn::Console, |tx| { Ok(links::forget_nonces(tx).await?) });
    Ok(())
}

async fn the_silence_of_many_customers_is_ours(db: Db) {
    let stage = Stage::new(db).await;
    for n in 0..5 {
        stage.customer(&format!("c{n}"), &[(&format!("a{n}"), &["web"])]).await;
    }
    stage.later(301);
    stage.heard_but(&["a0", "a1"]).await;
    pass(&stage).await;
    let ours = stage.tickets(VENDOR_TENANT).await;
    assert_eq!((ours.len(), ours[0].code.as_str(), ours[0].source.as_str()), (1, "mass_silence", "internal"));
    assert!(stage.tickets("c0").await.is_empty());
    stage.later(30);
    stage.heard_but(&["a0"]).await;
    pass(&stage).await;
    assert_eq!(stage.tickets(VENDOR_TENANT).await[0].state, TicketState::Recovered);
    assert!(stage.tickets("c0").await.is_empty(), "the last ones are still on their way back");
    stage.later(601);
    stage.heard_but(&["a0"]).await;
    pass(&stage).await;
    assert_eq!(stage.tickets("c0").await.len(), 1, "the one that stays silent is a customer's own fault");
    assert!(stage.tickets("c1").await.is_empty());
}

async fn a_node_that_falls_silent_while_the_other_is_down_upgrades_its_ticket(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.group("bank", 1, "web", &["a", "b"]).await;
    stage.arrive("bank", "a", &[stage.raised("service:web", "service_down")]).await;
    stage.later(301);
    stage.heard_but(&["b"]).await;
    pass(&stage).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    assert_eq!((tickets[0].severity, tickets[0].presumed), (Severity::Critical, true));
}
