//! What people do, and what time does to the promise meanwhile.

use mainstay_shared::severity::{BusinessImpact, Severity};

use crate::customers::Role;
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::flow::explain;
use crate::flow::staff_acts::{CustomerRequest, act, open_for_customer};
use crate::flow::testing::{Stage, staff};
use crate::flow::time_passes::{self, LastLook};
use crate::tickets::acts::{Act, Refused};
use crate::tickets::{ResponseWay, TicketState};

both_databases!(
    a_response_in_time_stops_the_clock_and_taking_does_not,
    an_unanswered_ticket_warns_once_and_breaks_the_promise_once,
    an_impact_is_lowered_by_the_support_manager_only_and_stays_lowered,
    a_recovered_ticket_closes_by_the_rule,
    a_call_opens_a_ticket_with_the_customers_answer,
    a_clock_row_that_was_altered_is_found_and_repaired,
    two_nodes_tell_of_a_clock_once,
);

async fn broken(db: Db) -> Stage {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    stage.arrive("bank", "a", &[stage.raised("service:web", "service_down")]).await;
    stage
}

fn respond() -> Act {
    Act::Respond { way: ResponseWay::Phone, note: "called Mr Li".into() }
}

async fn a_response_in_time_stops_the_clock_and_taking_does_not(db: Db) {
    let stage = broken(db).await;
    let wang = staff("wang", Role::SystemEngineer);
    stage.later(600);
    for _ in 0..2 {
        act(&stage.world, &wang, "T-000001", Act::Take).await.expect("acts").expect("may");
    }
    let ticket = act(&stage.world, &wang, "T-000001", respond()).await.expect("acts").expect("may");
    assert_eq!(ticket.responded_by.as_deref(), Some("wang"));
    assert_eq!(stage.story(&ticket).await, ["opened", "clock_started", "taken", "responded", "clock_stopped"]);
    let mut conn = stage.world.db.read().await.expect("reads");
    let told = explain::explain(&mut conn, "T-000001").await.expect("explains").expect("a ticket");
    assert!(told.rows_agree);
    assert!(told.steps[1].what.contains("in time, 20 min 0 s before the deadline"), "{:?}", told.steps);
    let operator = staff("op", Role::Operator);
    let refused = act(&stage.world, &operator, "T-000001", Act::Take).await.expect("acts").expect_err("may not");
    assert_eq!(refused.word(), "role_refused");
}

async fn an_unanswered_ticket_warns_once_and_breaks_the_promise_once(db: Db) {
    let stage = broken(db).await;
    for _ in 0..45 {
        stage.later(60);
        stage.heard_but(&[]).await;
        time_passes::once(&stage.world, &LastLook::default()).await.expect("passes");
    }
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!(stage.story(ticket).await, ["opened", "clock_started", "clock_warned", "clock_missed"]);
    let late = act(&stage.world, &staff("wang", Role::SystemEngineer), "T-000001", respond()).await.expect("acts").expect("may");
    assert_eq!(stage.story(&late).await[4..], ["taken", "responded", "clock_stopped"]);
}

async fn an_impact_is_lowered_by_the_support_manager_only_and_stays_lowered(db: Db) {
    let stage = broken(db).await;
    let lower =
        |word: &str| Act::ChangeImpact { to: BusinessImpact::Slight, why: "a test server".into(), customer_word: word.into() };
    let engineer = staff("wang", Role::SystemEngineer);
    let refused = act(&stage.world, &engineer, "T-000001", lower("Mr Li: fine")).await.expect("acts");
    assert!(matches!(refused, Err(Refused::Role { .. })));
    let manager = staff("zhao", Role::SupportManager);
    let refused = act(&stage.world, &manager, "T-000001", lower(" ")).await.expect("acts");
    assert!(matches!(refused, Err(Refused::Empty { .. })));
    let ticket = act(&stage.world, &manager, "T-000001", lower("Mr Li: fine")).await.expect("acts").expect("may");
    assert_eq!(ticket.severity, Severity::General);
    stage.arrive("bank", "a", &[stage.raised("disk:/home", "disk_space_low")]).await;
    assert_eq!(stage.tickets("bank").await[0].severity, Severity::General, "the same grounds don't raise it again");
}

async fn a_recovered_ticket_closes_by_the_rule(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let raise = stage.raised("service:web", "service_down");
    stage.arrive("bank", "a", std::slice::from_ref(&raise)).await;
    stage.arrive("bank", "a", &[stage.cleared(&raise)]).await;
    for hours in [1, 22, 2] {
        assert_eq!(stage.tickets("bank").await[0].state, TicketState::Recovered);
        stage.later(hours * 3600);
        stage.heard_but(&[]).await;
        time_passes::once(&stage.world, &LastLook::default()).await.expect("passes");
    }
    assert_eq!(stage.tickets("bank").await[0].state, TicketState::Closed);
}

async fn a_call_opens_a_ticket_with_the_customers_answer(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let request = |site: &str| CustomerRequest {
        tenant_id: "bank".into(),
        site_id: site.into(),
        appliance_id: String::new(),
        summary: "counter hall offline".into(),
        impact: BusinessImpact::Interrupted,
    };
    let wang = staff("wang", Role::SystemEngineer);
    let unknown = open_for_customer(&stage.world, &wang, request("moon")).await.expect("acts");
    assert!(matches!(unknown, Err(Refused::NoSuch { .. })));
    let ticket = open_for_customer(&stage.world, &wang, request("hall")).await.expect("acts").expect("may");
    assert_eq!((ticket.severity, ticket.reason.as_str()), (Severity::Critical, "human_answer"));
    let close = Act::Close { why: "line repaired".into() };
    let refused = act(&stage.world, &wang, &ticket.ticket_id, close.clone()).await.expect("acts");
    assert_eq!(refused.expect_err("not answered").word(), "not_answered");
    act(&stage.world, &wang, &ticket.ticket_id, respond()).await.expect("acts").expect("may");
    let closed = act(&stage.world, &wang, &ticket.ticket_id, close).await.expect("acts").expect("may");
    assert_eq!(closed.state, TicketState::Closed);
}

async fn a_clock_row_that_was_altered_is_found_and_repaired(db: Db) {
    let stage = broken(db).await;
    stage.run("UPDATE clocks SET due_at = due_at + 3600000, next_at = NULL").await;
    time_passes::once(&stage.world, &LastLook::default()).await.expect("passes");
    let mut conn = stage.world.db.read().await.expect("reads");
    assert!(explain::explain(&mut conn, "T-000001").await.expect("explains").expect("a ticket").rows_agree);
    let recorded = crate::audit::of_subject(&mut conn, "bank", "clocks:T-000001").await.expect("events");
    assert_eq!(recorded.len(), 1);
}

async fn two_nodes_tell_of_a_clock_once(db: Db) {
    let stage = broken(db).await;
    stage.later(21 * 60);
    stage.heard_but(&[]).await;
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let world = stage.world.clone();
        nodes.spawn(async move { time_passes::once(&world, &LastLook::default()).await });
    }
    for node in nodes.join_all().await {
        node.expect("passes");
    }
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!(stage.story(ticket).await, ["opened", "clock_started", "clock_warned"]);
}
