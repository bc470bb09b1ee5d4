//! From reports to tickets.

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::severity::Severity;

use crate::db::Db;
use crate::db::testing::both_databases;
use crate::flow::testing::Stage;
use crate::flow::time_passes::{self, LastLook};
use crate::tickets::TicketState;

both_databases!(
    a_service_that_dies_opens_a_critical_ticket_with_a_clock,
    both_nodes_of_a_pair_down_20_s_apart_are_one_ticket_upgraded,
    the_fault_began_with_the_first_failed_try,
    one_node_of_a_pair_down_is_general,
    one_node_down_and_the_other_silent_is_presumed_critical,
    a_report_repeated_changes_nothing,
    what_had_cleared_when_it_arrived_opens_as_recovered_without_a_clock,
    a_flap_reopens_with_a_new_clock_and_keeps_the_old,
    a_new_fault_after_the_flap_window_opens_anew,
    a_full_disk_and_the_service_on_it_are_one_ticket,
    two_customers_never_share_a_ticket,
    restated_faults_after_a_restore_open_what_was_lost_and_double_nothing,
    two_nodes_that_race_with_one_fault_open_one_ticket,
    a_rewound_spool_leaves_no_episode_open_for_ever,
    the_end_of_a_fault_ends_it_whatever_id_its_raise_was_given,
);

const DOWN: (&str, &str) = ("service:web", "service_down");

async fn a_service_that_dies_opens_a_critical_ticket_with_a_clock(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    let ticket = &tickets[0];
    assert_eq!((ticket.severity, ticket.reason.as_str(), ticket.presumed), (Severity::Critical, "service_down", false));
    assert_eq!(ticket.ticket_id, "T-000001");
    assert!(ticket.grounds.contains("\"service\":\"web\""), "{}", ticket.grounds);
    assert_eq!(stage.story(ticket).await, ["opened", "clock_started"]);
    let mut conn = stage.world.db.read().await.expect("reads");
    let clocks = crate::clocks::store::of_ticket(&mut conn, "bank", "T-000001").await.expect("clocks");
    assert_eq!(clocks[0].due_at.since_ms(ticket.opened_at), 30 * 60_000);
}

async fn the_fault_began_with_the_first_failed_try(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let mut down = stage.raised(DOWN.0, DOWN.1);
    down.change.grounds.lasted_ms = 20_000;
    let told_at = stage.world.time.now();
    stage.later(7);
    let mut disk = stage.raised("disk:/var", "disk_saturated");
    disk.change.grounds.lasted_ms = 900_000;
    stage.arrive("bank", "a", &[down, disk]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1, "told seven seconds apart: one cause, however long the disk had been busy");
    assert_eq!(tickets[0].fault_at, told_at.plus_ms(-20_000));
    assert_eq!(tickets[0].opened_at.since_ms(tickets[0].fault_at), 27_000, "the time since the fault counts the tries");
    let mut lies = stage.raised("memory", "memory_low");
    lies.change.grounds.lasted_ms = u64::MAX;
    stage.arrive("bank", "a", &[lies]).await;
    assert!(stage.tickets("bank").await[1].fault_at.0 > 0, "no agent reaches back before our time");
}

