//! Reports and polls: taken once, acknowledged after commit, copies found, directives in under a second.

use super::*;

both_databases!(
    a_report_is_taken_once_however_often_it_comes,
    a_late_request_is_stale_and_changes_nothing,
    a_rewound_snapshot_is_held_its_faults_taken_and_released_by_an_operator,
    two_living_copies_of_one_box_are_found,
    holes_and_gaps_are_counted_and_block_nothing,
    a_gap_in_the_place_of_a_record_that_arrived_proves_no_copy,
    a_first_answer_lost_after_a_restore_proves_no_copy,
    samples_are_placed_in_the_collectors_time,
    one_bad_record_is_refused_and_the_rest_taken,
    another_record_under_the_same_id_is_a_new_event,
    a_directive_reaches_a_waiting_poll_within_a_second,
    an_agent_that_can_record_nothing_gets_one_ticket_until_it_records_again,
    two_hundred_reports_at_once_are_each_answered
);

async fn an_agent_that_can_record_nothing_gets_one_ticket_until_it_records_again(db: Db) {
    let house = House::open(db, 1).await;
    let mine = house.enrol().await;
    let all = "SELECT COUNT(*) FROM tickets WHERE code = $1";
    let recovered = "SELECT COUNT(*) FROM tickets WHERE code = $1 AND state = 'recovered'";
    let general = "SELECT COUNT(*) FROM tickets WHERE code = $1 AND severity = 'general'";
    for (sentence, not_recording_s, opened, over) in [
        ("all is well", None, 0, 0),
        ("it may pass", Some(299.0), 0, 0),
        ("five minutes are enough", Some(300.0), 1, 0),
        ("one ticket for as long as it lasts", Some(360.0), 1, 0),
        ("an agent that was started anew still can't", Some(2.0), 1, 0),
        ("it records again", None, 1, 1),
        ("and goes on", None, 1, 1),
    ] {
        let mut poll = mine.poll(0);
        poll.values.extend(not_recording_s.map(|span| ("agent.not_recording_s".to_owned(), span)));
        let (_, answer) = post::<PollReply>(&mine.client, &house.base(), PATH_POLL, &poll).await;
        answer.expect("answers");
        let tickets = (house.count(all, "agent_not_recording").await, house.count(recovered, "agent_not_recording").await);
        assert_eq!(tickets, (opened, over), "{sentence}");
    }
    assert_eq!(house.count(general, "agent_not_recording").await, 1);
}

async fn a_report_is_taken_once_however_often_it_comes(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    let records = vec![mine.fault(1, "down"), mine.test(2)];
    let lost = mine.report(records.clone());
    let (_, first) = mine.send(&lost).await;
    let first = first.expect("taken");
    let again = mine.say(records).await;
    assert_eq!(first.nonce, again.nonce, "the answer was lost: the same nonce again");
    assert_eq!(again.acks, vec![RecordId { epoch: mine.epoch.clone(), lane: Lane::Fault, seq: 2 }]);
    assert_eq!(house.count("SELECT COUNT(*) FROM fault_records WHERE tenant_id = $1", "t").await, 2);
    assert_eq!(house.count("SELECT COUNT(*) FROM episodes WHERE tenant_id = $1", "t").await, 1);
    assert_eq!(house.count("SELECT COUNT(*) FROM tickets WHERE tenant_id = $1", "t").await, 1);
    assert_eq!(house.events("test_received").await, 1);
    let receipt = again.receipt.expect("a receipt").verify(&hex::decode(&mine.reply.receipt_key).expect("hex")).expect("ours");
    assert_eq!(receipt.appliance, mine.reply.appliance);
    assert_eq!(receipt.records.len(), 2, "a replay is receipted as well");
    let fault_at = house.count("SELECT occurred_at FROM fault_records WHERE seq = 1 AND tenant_id = $1", "t").await;
    assert_eq!(fault_at, first.received_at.0 - 6_000, "receipt minus its monotonic age");
}

async fn a_late_request_is_stale_and_changes_nothing(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    let late = mine.report(vec![mine.test(1)]);
    mine.say(vec![mine.test(1)]).await;
    let (status, refused) = mine.send(&late).await;
    assert_eq!((status, refused.expect_err("stale").error.as_str()), (StatusCode::CONFLICT, "stale_request"));
    let ended = mine.report(vec![mine.test(2)]);
    mine.restart();
    mine.say(vec![mine.test(1)]).await;
    assert_eq!(mine.send(&ended).await.0, StatusCode::CONFLICT, "a run of the agent that has ended speaks no more");
    assert_eq!(house.events("test_received").await, 2);
    assert_eq!(house.events("held").await, 0);
}

