//! The vendor's side of signed files, with a real signed repository: what is listed and offered, what the boxes say, what a link carries.

mod by_hand;
mod repository;

use std::sync::Arc;

use mainstay_patchkit::archive::Packed;
use mainstay_patchkit::manifest::{Body, Content, DataChange, Health, Manifest, Patch, Payload, Withdrawal};
use mainstay_patchkit::sample::{ISSUED_AT, PRODUCT, Vendor, manifest, program_action};
use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::patch::{Installed, PatchKind, PatchProgress, PatchReport, PatchStep};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use semver::{Version, VersionReq};

use crate::appliances::directives;
use crate::config::{Config, ReleasesConfig, ReleasesFrom};
use crate::customers::Role;
use crate::db::testing::both_databases;
use crate::db::{Db, Turn, transact};
use crate::entitlements::Entitlement;
use crate::flow::appliance_acts::{ApplianceAct, act};
use crate::flow::faults_arrive::ArrivedFrom;
use crate::flow::file_is_offered::{self, TakenBack, Wish};
use crate::flow::patch_is_reported::{patch_is_reported, patch_progresses};
use crate::flow::repository_is_read::Reader;
use crate::flow::testing::{Stage, config, staff};
use crate::releases::life::OfferState;
use crate::releases::online::Role as Online;
use crate::releases::place::Place;
use crate::releases::reports::{self, Way};
use crate::releases::rules::NotOffered;
use crate::releases::{FileState, OfferRow, ReleaseFile, files, offers};
use crate::tickets::{Ticket, TicketState};

both_databases!(
    what_is_published_is_verified_listed_and_signed_for,
    signatures_that_end_are_told_of_twice,
    an_offer_from_a_ticket_is_done_and_the_ticket_tells_it,
    a_patch_that_rolls_back_opens_a_ticket_and_is_not_offered_there_again,
    an_offer_is_taken_back_in_time_or_not_at_all,
    what_the_vendor_withdraws_is_taken_back_everywhere,
    out_of_warranty_a_patch_is_ordered_first,
);

/// A vendor with a repository, a bank with two boxes that run 2.0.0.
struct Shop {
    stage: Stage,
    dir: tempfile::TempDir,
    reader: Arc<Reader>,
}

fn payload() -> Packed {
    let bytes = b"payload".to_vec();
    let sha256 = hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
    let payload = Payload { length: bytes.len() as u64, sha256, entries: 1, unpacked_bytes: 1, delta_from: None };
    Packed { payload, tree_sha256: "a".repeat(64) }
}

fn patch(version: &str) -> Manifest {
    let packed = payload();
    let body = Patch {
        from: VersionReq::STAR,
        features: Default::default(),
        payload: packed.payload,
        content: Content::Tree { tree_sha256: packed.tree_sha256, scripts: Vec::new() },
        services: vec!["web".to_owned()],
        data_change: DataChange::None,
        health: Health { consecutive_ok: 3, deadline_s: 60 },
        security_fix: true,
    };
    manifest(version.to_owned(), version.parse().expect("a version"), Body::Patch(body))
}

