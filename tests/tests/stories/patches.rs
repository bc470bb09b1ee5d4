//! Signed files, from the vendor's keys to the running version and back: by link, by hand, with bad versions, bad codes and bad lines.
//! The real agent without rights, the real helper as root, the real collector. Without root they fail.

mod bucket;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::packing::packing;
use e2e::patch_box::PatchBox;
use e2e::patience::{A_WHILE, eventually};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::vendor::Vendor;
use mainstay_patchkit::sample::tree_patch;
use reqwest::Client;
use ring::rand::SecureRandom as _;
use semver::Version;
use serde_json::{Value, json};

use crate::scene::Scene;

/// What no packer makes smaller.
fn noise(bytes: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; bytes];
    ring::rand::SystemRandom::new().fill(&mut noise).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(noise)
}

/// A vendor, its collector with mail, and one box.
struct Play {
    scene: Scene,
    vendor: Vendor,
    post: ScriptedMailServer,
    patched: PatchBox,
    appliance: String,
    engineer: Desk,
}

impl Play {
    async fn begins(helper: &str, patches: &str) -> Result<Self> {
        let post = ScriptedMailServer::start(Mood::Accepts).await?;
        let mail = Some(MailWay { port: post.port(), ca_file: None });
        let settings = Settings { mail, releases: true, ..Settings::default() };
        Self::at(Collector::founded(Engine::Sqlite, settings).await?, post, helper, patches).await
    }

    /// At a collector that was founded, whose mails go to `post`.
    async fn at(mut collector: Collector, post: ScriptedMailServer, helper: &str, patches: &str) -> Result<Self> {
        // A node reads its online keys when it starts.
        let vendor = Vendor::of(&collector).await?;
        collector.start().await?;
        let scene = Scene { desk: Desk::of(&collector).await?, collector };
        let lin = scene.collector.account("lin", "system_engineer").await?;
        let engineer = Desk::of_account(&scene.collector.web_url(), &lin).await?;
        let patched = PatchBox::enrolled(&scene.collector.join_string(&[]).await?, &vendor.root, helper, patches).await?;
        let mut play = Self { scene, vendor, post, patched, appliance: String::new(), engineer };
        play.appliance = eventually("the box to say what runs on it", A_WHILE, async || {
            let boxes = play.scene.desk.list("/appliances").await?;
            let Some(id) = boxes.first().and_then(|one| one["id"].as_str().or(one["appliance_id"].as_str())) else {
                return Ok(None);
            };
            let told = play.scene.desk.get(&format!("/appliances/{id}/patches")).await?;
            Ok((told["installed"]["version"] == "2.0.0").then(|| id.to_owned()))
        })
        .await
        .with_context(|| play.patched.logs())?;
        Ok(play)
    }

    /// Publishes a version; the file's name. Its service answers unless `content` begins with `broken`.
    async fn publishes(&mut self, version: Version, content: &[u8]) -> Result<String> {
        let file = self.vendor.publish_patch(version, &packing("/bin/sleep", content)?)?;
        self.is_listed(&file).await?;
        Ok(file)
    }

    async fn is_listed(&self, file: &str) -> Result<()> {
        eventually("the collector to find the file good", A_WHILE, async || {
            let listed = self.scene.collector.command(&["releases", "list"]).await?.stdout;
            Ok(listed.lines().any(|line| line.contains(file) && line.contains("good")).then_some(()))
        })
        .await
    }

    /// Offers a file to the box; what the collector answers.
    async fn offers(&self, file: &str) -> Result<Value> {
        let wish = json!({"appliances": [self.appliance], "ordered": true, "mail": true});
        let told = self.engineer.post(&format!("/releases/{file}/offers"), &wish).await?;
        Ok(told[0].clone())
    }

    async fn offer_stands(&self, offer: &str, state: &str) -> Result<Value> {
        let path = format!("/appliances/{}/patches", self.appliance);
        let mut seen = Value::Null;
        eventually(&format!("the offer to be {state}"), A_WHILE, async || {
            seen = self.scene.desk.get(&path).await?;
            let offers = seen["offers"].as_array().cloned().unwrap_or_default();
            Ok(offers.into_iter().find(|one| one["offer_id"] == offer && one["state"] == state))
        })
        .await
        .with_context(|| format!("{seen:#}\n{}", self.patched.logs()))
    }

    /// The page that the mail of the newest offer leads to.
    async fn link(&self) -> Result<String> {
        eventually("a mail with a link", A_WHILE, async || {
            let mails = self.post.taken();
            let text = mails.iter().rev().find_map(|taken| {
                let at = taken.mail.text.find("/p/")?;
                Some(taken.mail.text[at..].split(|c: char| c.is_whitespace() || c == '>' || c == '?').next()?.to_owned())
            });
            Ok(text.map(|path| format!("{}{path}", self.scene.collector.web_url())))
        })
        .await
    }

    async fn types(&self, link: &str, verb: &str, fields: &[(&str, &str)]) -> Result<String> {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let origin = self.scene.collector.web_url();
        let form = fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let request = client.post(format!("{link}/{verb}")).header("Origin", origin).body(form);
        let answer = request.header("Content-Type", "application/x-www-form-urlencoded").send().await?;
        Ok(format!("{} {:?}", answer.status(), answer.headers().get("location")))
    }