async fn a_rewound_snapshot_is_held_its_faults_taken_and_released_by_an_operator(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    mine.say(vec![mine.test(1)]).await;
    let old_nonce = mine.nonce.clone();
    for seq in 2..5 {
        mine.say(vec![mine.test(seq)]).await;
    }
    mine.restart();
    mine.nonce = old_nonce;
    let reply = mine.say(vec![mine.fault(1, "raised after the rewind")]).await;
    assert!(reply.held, "the copy is found");
    assert_eq!(reply.acks.len(), 1, "its fault is taken all the same");
    assert_eq!(house.count("SELECT COUNT(*) FROM episodes WHERE summary = $1", "raised after the rewind").await, 1);
    assert_eq!(house.count("SELECT COUNT(*) FROM tickets WHERE code = $1", "identity_cloned").await, 1);
    assert_eq!(house.events("held").await, 1);
    assert_eq!(house.act(&mine, ApplianceAct::Ask(Ask::ReportNow)).await, Acted::Done);
    assert_eq!(house.events("asked").await, 1, "who asks what of which appliance is recorded");
    let (_, quiet) = post::<PollReply>(&mine.client, &house.base(), PATH_POLL, &mine.poll(0)).await;
    assert!(quiet.expect("answers").directives.is_empty(), "a held appliance is asked nothing");
    assert_eq!(house.act(&mine, ApplianceAct::Release { why: "set back on purpose".into() }).await, Acted::Done);
    assert!(!mine.say(vec![]).await.held);
    let (_, asked) = post::<PollReply>(&mine.client, &house.base(), PATH_POLL, &mine.poll(0)).await;
    assert_eq!(asked.expect("answers").directives.len(), 1);
}

async fn two_living_copies_of_one_box_are_found(db: Db) {
    let house = House::open(db, 1).await;
    let mut one = house.enrol().await;
    one.say(vec![one.test(1)]).await;
    let mut two = one.copy();
    two.restart();
    let mut held = false;
    for _ in 0..10 {
        for copy in [&mut one, &mut two] {
            let report = copy.report(vec![]);
            match copy.send(&report).await {
                (_, Ok(reply)) => {
                    held |= reply.held;
                    copy.nonce = Some(reply.nonce);
                }
                (status, Err(_)) => {
                    assert_eq!(status, StatusCode::CONFLICT);
                    copy.restart();
                    copy.say(vec![copy.test(1)]).await;
                }
            }
        }
    }
    assert!(held, "though each keeps the other's nonce fresh");
    assert_eq!(house.events("held").await, 1);
}

async fn holes_and_gaps_are_counted_and_block_nothing(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    let gap = mainstay_shared::record::Gap { from_seq: 2, to_seq: 5, why: "compacted".into(), count: 4 };
    let reply = mine.say(vec![mine.test(1), mine.record(6, Payload::Gap(gap)), mine.test(9)]).await;
    assert_eq!(reply.acks[0].seq, 9);
    assert_eq!(house.count("SELECT CAST(SUM(lost_count) AS BIGINT) FROM gaps WHERE why = $1", "compacted").await, 4);
    assert_eq!(house.count("SELECT CAST(SUM(lost_count) AS BIGINT) FROM gaps WHERE why = $1", "missing").await, 2);
    mine.say(vec![mine.test(8)]).await;
    assert_eq!(house.events("test_received").await, 3, "what was thought missing is taken when it comes");
}

async fn a_gap_in_the_place_of_a_record_that_arrived_proves_no_copy(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    mine.say(vec![mine.test(1), mine.test(2)]).await;
    // The answer was lost, and the box's own copy rotted before it sent it again.
    let gap = mainstay_shared::record::Gap { from_seq: 2, to_seq: 2, why: "corrupt".into(), count: 1 };
    let reply = mine.say(vec![mine.test(1), mine.record(2, Payload::Gap(gap))]).await;
    assert_eq!((reply.acks[0].seq, reply.held), (2, false));
    assert_eq!(house.events("held").await, 0);
    assert_eq!(house.events("records_lost").await, 0, "nothing is lost");
}

async fn a_first_answer_lost_after_a_restore_proves_no_copy(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    for seq in 1..4 {
        mine.say(vec![mine.test(seq)]).await;
    }
    forget_nonces(&house.world.db).await.expect("forgets");
    let lost = mine.report(vec![mine.test(4)]);
    assert_eq!(mine.send(&lost).await.0, StatusCode::OK);
    assert!(!mine.say(vec![mine.test(4)]).await.held);
    assert!(!mine.say(vec![mine.test(5)]).await.held);
    assert_eq!(house.events("held").await, 0);
}