impl Shop {
    async fn open(db: Db) -> Self {
        let mut stage = Stage::new(db).await;
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["keys", "repository/metadata", "repository/files"] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("a folder");
        }
        for (name, number) in [("tuf-snapshot.key", 31_u8), ("tuf-timestamp.key", 32)] {
            std::fs::write(dir.path().join("keys").join(name), [number; 32]).expect("written");
        }
        let releases = ReleasesConfig { from: ReleasesFrom::Dir(dir.path().join("repository")), root: None };
        stage.world.repository = Some(Arc::new(Place::open(&releases, dir.path()).expect("opens")));
        stage.world.config = Arc::new(Config { data_dir: dir.path().to_owned(), releases: Some(releases), ..config() });
        stage.world.time = TimeSource::manual(ISSUED_AT);
        stage.customer("bank", &[("a", &["web"]), ("b", &[])]).await;
        stage.customer("city", &[("c", &[])]).await;
        stage
            .run(
                "INSERT INTO contacts (tenant_id, contact_id, site_id, name, email, phone, language)
                 VALUES ('bank', 'zhao', 'hall', 'Zhao', 'zhao@bank.example', '', 'en')",
            )
            .await;
        let reader = Reader::new(&stage.world).expect("readable").expect("set up");
        let shop = Self { stage, dir, reader };
        for appliance in ["a", "b"] {
            shop.runs("bank", appliance, "2.0.0").await;
        }
        shop
    }

    async fn runs(&self, tenant: &str, appliance: &str, version: &str) {
        let told = Installed {
            product: PRODUCT.to_owned(),
            version: version.to_owned(),
            hardware: "gw".to_owned(),
            patch_consent: "local".to_owned(),
            action_consent: "local".to_owned(),
        };
        let now = self.stage.world.time.now();
        let set = async {
            transact!(self.stage.world.db, Turn::Console, |tx| {
                Ok(reports::set_installed(tx, (tenant, appliance), &told, now).await?)
            });
            anyhow::Ok(())
        };
        set.await.expect("set");
    }

    /// What `publish` leaves behind for one file more.
    fn publish(&self, vendor: &Vendor, manifest: &Manifest) {
        let payload: &[u8] = if matches!(manifest.body, Body::Patch(_)) { b"payload" } else { b"" };
        let header = vendor.header(manifest).expect("a header");
        let metadata = self.dir.path().join("repository/metadata");
        let write = |name: String, bytes: &[u8]| std::fs::write(metadata.join(name), bytes).expect("written");
        write(format!("{}.root.json", vendor.root_version), &header.roots[0]);
        write(format!("{}.targets.json", vendor.targets_version), &header.targets);
        write(format!("{}.{PRODUCT}-offline.json", vendor.role_version), &header.role);
        let file = vendor.file(manifest, payload).expect("a file");
        std::fs::write(self.dir.path().join("repository/files").join(manifest.file_name()), file).expect("written");
    }

    async fn read(&self) {
        Arc::clone(&self.reader).once(&self.stage.world).await.expect("reads");
    }

    async fn file(&self, name: &str) -> ReleaseFile {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        files::get(&mut conn, name).await.expect("reads").expect("it is listed")
    }

    async fn offer(&self, wish: Wish) -> Result<String, NotOffered> {
        let li = staff("li", Role::SystemEngineer);
        let told = file_is_offered::offer(&self.stage.world, &li, None, &wish).await.expect("asks").expect("may");
        told.into_iter().next().expect("one").outcome
    }

    fn wish(&self, version: &str, appliance: &str) -> Wish {
        Wish { file: format!("{PRODUCT}-{version}.mpatch"), appliances: vec![appliance.to_owned()], ..Wish::default() }
    }

    async fn row(&self, offer_id: &str) -> OfferRow {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        offers::get(&mut conn, "bank", offer_id).await.expect("reads").expect("an offer")
    }

    async fn asked(&self, appliance: &str) -> Vec<Directive> {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        let key = ("bank".to_owned(), appliance.to_owned());
        let mut open =
            directives::open_of(&mut conn, std::slice::from_ref(&key), self.stage.world.time.now()).await.expect("reads");
        open.remove(&key).unwrap_or_default()
    }

    /// The box `a` tells of a step.
    async fn told(&self, report: &PatchReport) -> bool {
        let who = ArrivedFrom { tenant_id: "bank".into(), appliance_id: "a".into(), site_id: "hall".into() };
        let (world, now) = (&self.stage.world, self.stage.world.time.now());
        let taken = async {
            anyhow::Ok(transact!(world.db, Turn::Intake, |tx| {
                patch_is_reported(tx, &world.config, &who, report, Way::Online, (now, now)).await
            }))
        };
        taken.await.expect("taken")
    }

    async fn version_of_a(&self) -> String {
        let mut conn = self.stage.world.db.read().await.expect("reads");
        reports::installed(&mut conn, "bank", "a").await.expect("reads").expect("told").version
    }
}

fn report(number: u64, file: &ReleaseFile, step: PatchStep) -> PatchReport {
    let manifest = file.manifest.as_ref().expect("a manifest");
    PatchReport {
        number,
        offer_id: None,
        sha256: file.sha256.clone(),
        kind: manifest.kind(),
        product: PRODUCT.to_owned(),
        from_version: Some("2.0.0".to_owned()),
        to_version: manifest.version.to_string(),
        step,
        reason: String::new(),
        detail: String::new(),
        output: String::new(),
    }
}

