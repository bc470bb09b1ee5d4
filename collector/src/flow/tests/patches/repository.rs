//! The repository goes wrong, or is changed under the offers: what the operators are told, what is signed, and what becomes of offers.

use std::sync::Arc;

use mainstay_patchkit::authoring::{Named, timestamp_text};
use mainstay_patchkit::sample::{PRODUCT, Vendor, sign};
use mainstay_shared::directive::Ask;
use mainstay_shared::patch::{Decision, PatchStep};

use super::{Shop, patch, report};
use crate::appliances::directives;
use crate::customers::Role;
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};
use crate::flow::file_is_offered::{self, Wish};
use crate::flow::link_is_used::{self, Carried, Download, Typed};
use crate::flow::repository_is_read::Reader;
use crate::flow::testing::staff;
use crate::releases::life::OfferState;
use crate::releases::online::Role as Online;
use crate::releases::problems;
use crate::releases::rules::NotOffered;
use crate::releases::{FileState, OfferRow, files, offers};

both_databases!(
    other_content_under_a_known_name_is_told_and_older_offers_keep_their_meaning,
    a_file_that_was_signed_anew_is_offered_anew_to_those_who_have_not_got_it,
    metadata_that_does_not_verify_is_never_named_and_is_told,
    of_two_nodes_that_pass_at_once_one_signs,
    files_that_are_missing_all_at_once_are_not_gone,
    a_foreign_timestamp_moves_no_version_and_a_signing_that_fails_is_told,
    a_typed_code_is_forgotten_once_it_is_carried_or_expired,
    expired_signatures_stop_offers_and_no_ticket,
);

const FILE: &str = "acme-gateway-2.1.0.mpatch";

impl Shop {
    async fn problems(&self) -> Vec<(String, &'static str)> {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let kept = problems::list(&mut conn).await.expect("reads");
        kept.into_iter().map(|kept| (kept.problem.about, kept.problem.what.as_str())).collect()
    }

    async fn mails(&self, kind: &str) -> i64 {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE kind = $1").bind(kind.to_owned());
        count.fetch_one(&mut *conn).await.expect("counts")
    }

    async fn operator(&self) {
        self.stage
            .run(
                "INSERT INTO staff (staff_id, username, name, email, phone, role, language, password_hash, totp_secret,
                   totp_last_step, failed_count, created_at)
                 VALUES ('otto', 'otto', 'Otto', 'otto@vendor.example', '', 'operator', 'en', '', '', 0, 0, 0)",
            )
            .await;
    }

    async fn living(&self, appliance: &str) -> Vec<OfferRow> {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let all = offers::of_appliance(&mut conn, "bank", appliance, 9).await.expect("reads");
        all.into_iter().filter(|offer| offer.ended_at.is_none()).collect()
    }

    async fn snapshot_names(&self) -> (i64, serde_json::Value) {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let newest = files::newest_signed(&mut conn, Online::Snapshot).await.expect("reads").expect("signed");
        let body: serde_json::Value = serde_json::from_str(&newest.body).expect("json");
        (newest.version, body["signed"]["meta"].clone())
    }

    /// The token of the link that was mailed.
    async fn link(&self) -> String {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let body = sqlx::query_scalar("SELECT body FROM outbox WHERE kind = 'patch_link'").fetch_one(&mut *conn).await;
        let body: String = body.expect("a mail");
        body.split("/p/").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link").to_owned()
    }

    /// The box says that it has acted on a directive.
    async fn done(&self, appliance: &str, directive: &str) {
        let (key, now) = (("bank".to_owned(), appliance.to_owned()), self.stage.world.time.now());
        let done = async {
            transact!(self.stage.world.db, Turn::Console, |tx| { Ok(directives::done(tx, &key, directive, now).await?) });
            anyhow::Ok(())
        };
        done.await.expect("done");
    }

    fn write_metadata(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join("repository/metadata").join(name), bytes).expect("written");
    }
}

async fn other_content_under_a_known_name_is_told_and_older_offers_keep_their_meaning(db: Db) {
    let shop = Shop::open(db).await;
    shop.operator().await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let before = shop.file(FILE).await;
    let offer = shop.offer(shop.wish("2.1.0", "a")).await.expect("offered");
    let mut other = patch("2.1.0");
    other.title.en = "Something else".to_owned();
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &other);
    shop.read().await;
    let known = shop.file(FILE).await;
    assert_eq!((known.state, &known.sha256, &known.manifest), (FileState::Refused, &before.sha256, &before.manifest));
    assert!(known.refusal.contains("with other content"), "{}", known.refusal);
    assert_eq!(shop.problems().await, [(FILE.to_owned(), "republished")]);
    assert!(matches!(shop.offer(shop.wish("2.1.0", "b")).await, Err(NotOffered::FileNotGood { .. })));
    assert_eq!(shop.row(&offer).await.state, OfferState::Offered, "it waits");
    assert_eq!(shop.mails("repository").await, 0, "it may be put right in a moment");
    shop.stage.later(11 * 60);
    shop.read().await;
    shop.read().await;
    assert_eq!(shop.mails("repository").await, 1, "told once");
    shop.publish(&Vendor { role_version: 3, ..Vendor::default() }, &patch("2.1.0"));
    shop.read().await;
    assert_eq!((shop.file(FILE).await.state, shop.problems().await), (FileState::Good, vec![]), "put right");
}

