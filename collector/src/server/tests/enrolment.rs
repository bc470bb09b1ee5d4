//! Enrolment, renewal and the end of certificates, over real TLS.

use super::*;

both_databases!(
    a_box_enrols_once_and_the_same_attempt_gets_its_answer_again,
    fifty_who_race_with_one_secret_get_one_identity,
    a_wrong_or_expired_secret_gets_one_sentence,
    a_living_certificate_renews_with_the_same_key_only,
    an_expired_certificate_waits_for_an_operator_and_can_do_nothing_else,
    a_revoked_certificate_is_worth_nothing_within_the_minute
);

async fn a_box_enrols_once_and_the_same_attempt_gets_its_answer_again(db: Db) {
    let house = House::open(db, 1).await;
    let (key, client) = (rcgen::KeyPair::generate().expect("key"), house.client(None));
    let request = enrol_request(&key, "secret");
    let (_, first) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &request).await;
    let (_, again) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &request).await;
    let (first, again) = (first.expect("enrols"), again.expect("is answered again"));
    assert_eq!(first.appliance, again.appliance);
    let (status, other) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &enrol_request(&key, "secret")).await;
    assert_eq!((status, other.expect_err("used up").error.as_str()), (StatusCode::FORBIDDEN, "bad_join_secret"));
    assert_eq!(house.count("SELECT COUNT(*) FROM appliances WHERE tenant_id = $1", "t").await, 1);
    let name = house.count("SELECT COUNT(*) FROM appliances WHERE name = $1", "node-a\u{FFFD}").await;
    assert_eq!(name, 1, "hostile text is cleaned");
}

async fn fifty_who_race_with_one_secret_get_one_identity(db: Db) {
    let house = House::open(db, 1).await;
    let client = house.client(None);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, base) = (client.clone(), house.base());
        tasks.spawn(async move {
            let key = rcgen::KeyPair::generate().expect("key");
            post::<EnrolReply>(&client, &base, PATH_ENROL, &enrol_request(&key, "secret")).await.0
        });
    }
    let statuses = tasks.join_all().await;
    let enrolled = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    let refused = statuses.iter().filter(|status| **status == StatusCode::FORBIDDEN).count();
    assert_eq!((enrolled, refused), (1, 49));
    assert_eq!(house.count("SELECT COUNT(*) FROM appliances WHERE tenant_id = $1", "t").await, 1);
}

async fn a_wrong_or_expired_secret_gets_one_sentence(db: Db) {
    let house = House::open(db, 5).await;
    let (key, client) = (rcgen::KeyPair::generate().expect("key"), house.client(None));
    let (status, wrong) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &enrol_request(&key, "guess")).await;
    let mut unknown = enrol_request(&key, "secret");
    unknown.token_id = "nobody\0".to_owned();
    let (_, unknown) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &unknown).await;
    let mut conn = house.world.db.begin(Turn::Console).await.expect("begins");
    sqlx::query("UPDATE join_tokens SET expires_at = 5").execute(&mut *conn).await.expect("expires");
    house.world.db.finish(conn, Ok(()), &mut 0).await.expect("commits");
    let (_, expired) = post::<EnrolReply>(&client, &house.base(), PATH_ENROL, &enrol_request(&key, "secret")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let wrong = wrong.expect_err("refused");
    assert_eq!((Err(&wrong), Err(&wrong)), (unknown.as_ref().map(drop), expired.as_ref().map(drop)));
}