async fn what_is_published_is_verified_listed_and_signed_for(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    let folder = shop.dir.path().join("repository/files");
    std::fs::write(folder.join("acme-gateway-9.mpatch"), b"MPATCH01 and nothing else").expect("written");
    let other = Vendor { targets: vec![17, 18, 19], ..Vendor::default() }.file(&patch("2.2.0"), b"payload").expect("a file");
    std::fs::write(folder.join("acme-gateway-2.2.0.mpatch"), other).expect("written");
    shop.read().await;
    assert_eq!(shop.file("acme-gateway-2.1.0.mpatch").await.state, FileState::Good);
    for (name, why) in [("acme-gateway-9.mpatch", "damaged"), ("acme-gateway-2.2.0.mpatch", "not signed")] {
        let refused = shop.file(name).await;
        assert!(refused.state == FileState::Refused && refused.refusal.contains(why), "{name}: {}", refused.refusal);
    }
    let newest = async |role| {
        let mut conn = shop.stage.world.db.read().await.expect("reads");
        files::newest_signed(&mut conn, role).await.expect("reads").expect("signed").version
    };
    assert_eq!((newest(Online::Snapshot).await, newest(Online::Timestamp).await), (1, 1));
    shop.read().await;
    assert_eq!((newest(Online::Snapshot).await, newest(Online::Timestamp).await), (1, 1), "nothing is due");
    shop.stage.later(13 * 3600);
    shop.read().await;
    assert_eq!((newest(Online::Snapshot).await, newest(Online::Timestamp).await), (1, 2), "half of its day is over");
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &patch("2.3.0"));
    let second = Reader::new(&shop.stage.world).expect("readable").expect("set up");
    second.once(&shop.stage.world).await.expect("passes");
    assert_eq!(newest(Online::Snapshot).await, 1, "another node leaves it to the holder of the lease");
    shop.stage.later(61);
    let second = Reader::new(&shop.stage.world).expect("readable").expect("set up");
    second.once(&shop.stage.world).await.expect("passes");
    assert_eq!((newest(Online::Snapshot).await, newest(Online::Timestamp).await), (2, 3), "which is over by now");
    std::fs::remove_file(folder.join("acme-gateway-2.1.0.mpatch")).expect("removed");
    Arc::clone(&Reader::new(&shop.stage.world).expect("readable").expect("set up"))
        .once(&shop.stage.world)
        .await
        .expect("passes");
    shop.stage.later(61);
    shop.read().await;
    assert_eq!(shop.file("acme-gateway-2.1.0.mpatch").await.state, FileState::Gone);
}

async fn signatures_that_end_are_told_of_twice(db: Db) {
    let shop = Shop::open(db).await;
    shop.stage
        .run(
            "INSERT INTO staff (staff_id, username, name, email, phone, role, language, password_hash, totp_secret, totp_last_step,
               failed_count, created_at) VALUES ('otto', 'otto', 'Otto', 'otto@vendor.example', '', 'operator', 'en', '', '', 0, 0, 0)",
        )
        .await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    let mails = async || {
        let mut conn = shop.stage.world.db.read().await.expect("reads");
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM outbox WHERE kind = 'expiry'")
            .fetch_one(&mut *conn)
            .await
            .expect("counts")
    };
    for (days, expected, why) in
        [(100, 0, "far away"), (45, 3, "25 days left: root, targets and role"), (1, 3, "told before"), (20, 6, "4 days left")]
    {
        shop.stage.later(days * 86_400);
        shop.read().await;
        shop.read().await;
        assert_eq!(mails().await, expected, "{why}");
    }
    shop.stage.later(10 * 86_400);
    assert_eq!(shop.offer(shop.wish("2.1.0", "a")).await, Err(NotOffered::Expired));
}