    fn offer_id(offered: &Value) -> Result<String> {
        Ok(offered["offer_id"].as_str().with_context(|| format!("an offer: {offered}"))?.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_approved_at_its_link_with_the_boxs_code_is_installed_and_a_bad_one_goes_back_by_itself() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    let file = play.publishes(Version::new(2, 1, 0), b"new").await?;
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    let link = play.link().await?;
    let code = play.patched.code("patch").await?;
    play.offer_stands(&offer, "awaiting_consent").await?;

    let wrong = if code == "000000" { "111111" } else { "000000" };
    play.types(&link, "approve", &[("offer", &offer), ("code", wrong)]).await?;
    let told = eventually("the page to be told of the wrong code", A_WHILE, async || {
        let offer = play.offer_stands(&offer, "awaiting_consent").await?;
        Ok((offer["reason"] == "wrong_code").then_some(offer))
    });
    told.await.with_context(|| play.patched.logs())?;
    assert_eq!(play.patched.content()?, "old", "a wrong code changes nothing");

    let said = play.types(&link, "approve", &[("offer", &offer), ("code", &code)]).await?;
    play.offer_stands(&offer, "done").await.context(said)?;
    assert_eq!(play.patched.content()?, "new", "the new version runs");

    let bad = play.publishes(Version::new(2, 2, 0), b"broken").await?;
    let offer = Play::offer_id(&play.offers(&bad).await?)?;
    let sha256 = play.patched.waits("patch").await?["sha256"].as_str().context("a hash")?.to_owned();
    play.patched.administrator(&["patch", "apply", &sha256[..12]]).await?;
    play.offer_stands(&offer, "rolled_back").await?;
    assert_eq!(play.patched.content()?, "new", "the version before runs");
    eventually("one ticket about the patch", A_WHILE, async || Ok((!play.scene.desk.tickets().await?.is_empty()).then_some(())))
        .await?;
    let again = play.offers(&bad).await?;
    assert!(again["offer_id"].is_null(), "it failed there and is not offered again: {again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_cut_off_in_the_middle_of_a_file_goes_on_where_it_was() -> Result<()> {
    let mut play = Play::begins("[consent]\npatch = \"automatic\"", "max_kib_per_s = 1024").await?;
    let file = play.publishes(Version::new(2, 1, 0), &noise(8 << 20)?).await?;
    let before = play.scene.collector.link.bytes_passed();
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    eventually("a part of it to be here", A_WHILE, async || {
        Ok((play.scene.collector.link.bytes_passed() > before + (3 << 20)).then_some(()))
    })
    .await
    .with_context(|| play.patched.logs())?;
    play.scene.collector.link.cut();
    play.patched.agent()?.kill()?;
    play.patched.agent()?.start()?;
    play.scene.collector.link.restore();
    play.offer_stands(&offer, "done").await?;
    let passed = play.scene.collector.link.bytes_passed() - before;
    assert!(passed < 13 << 20, "what was there was not fetched again: {passed} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_carried_on_a_stick_is_installed_and_its_receipt_tells_the_vendor() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    let new = packing("/bin/sleep", b"new")?;
    let (name, bytes) = play.vendor.signed(&tree_patch(Version::new(2, 1, 0), &new.packed), &new.bytes)?;
    play.scene.collector.link.cut();
    let stick = play.patched.file(&name);
    std::fs::write(&stick, bytes)?;
    let applied = play.patched.administrator(&["patch", "apply", &stick.display().to_string(), "--now"]).await?;
    assert_eq!(applied.code, 0, "{}{}\n{}", applied.stdout, applied.stderr, play.patched.logs());
    assert_eq!(play.patched.content()?, "new");
    let out = play.patched.file("box.mreceipt");
    play.patched.administrator(&["patch", "receipt", "--out", &out.display().to_string()]).await?.good()?;

    let receipt: Value = serde_json::from_str(&std::fs::read_to_string(&out)?)?;
    let read = play.engineer.post("/receipts", &receipt).await?;
    assert_eq!(read["reports"], 1, "{read}");
    let told = play.scene.desk.get(&format!("/appliances/{}/patches", play.appliance)).await?;
    assert_eq!(told["installed"]["version"], "2.1.0", "{told:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_runs_once_where_the_customer_said_automatic_and_a_patch_waits_where_they_said_local() -> Result<()> {
    let mut play = Play::begins("[consent]\naction = \"automatic\"", "").await?;
    let mark = play.patched.file("mark").display().to_string();
    let action = Vendor::action("leave-mark-1", &["/bin/sh", "-c", &format!("echo ran >> {mark}")]);
    let file = play.vendor.publish(&action, &[])?;
    play.is_listed(&file).await?;
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    play.offer_stands(&offer, "done").await?;
    assert_eq!(std::fs::read_to_string(&mark)?, "ran\n");

    let patch = play.publishes(Version::new(2, 1, 0), b"new").await?;
    let offer = Play::offer_id(&play.offers(&patch).await?)?;
    play.offer_stands(&offer, "awaiting_consent").await?;
    let link = play.link().await?;
    for guess in ["100000", "200000", "300000", "400000", "500000", "600000"] {
        play.types(&link, "approve", &[("offer", &offer), ("code", guess)]).await?;
    }
    let code = play.patched.code("patch").await;
    assert_eq!(play.patched.content()?, "old", "nothing changes without the code: {code:?}");
    Ok(())
}