async fn a_living_certificate_renews_with_the_same_key_only(db: Db) {
    let house = House::open(db, 1).await;
    let mine = house.enrol().await;
    let renew = RenewRequest { version: 1, csr_pem: mine.csr(), expired_pem: None };
    let (_, renewed) = post::<EnrolReply>(&mine.client, &house.base(), PATH_RENEW, &renew).await;
    let renewed = renewed.expect("renews");
    assert_eq!(renewed.appliance, mine.reply.appliance);
    assert_ne!(renewed.chain_pem, mine.reply.chain_pem);
    let other = RenewRequest { csr_pem: csr_of(&rcgen::KeyPair::generate().expect("key")), ..renew.clone() };
    let (status, refused) = post::<EnrolReply>(&mine.client, &house.base(), PATH_RENEW, &other).await;
    assert_eq!((status, refused.expect_err("refused").error.as_str()), (StatusCode::FORBIDDEN, "other_key"));
    let shown = RenewRequest { expired_pem: Some(mine.reply.chain_pem.clone()), ..renew };
    let (status, refused) = post::<EnrolReply>(&house.client(None), &house.base(), PATH_RENEW, &shown).await;
    assert_eq!((status, refused.expect_err("refused").error.as_str()), (StatusCode::FORBIDDEN, "still_valid"));
}

async fn an_expired_certificate_waits_for_an_operator_and_can_do_nothing_else(db: Db) {
    let house = House::open(db, 1).await;
    let mut mine = house.enrol().await;
    mine.say(vec![]).await;
    house.world.time.advance(Duration::from_secs(91 * 86_400));
    let fresh = house.client(Some(format!("{}{}", mine.reply.chain_pem, mine.key.serialize_pem())));
    let refused = fresh.post(format!("{}{PATH_REPORTS}", house.base())).body("{}").send().await;
    assert!(refused.is_err(), "the handshake refuses an expired certificate");
    let on_old_connection = mine.report(vec![]);
    assert_eq!(mine.send(&on_old_connection).await.0, StatusCode::UNAUTHORIZED, "an old connection does not outlive it");
    let renew = RenewRequest { version: 1, csr_pem: mine.csr(), expired_pem: Some(mine.reply.chain_pem.clone()) };
    let stranger = house.client(None);
    for _ in 0..2 {
        let (status, waits) = post::<EnrolReply>(&stranger, &house.base(), PATH_RENEW, &renew).await;
        assert_eq!((status, waits.expect_err("waits").error.as_str()), (StatusCode::ACCEPTED, "waits_for_operator"));
    }
    assert_eq!(house.events("renewal_requested").await, 1);
    assert_eq!(house.act(&mine, ApplianceAct::ApproveRenewal).await, Acted::Done);
    let (_, renewed) = post::<EnrolReply>(&stranger, &house.base(), PATH_RENEW, &renew).await;
    let renewed = renewed.expect("renews after the click");
    mine.client = house.client(Some(format!("{}{}", renewed.chain_pem, mine.key.serialize_pem())));
    mine.say(vec![]).await;
    let (status, _) = post::<EnrolReply>(&stranger, &house.base(), PATH_RENEW, &renew).await;
    assert_eq!(status, StatusCode::ACCEPTED, "one click renews once");
}

async fn a_revoked_certificate_is_worth_nothing_within_the_minute(db: Db) {
    let house = House::open(db, 2).await;
    let (mut mine, mut other) = (house.enrol().await, house.enrol().await);
    mine.say(vec![]).await;
    let fingerprint = crate::appliances::authority::fingerprint_of_pem(&mine.reply.chain_pem).expect("pem");
    let revoke = ApplianceAct::RevokeCertificate { fingerprint, why: "stolen".into() };
    assert_eq!(house.act(&mine, revoke.clone()).await, Acted::Done);
    assert_eq!(house.act(&mine, revoke).await, Acted::NothingToDo);
    house.world.time.advance(Duration::from_secs(59));
    let report = mine.report(vec![]);
    let (status, refused) = mine.send(&report).await;
    assert_eq!((status, refused.expect_err("refused").error.as_str()), (StatusCode::UNAUTHORIZED, "not_enrolled"));
    other.say(vec![]).await;
    assert_eq!(house.act(&other, ApplianceAct::Retire { why: "scrapped".into() }).await, Acted::Done);
    house.world.time.advance(Duration::from_secs(59));
    let report = other.report(vec![]);
    assert_eq!(other.send(&report).await.0, StatusCode::UNAUTHORIZED);
}