async fn an_offer_from_a_ticket_is_done_and_the_ticket_tells_it(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &program_action("restart-web-1", &["/bin/true"]));
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &patch("2.1.0"));
    shop.read().await;
    shop.stage.arrive("bank", "a", &[shop.stage.raised("service:web", "service_down")]).await;
    let from = |file: &str| Wish { file: file.to_owned(), ticket_id: "T-000001".into(), ..shop.wish("", "a") };
    let action = shop.offer(from("acme-gateway-restart-web-1.mpatch")).await.expect("offered");
    let offer = shop.offer(from("acme-gateway-2.1.0.mpatch")).await.expect("offered");
    assert_eq!(shop.offer(from("acme-gateway-2.1.0.mpatch")).await, Err(NotOffered::AlreadyOffered));
    let asked = shop.asked("a").await;
    let named = asked.iter().filter_map(|directive| match &directive.ask {
        Ask::Offered(offered) => Some((offered.offer_id.clone(), offered.kind)),
        _ => None,
    });
    let named: std::collections::BTreeMap<_, _> = named.collect();
    assert_eq!(named, [(action.clone(), PatchKind::Action), (offer.clone(), PatchKind::Patch)].into());
    let (world, now) = (&shop.stage.world, shop.stage.world.time.now());
    let progress = PatchProgress { offer_id: offer.clone(), step: PatchStep::Fetching, percent: 40 };
    let moved = async |of: &'static str| {
        anyhow::Ok(transact!(world.db, Turn::Intake, |tx| { patch_progresses(tx, ("bank", of), &progress, now).await }))
    };
    assert!(!moved("b").await.expect("asks"), "another box's word on it counts nothing");
    assert!(moved("a").await.expect("asks"));
    assert_eq!((shop.row(&offer).await.state, shop.row(&offer).await.percent), (OfferState::Box(PatchStep::Fetching), 40));
    let ran = shop.file("acme-gateway-restart-web-1.mpatch").await;
    assert!(
        shop.told(&PatchReport {
            offer_id: Some(action.clone()),
            output: "restarted".into(),
            ..report(1, &ran, PatchStep::Done)
        })
        .await
    );
    assert_eq!(shop.row(&action).await.state, OfferState::Box(PatchStep::Done));
    let file = shop.file("acme-gateway-2.1.0.mpatch").await;
    for (number, step) in [(4, PatchStep::Probation), (2, PatchStep::AwaitingWindow), (5, PatchStep::Done)] {
        let told = PatchReport { offer_id: Some(offer.clone()), ..report(number, &file, step) };
        assert!(shop.told(&told).await);
        assert!(!shop.told(&told).await, "the same again is known");
    }
    assert_eq!(shop.row(&offer).await.state, OfferState::Box(PatchStep::Done));
    assert_eq!(shop.version_of_a().await, "2.1.0");
    let tickets = shop.stage.tickets("bank").await;
    let steps = shop.stage.story(&tickets[0]).await.into_iter().filter(|kind| kind == "patch").count();
    assert_eq!((tickets.len(), steps), (1, 6), "two offers and four steps stand on the one ticket");
}

/// What the box says when a new version did not serve.
fn rolled_back(number: u64, file: &ReleaseFile) -> PatchReport {
    PatchReport {
        reason: "unhealthy".into(),
        detail: "web does not answer".into(),
        output: "migrating\nerror: table locked".into(),
        ..report(number, file, PatchStep::RolledBack)
    }
}

async fn a_patch_that_rolls_back_opens_a_ticket_and_is_not_offered_there_again(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &patch("2.1.1"));
    shop.read().await;
    let offer = shop.offer(shop.wish("2.1.0", "a")).await.expect("offered");
    let bad = shop.file("acme-gateway-2.1.0.mpatch").await;
    shop.told(&PatchReport { offer_id: Some(offer.clone()), ..rolled_back(3, &bad) }).await;
    assert_eq!(
        (shop.row(&offer).await.state, shop.version_of_a().await.as_str()),
        (OfferState::Box(PatchStep::RolledBack), "2.0.0")
    );
    let of_patch =
        |tickets: Vec<Ticket>| tickets.into_iter().find(|ticket| ticket.code == "patch_rolled_back").expect("a ticket");
    let ticket = of_patch(shop.stage.tickets("bank").await);
    assert_eq!((ticket.state, ticket.component.as_str()), (TicketState::Open, "patch:acme-gateway"));
    assert!(ticket.grounds.contains("table locked") && ticket.summary.contains("web does not answer"), "{}", ticket.grounds);
    assert_eq!(shop.offer(shop.wish("2.1.0", "a")).await, Err(NotOffered::FailedBefore));
    shop.offer(shop.wish("2.1.0", "b")).await.expect("the other box may try");
    shop.stage.later(60);
    shop.offer(shop.wish("2.1.1", "a")).await.expect("a mended one");
    let good = shop.file("acme-gateway-2.1.1.mpatch").await;
    shop.told(&report(9, &good, PatchStep::Done)).await;
    assert_eq!(of_patch(shop.stage.tickets("bank").await).state, TicketState::Recovered);
    assert_eq!(shop.version_of_a().await, "2.1.1");
    shop.told(&report(4, &bad, PatchStep::AwaitingConsent)).await;
    assert_eq!(shop.version_of_a().await, "2.1.1", "a report that comes late changes nothing");
}