async fn a_file_that_was_signed_anew_is_offered_anew_to_those_who_have_not_got_it(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let old = shop.file(FILE).await;
    let wish = Wish { appliances: vec!["a".to_owned(), "b".to_owned()], by_mail: true, ..shop.wish("2.1.0", "a") };
    let told = file_is_offered::offer(&shop.stage.world, &staff("li", Role::SystemEngineer), None, &wish).await.expect("asks");
    assert!(told.expect("may").iter().all(|offered| offered.outcome.is_ok()));
    shop.told(&report(1, &old, PatchStep::AwaitingConsent)).await;
    shop.stage.later(60);
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &patch("2.1.0"));
    shop.read().await;
    let new = shop.file(FILE).await;
    assert!(new.state == FileState::Good && new.sha256 != old.sha256 && new.manifest_sha256 == old.manifest_sha256);
    let (of_a, of_b) = (shop.living("a").await, shop.living("b").await);
    assert_eq!((of_a[0].sha256.as_str(), of_a[0].state), (old.sha256.as_str(), OfferState::Box(PatchStep::AwaitingConsent)));
    assert_eq!((of_b.len(), of_b[0].sha256.as_str(), of_b[0].state), (1, new.sha256.as_str(), OfferState::Offered));
    let asked = shop.asked("b").await.into_iter().map(|directive| directive.ask);
    let offered: Vec<_> = asked.filter_map(|ask| if let Ask::Offered(offer) = ask { Some(offer.sha256) } else { None }).collect();
    assert_eq!(offered, [new.sha256], "the box hears of the new one alone");
    let behind = link_is_used::look(&shop.stage.world, &shop.link().await).await.expect("asks").expect("a link");
    let shown: Vec<_> = behind.offers.iter().map(|(offer, _)| offer.offer_id.clone()).collect();
    assert_eq!(shown, [of_a[0].offer_id.clone(), of_b[0].offer_id.clone()], "its link shows both boxes, each once");
    let file = link_is_used::download(&shop.stage.world, &shop.link().await).await.expect("asks");
    assert!(matches!(file, Download::File(file) if file.sha256 == behind.file.sha256), "for the stick");
}

async fn metadata_that_does_not_verify_is_never_named_and_is_told(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let role = format!("{PRODUCT}-offline.json");
    let (version, names) = shop.snapshot_names().await;
    assert_eq!((version, &names["targets.json"]["version"], &names[&role]["version"]), (1, &1.into(), &1.into()));
    let header = Vendor { threshold: 1, targets_version: 2, role_version: 2, root_version: 2, ..Vendor::default() }
        .header(&patch("2.2.0"))
        .expect("a header");
    shop.write_metadata("2.root.json", &header.roots[0]);
    shop.write_metadata("2.targets.json", &header.targets);
    shop.write_metadata(&format!("2.{role}"), &header.role);
    shop.read().await;
    let told = ["2.acme-gateway-offline.json", "2.root.json", "2.targets.json"].map(|name| (name.to_owned(), "metadata_refused"));
    assert_eq!(shop.problems().await, told);
    assert_eq!(shop.snapshot_names().await, (version, names.clone()), "what one of two signed is not named");
    let mut conn = shop.stage.world.db.read().await.expect("reads");
    assert_eq!(files::root_version(&mut conn).await.expect("reads"), Some(1), "nor is its root handed out");
    drop(conn);
    for name in ["2.root.json", "2.targets.json", &format!("2.{role}"), &format!("1.{role}")] {
        std::fs::remove_file(shop.dir.path().join("repository/metadata").join(name)).expect("removed");
    }
    shop.read().await;
    assert_eq!(shop.problems().await, [("1.targets.json".to_owned(), "metadata_refused")], "its product's role is gone");
    assert_eq!(shop.snapshot_names().await, (version, names), "what was named stays named");
}