async fn both_nodes_of_a_pair_down_20_s_apart_are_one_ticket_upgraded(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.group("bank", 1, "web", &["a", "b"]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    assert_eq!(stage.tickets("bank").await[0].severity, Severity::General);
    stage.later(20);
    stage.arrive("bank", "b", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    assert_eq!((tickets[0].severity, tickets[0].reason.as_str()), (Severity::Critical, "group_below_need"));
    assert_eq!(stage.story(&tickets[0]).await, ["opened", "clock_started", "joined", "impact_changed"]);
}

async fn one_node_of_a_pair_down_is_general(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.group("bank", 1, "web", &["a", "b"]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!((ticket.severity, ticket.reason.as_str(), ticket.presumed), (Severity::General, "redundancy_lost", false));
}

async fn one_node_down_and_the_other_silent_is_presumed_critical(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"]), ("b", &["web"])]).await;
    stage.group("bank", 1, "web", &["a", "b"]).await;
    stage.later(400);
    stage.heard_but(&["b"]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!((ticket.severity, ticket.reason.as_str(), ticket.presumed), (Severity::Critical, "group_unsure", true));
}

async fn a_report_repeated_changes_nothing(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let (raise, other) = (stage.raised(DOWN.0, DOWN.1), stage.raised("disk:/", "disk_space_low"));
    for _ in 0..5 {
        stage.arrive("bank", "a", &[raise.clone(), other.clone()]).await;
    }
    let clear = stage.cleared(&raise);
    for _ in 0..3 {
        stage.arrive("bank", "a", &[raise.clone(), clear.clone()]).await;
    }
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.iter().map(|ticket| ticket.state).collect::<Vec<_>>(), [TicketState::Recovered, TicketState::Open]);
    assert_eq!(stage.story(&tickets[0]).await, ["opened", "clock_started", "episode_cleared", "recovered"]);
}

async fn what_had_cleared_when_it_arrived_opens_as_recovered_without_a_clock(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let raise = stage.raised(DOWN.0, DOWN.1);
    let clear = stage.cleared(&raise);
    stage.arrive("bank", "a", &[raise, clear]).await;
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!(ticket.state, TicketState::Recovered);
    assert_eq!(stage.story(ticket).await, ["opened"]);
    stage.later(3600);
    stage.heard_but(&[]).await;
    time_passes::once(&stage.world, &LastLook::default()).await.expect("passes");
    assert_eq!(stage.story(ticket).await, ["opened"], "nobody is paged for it");
}

async fn a_flap_reopens_with_a_new_clock_and_keeps_the_old(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let raise = stage.raised(DOWN.0, DOWN.1);
    stage.arrive("bank", "a", std::slice::from_ref(&raise)).await;
    stage.later(60);
    stage.arrive("bank", "a", &[stage.cleared(&raise)]).await;
    stage.later(600);
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!((tickets.len(), tickets[0].state), (1, TicketState::Open));
    let mut conn = stage.world.db.read().await.expect("reads");
    let clocks = crate::clocks::store::of_ticket(&mut conn, "bank", "T-000001").await.expect("clocks");
    assert_eq!(clocks.iter().map(|clock| clock.started_at.since_ms(clocks[0].started_at)).collect::<Vec<_>>(), [0, 660_000]);
}

async fn a_new_fault_after_the_flap_window_opens_anew(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let raise = stage.raised(DOWN.0, DOWN.1);
    stage.arrive("bank", "a", std::slice::from_ref(&raise)).await;
    stage.arrive("bank", "a", &[stage.cleared(&raise)]).await;
    stage.later(901);
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    let states: Vec<_> = stage.tickets("bank").await.iter().map(|ticket| ticket.state).collect();
    assert_eq!(states, [TicketState::Closed, TicketState::Open]);
}

async fn a_full_disk_and_the_service_on_it_are_one_ticket(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    stage.arrive("bank", "a", &[stage.raised("disk:/var", "disk_space_low")]).await;
    let ticket = &stage.tickets("bank").await[0];
    assert_eq!((ticket.severity, ticket.reason.as_str()), (Severity::General, "services_up"));
    stage.later(120);
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    stage.arrive("bank", "a", &[stage.raised("disk:/home", "disk_space_low")]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.iter().map(|t| t.severity).collect::<Vec<_>>(), [Severity::Critical, Severity::General]);
}

async fn two_customers_never_share_a_ticket(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    stage.customer("town", &[("z", &["web"])]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    stage.arrive("town", "z", &[stage.raised(DOWN.0, DOWN.1)]).await;
    assert_eq!((stage.tickets("bank").await.len(), stage.tickets("town").await.len()), (1, 1));
}

async fn restated_faults_after_a_restore_open_what_was_lost_and_double_nothing(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let (kept, lost) = (stage.raised(DOWN.0, DOWN.1), stage.raised("disk:/", "disk_space_low"));
    stage.arrive("bank", "a", std::slice::from_ref(&kept)).await;
    let again = |raise: &crate::flow::faults_arrive::ArrivedChange| {
        let key = &raise.change.key;
        stage.change(FaultChangeKind::Restated, &key.component, &key.code, Some(raise.record.clone()))
    };
    let restated = [again(&kept), again(&lost)];
    stage.arrive("bank", "a", &restated).await;
    stage.arrive("bank", "a", &restated).await;
    assert_eq!(stage.tickets("bank").await.len(), 2);
}

async fn two_nodes_that_race_with_one_fault_open_one_ticket(db: Db) {
    let stage = std::sync::Arc::new(Stage::new(db).await);
    let appliances: Vec<String> = (0..6).map(|n| format!("a{n}")).collect();
    let declared: Vec<(&str, &[&str])> = appliances.iter().map(|name| (name.as_str(), ["web"].as_slice())).collect();
    stage.customer("bank", &declared).await;
    stage.group("bank", 1, "web", &appliances.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut nodes = tokio::task::JoinSet::new();
    for appliance in appliances {
        let stage = std::sync::Arc::clone(&stage);
        nodes.spawn(async move { stage.try_arrive("bank", &appliance, &[stage.raised(DOWN.0, DOWN.1)]).await });
    }
    for arrived in nodes.join_all().await {
        arrived.expect("arrives");
    }
    let tickets = stage.tickets("bank").await;
    assert_eq!(tickets.len(), 1);
    assert_eq!(tickets[0].severity, Severity::Critical);
}

async fn a_rewound_spool_leaves_no_episode_open_for_ever(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    // The snapshot knows nothing of the first episode: it raises its own, and clears that.
    let own = stage.raised(DOWN.0, DOWN.1);
    stage.arrive("bank", "a", std::slice::from_ref(&own)).await;
    let ticket = stage.tickets("bank").await.remove(0);
    assert_eq!(stage.story(&ticket).await, ["opened", "clock_started", "joined", "episode_cleared"]);
    assert_eq!(ticket.state, TicketState::Open);
    stage.arrive("bank", "a", &[stage.cleared(&own)]).await;
    let tickets = stage.tickets("bank").await;
    assert_eq!((tickets.len(), tickets[0].state), (1, TicketState::Recovered));
}

async fn the_end_of_a_fault_ends_it_whatever_id_its_raise_was_given(db: Db) {
    let stage = Stage::new(db).await;
    stage.customer("bank", &[("a", &["web"])]).await;
    let unseen = stage.raised(DOWN.0, DOWN.1);
    stage.later(60);
    let mut late = stage.cleared(&unseen);
    stage.later(60);
    // Taken under an id of its own, since the agent's spool had been rewound and its id was used before.
    stage.arrive("bank", "a", &[stage.raised(DOWN.0, DOWN.1)]).await;
    stage.later(60);
    late.change.episode = Some(stage.raised(DOWN.0, DOWN.1).record);
    stage.arrive("bank", "a", &[late]).await;
    assert_eq!(stage.tickets("bank").await[0].state, TicketState::Open, "an older end is not this one's");
    stage.arrive("bank", "a", &[stage.cleared(&unseen)]).await;
    assert_eq!(stage.tickets("bank").await[0].state, TicketState::Recovered);
    assert_eq!(stage.tickets("bank").await.len(), 1);
}
