//! What comes by hand: six digits typed at a mail's link, a receipt carried from a box without a network.

use mainstay_patchkit::sample::Vendor;
use mainstay_shared::directive::Ask;
use mainstay_shared::ids::ApplianceId;
use mainstay_shared::patch::Decision;
use mainstay_shared::patch_receipt::{PatchReceipt, SignedReceipt};

use super::{Shop, patch, rolled_back};
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::flow::file_is_offered::Wish;
use crate::flow::link_is_used::{self, Carried, Download, Typed};
use crate::flow::receipt_is_read::receipt_is_read;

both_databases!(
    a_link_carries_six_digits_to_the_box_and_does_nothing_else,
    a_receipt_counts_once_and_only_by_its_own_certificate,
);

async fn a_link_carries_six_digits_to_the_box_and_does_nothing_else(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let offer = shop.offer(Wish { by_mail: true, ..shop.wish("2.1.0", "a") }).await.expect("offered");
    let world = &shop.stage.world;
    let body: String = {
        let mut conn = world.db.read().await.expect("reads");
        sqlx::query_scalar("SELECT body FROM outbox WHERE kind = 'patch_link'").fetch_one(&mut *conn).await.expect("a mail")
    };
    assert!(body.contains(&shop.row(&offer).await.sha256) && body.contains("设备"), "{body}");
    let token = body.split("/p/").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link").to_owned();
    assert_eq!(token.len(), 64);
    for _ in 0..20 {
        let behind = link_is_used::look(world, &token).await.expect("asks").expect("a link");
        assert_eq!((behind.offers.len(), behind.link.downloads), (1, 0));
    }
    assert!(link_is_used::look(world, &"0".repeat(64)).await.expect("asks").is_none());
    let typed = |code: &str, decision: Decision| Typed { offer_id: offer.clone(), code: code.to_owned(), decision };
    let no_reason = Decision::Refuse { reason: " ".into() };
    for (code, decision, answer) in [
        ("", Decision::Approve, Carried::NoCode),
        ("12345", Decision::Approve, Carried::NoCode),
        ("12345a", Decision::Approve, Carried::NoCode),
        ("１２３４５６", Decision::Approve, Carried::NoCode),
        ("123456", no_reason, Carried::NoReason),
    ] {
        assert_eq!(link_is_used::decide(world, &token, &typed(code, decision)).await.expect("asks"), answer, "{code}");
    }
    assert_eq!(shop.asked("a").await.len(), 1, "the box was asked nothing but the offer");
    let other = Typed { offer_id: "0".repeat(32), ..typed("123456", Decision::Approve) };
    assert_eq!(link_is_used::decide(world, &token, &other).await.expect("asks"), Carried::NotOpen);
    let refuse = Decision::Refuse { reason: "not this week".into() };
    assert_eq!(link_is_used::decide(world, &token, &typed("123456", refuse.clone())).await.expect("asks"), Carried::OnItsWay);
    let wanted = Ask::Decided { offer_id: offer.clone(), decision: refuse, code: "123456".into() };
    assert!(shop.asked("a").await.iter().any(|directive| directive.ask == wanted));
    for _ in 0..19 {
        assert_eq!(
            link_is_used::decide(world, &token, &typed("111111", Decision::Approve)).await.expect("asks"),
            Carried::OnItsWay
        );
    }
    assert_eq!(link_is_used::decide(world, &token, &typed("111111", Decision::Approve)).await.expect("asks"), Carried::TooMany);
    for _ in 0..50 {
        assert!(matches!(link_is_used::download(world, &token).await.expect("asks"), Download::File(_)));
    }
    assert!(matches!(link_is_used::download(world, &token).await.expect("asks"), Download::TooMany), "fifty at most");
    assert!(matches!(link_is_used::download(world, &"0".repeat(64)).await.expect("asks"), Download::NoLink));
    let mut conn = world.db.read().await.expect("reads");
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT body FROM events WHERE tenant_id = 'bank'").fetch_all(&mut *conn).await.expect("reads");
    assert!(!kept.iter().any(|body| body.contains(&token) || body.contains("123456")), "neither token nor code is recorded");
    drop(conn);
    shop.stage.later(31 * 86_400);
    assert!(link_is_used::look(world, &token).await.expect("asks").is_none(), "it has ended");
}

async fn a_receipt_counts_once_and_only_by_its_own_certificate(db: Db) {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    let shop = Shop::open(db).await;
    let world = &shop.stage.world;
    let appliance = "e".repeat(32);
    shop.stage.customer("mine", &[(&appliance, &[])]).await;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &world.rng).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &world.rng).expect("a key");
    let public = hex::encode(key.public_key().as_ref());
    shop.stage
        .run(format!(
            "INSERT INTO certificates (fingerprint, tenant_id, appliance_id, public_key, pem, not_after_at, issued_at)
             VALUES ('f1', 'mine', '{appliance}', '{public}', '', 1, 0), ('f2', 'bank', 'a', '{public}', '', 1, 0)"
        ))
        .await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let file = shop.file("acme-gateway-2.1.0.mpatch").await;
    let id: ApplianceId = appliance.parse().expect("an id");
    let receipt = PatchReceipt { appliance: id, reports: vec![rolled_back(2, &file)], at: world.time.now() };
    let signed = |certificate: &str| {
        let signed = SignedReceipt::sign(&receipt, pkcs8.as_ref(), certificate, &world.rng).expect("signed");
        serde_json::to_vec(&signed).expect("a file")
    };
    let read = async |tenant: Option<&str>, file: &[u8]| receipt_is_read(world, tenant, file).await.expect("asks");
    assert!(read(None, b"nothing").await.is_err());
    assert!(read(None, &signed("f3")).await.is_err(), "a certificate that was never issued");
    assert!(read(None, &signed("f2")).await.is_err(), "of another appliance");
    assert!(read(Some("bank"), &signed("f1")).await.is_err(), "of another customer");
    assert_eq!(read(Some("mine"), &signed("f1")).await.map(|read| read.new), Ok(1));
    assert_eq!(read(None, &signed("f1")).await.map(|read| read.new), Ok(0), "the same again");
    assert_eq!(shop.stage.tickets("mine").await.len(), 1, "it counts as the box's own word");
}