async fn of_two_nodes_that_pass_at_once_one_signs(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    let nodes: Vec<_> = (0..2).map(|_| Reader::new(&shop.stage.world).expect("readable").expect("set up")).collect();
    let pass = |node: usize| Arc::clone(&nodes[node]).once(&shop.stage.world);
    let signed = async |role| {
        let mut conn = shop.stage.world.db.read().await.expect("reads");
        files::newest_signed(&mut conn, role).await.expect("reads").expect("signed").version
    };
    let (one, other) = tokio::join!(pass(0), pass(1));
    one.and(other).expect("both pass");
    assert_eq!((signed(Online::Snapshot).await, signed(Online::Timestamp).await), (1, 1), "one of them signed, once");
    for half_days in 1..=4_i64 {
        shop.stage.later(13 * 3600);
        let (one, other) = tokio::join!(pass(0), pass(1));
        one.and(other).expect("both pass");
        assert_eq!(signed(Online::Timestamp).await, 1 + half_days, "renewed in time, once");
    }
    assert_eq!(signed(Online::Snapshot).await, 1, "half of its week is not over");
}

async fn files_that_are_missing_all_at_once_are_not_gone(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let (folder, away) = (shop.dir.path().join("repository/files"), shop.dir.path().join("away"));
    std::fs::rename(&folder, &away).expect("moved");
    for sentence in ["the folder is missing", "it is empty"] {
        shop.read().await;
        assert_eq!(shop.file(FILE).await.state, FileState::Good, "{sentence}");
        assert_eq!(shop.problems().await, [("files".to_owned(), "unreadable")], "{sentence}");
        std::fs::create_dir_all(&folder).expect("a folder");
    }
    std::fs::remove_dir(&folder).expect("removed");
    std::fs::rename(&away, &folder).expect("moved back");
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &patch("2.2.0"));
    shop.read().await;
    assert_eq!(shop.problems().await, []);
    std::fs::remove_file(folder.join(FILE)).expect("removed");
    shop.read().await;
    assert_eq!((shop.file(FILE).await.state, shop.problems().await), (FileState::Gone, vec![]), "this one was taken away");
}

async fn a_foreign_timestamp_moves_no_version_and_a_signing_that_fails_is_told(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    let most = i64::MAX as u64 - 1;
    let text = timestamp_text(most, Vendor::default().expires_at, (most, Named::of(b"{}")));
    shop.write_metadata("timestamp.json", &sign(text, &[33]).expect("signed"));
    let timestamp = async || {
        let mut conn = shop.stage.world.db.read().await.expect("reads");
        files::newest_signed(&mut conn, Online::Timestamp).await.expect("reads").expect("signed").version
    };
    for version in 1..=3 {
        shop.read().await;
        assert_eq!(timestamp().await, version, "it goes on by one");
        assert_eq!(shop.problems().await, [("timestamp.json".to_owned(), "metadata_refused")]);
        shop.stage.later(13 * 3600);
    }
    std::fs::remove_file(shop.dir.path().join("repository/metadata/timestamp.json")).expect("removed");
    let key = shop.dir.path().join("keys/tuf-timestamp.key");
    std::fs::write(&key, [32; 31]).expect("written");
    shop.read().await;
    assert_eq!(shop.problems().await, [("timestamp.json".to_owned(), "not_signed")], "and what is over is no problem any more");
    std::fs::write(&key, [32; 32]).expect("written");
    shop.read().await;
    assert_eq!((timestamp().await, shop.problems().await), (4, vec![]));
}

async fn a_typed_code_is_forgotten_once_it_is_carried_or_expired(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let offer = shop.offer(Wish { by_mail: true, ..shop.wish("2.1.0", "a") }).await.expect("offered");
    let token = shop.link().await;
    let typed = |code: &str| Typed { offer_id: offer.clone(), code: code.to_owned(), decision: Decision::Approve };
    let codes = async || {
        let mut conn = shop.stage.world.db.read().await.expect("reads");
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM directives WHERE ask LIKE '%31415%'");
        count.fetch_one(&mut *conn).await.expect("counts")
    };
    for code in ["314159", "314158"] {
        assert_eq!(link_is_used::decide(&shop.stage.world, &token, &typed(code)).await.expect("asks"), Carried::OnItsWay);
    }
    assert_eq!(codes().await, 2, "on their way");
    let carried = shop.asked("a").await.into_iter().find(|directive| matches!(directive.ask, Ask::Decided { .. }));
    shop.done("a", &carried.expect("it is asked").id).await;
    assert_eq!(codes().await, 1, "the box has it");
    shop.stage.later(3601);
    shop.read().await;
    assert_eq!(codes().await, 0, "the box never asked for it");
    assert!(shop.asked("a").await.iter().any(|directive| matches!(directive.ask, Ask::Offered(_))), "the offer stands");
}

async fn expired_signatures_stop_offers_and_no_ticket(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    shop.stage.later(171 * 86_400);
    shop.read().await;
    assert_eq!(shop.offer(shop.wish("2.1.0", "a")).await, Err(NotOffered::Expired));
    shop.stage.arrive("bank", "a", &[shop.stage.raised("service:web", "service_down")]).await;
    let tickets = shop.stage.tickets("bank").await;
    assert!(tickets.iter().any(|ticket| ticket.code == "service_down"), "reports go on");
}