async fn an_offer_is_taken_back_in_time_or_not_at_all(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let take_back =
        async |offer: &str| file_is_offered::take_back(&shop.stage.world, "staff:li", "bank", offer).await.expect("asks");
    let first = shop.offer(shop.wish("2.1.0", "a")).await.expect("offered");
    assert_eq!(take_back(&first).await, TakenBack::Done);
    assert_eq!(take_back(&first).await, TakenBack::TooLate);
    let asks: Vec<Ask> = shop.asked("a").await.into_iter().map(|directive| directive.ask).collect();
    assert_eq!(asks, [Ask::TakenBack { offer_id: first }], "what it never heard of, it hears no more");
    let second = shop.offer(shop.wish("2.1.0", "a")).await.expect("offered again");
    let file = shop.file("acme-gateway-2.1.0.mpatch").await;
    shop.told(&PatchReport { offer_id: Some(second.clone()), ..report(7, &file, PatchStep::Applying) }).await;
    assert_eq!(take_back(&second).await, TakenBack::TooLate);
    shop.offer(shop.wish("2.1.0", "b")).await.expect("offered");
    shop.stage.later(31 * 86_400);
    shop.read().await;
    let mut conn = shop.stage.world.db.read().await.expect("reads");
    let of_b = offers::of_appliance(&mut conn, "bank", "b", 9).await.expect("reads");
    assert_eq!(of_b[0].state, OfferState::Expired, "a box that was never heard");
    assert_eq!(
        offers::get(&mut conn, "bank", &second).await.expect("reads").expect("it").state,
        OfferState::Box(PatchStep::Applying)
    );
}

async fn what_the_vendor_withdraws_is_taken_back_everywhere(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let offer = shop.offer(shop.wish("2.1.0", "a")).await.expect("offered");
    let manifests = [shop.file("acme-gateway-2.1.0.mpatch").await.manifest_sha256].into();
    let withdrawal = manifest("withdrawn-1".into(), Version::new(1, 0, 0), Body::Withdrawal(Withdrawal { manifests }));
    shop.publish(&Vendor { role_version: 2, ..Vendor::default() }, &withdrawal);
    shop.read().await;
    assert_eq!(shop.file("acme-gateway-2.1.0.mpatch").await.state, FileState::Withdrawn);
    assert_eq!(shop.row(&offer).await.state, OfferState::TakenBack);
    assert!(matches!(shop.offer(shop.wish("2.1.0", "b")).await, Err(NotOffered::FileNotGood { .. })));
}

async fn out_of_warranty_a_patch_is_ordered_first(db: Db) {
    let shop = Shop::open(db).await;
    shop.publish(&Vendor::default(), &patch("2.1.0"));
    shop.read().await;
    let over = Entitlement { software_until_at: Some(UnixMs(1)), ..Entitlement::default() };
    for appliance in ["a", "b"] {
        act(&shop.stage.world, "staff:otto", ("bank", appliance), &ApplianceAct::Entitle(over.clone())).await.expect("acts");
    }
    assert_eq!(shop.offer(shop.wish("2.1.0", "b")).await, Err(NotOffered::Charged));
    let offer = shop.offer(Wish { ordered: true, ..shop.wish("2.1.0", "b") }).await.expect("ordered");
    assert_eq!(shop.row(&offer).await.terms, "charged_ordered");
    shop.stage.arrive("bank", "a", &[shop.stage.raised("service:web", "service_down")]).await;
    let offer = shop.offer(shop.wish("2.1.0", "a")).await.expect("a security fix during a critical fault");
    assert_eq!(shop.row(&offer).await.terms, "charged_quoted");
}

#[test]
fn a_poll_without_patches_reads_as_before() {
    let poll: PollRequest = serde_json::from_str(
        r#"{"version":1,"epoch":"00000000000000000000000000000000","sent_at":0,"wait_s":0,"values":{},"services":{},"backlog":0}"#,
    )
    .expect("a poll of an older agent");
    assert!(poll.patches.is_empty());
}