async fn forget_nonces(db: &Db) -> anyhow::Result<()> {
    transact!(*db, Turn::Console, |tx| { Ok(crate::appliances::links::forget_nonces(tx).await?) });
    Ok(())
}

async fn samples_are_placed_in_the_collectors_time(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    let folded = mainstay_shared::record::Folded { min: 1.0, avg: 2.0, max: 3.0, last: 2.5 };
    let metrics = [("cpu.busy_percent".to_owned(), folded)].into();
    let samples = mainstay_shared::record::Samples { from: UnixMs(0), to: UnixMs(300_000), metrics };
    let mut record = mine.record(1, Payload::Samples(samples));
    record.id.lane = Lane::Sample;
    let reply = mine.say(vec![record.clone()]).await;
    mine.say(vec![record]).await;
    assert!(reply.receipt.is_none(), "samples need no receipt");
    let mut conn = house.world.db.read().await.expect("reads");
    let rows: Vec<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT from_at, to_at, metrics FROM samples").fetch_all(&mut *conn).await.expect("reads");
    let [(from_at, to_at, packed)] = rows.as_slice() else { panic!("{} rows", rows.len()) };
    assert_eq!((*to_at, to_at - from_at), (reply.received_at.0 - 6_000, 300_000), "whatever a clock at 1970 says");
    let json = zstd::decode_all(packed.as_slice()).expect("unpacks");
    assert!(String::from_utf8_lossy(&json).contains("cpu.busy_percent"));
}

async fn one_bad_record_is_refused_and_the_rest_taken(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    let mut bad = mine.fault(2, "x");
    if let Payload::Fault(change) = &mut bad.payload {
        change.key.component = "a\nb".to_owned();
    }
    let reply = mine.say(vec![mine.test(1), bad, mine.test(3)]).await;
    assert_eq!(reply.refused.len(), 1);
    assert!(reply.refused[0].why.starts_with("component: expected 1 to 128 characters"), "{}", reply.refused[0].why);
    assert_eq!(reply.acks[0].seq, 3);
    assert_eq!(house.events("records_refused").await, 1);
    assert_eq!(house.events("test_received").await, 2);
}

async fn another_record_under_the_same_id_is_a_new_event(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    mine.say(vec![mine.fault(1, "the first")]).await;
    let reply = mine.say(vec![mine.fault(1, "another")]).await;
    assert!(reply.held);
    assert_eq!(house.count("SELECT COUNT(*) FROM fault_records WHERE tenant_id = $1", "t").await, 2);
    assert_eq!(house.count("SELECT COUNT(*) FROM episodes WHERE code = $1", "service_down").await, 2);
}

async fn a_directive_reaches_a_waiting_poll_within_a_second(db: Db) {
    let house = House::open(db, 2).await;
    let (mine, other) = (house.enrol().await, house.enrol().await);
    let waiting = {
        let (client, base, poll) = (mine.client.clone(), house.base(), mine.poll(60));
        tokio::task::JoinSet::from_iter([async move { post::<PollReply>(&client, &base, PATH_POLL, &poll).await }])
    };
    let bystander = {
        let (client, base, poll) = (other.client.clone(), house.base(), other.poll(60));
        tokio::task::JoinSet::from_iter([async move { post::<PollReply>(&client, &base, PATH_POLL, &poll).await }])
    };
    while house.serving.counts.waiting_polls.get() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.act(&mine, ApplianceAct::Ask(Ask::ReportNow)).await;
    let answered =
        tokio::time::timeout(Duration::from_secs(30), waiting.join_all()).await.expect("answered long before its time");
    let directives = answered.into_iter().next().expect("one").1.expect("answers").directives;
    assert_eq!(directives[0].ask, Ask::ReportNow);
    assert_eq!(house.serving.counts.waiting_polls.get(), 1, "the other box still waits");
    drop(bystander);
    let gone = async {
        while house.serving.counts.waiting_polls.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("a poll whose connection broke waits no more");
    let mut done = mine.poll(0);
    done.done = vec![directives[0].id.clone()];
    let (_, after) = post::<PollReply>(&mine.client, &house.base(), PATH_POLL, &done).await;
    assert!(after.expect("answers").directives.is_empty(), "what is done is not asked again");
}

async fn two_hundred_reports_at_once_are_each_answered(db: Db) {
    let house = House::open(db, 20).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut mine = house.enrol().await;
        tasks.spawn(async move {
            for seq in 1..=10 {
                let reply = mine.say(vec![mine.test(seq)]).await;
                assert_eq!(reply.acks[0].seq, seq);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(house.count("SELECT COUNT(*) FROM fault_records WHERE tenant_id = $1", "t").await, 200);
    assert_eq!(house.events("test_received").await, 200);
}
