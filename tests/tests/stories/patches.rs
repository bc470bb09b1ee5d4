//! Signed files, from the vendor's keys to the running version and back: by link, by hand, with bad versions, bad codes and bad lines.
//! The real agent without rights, the real helper as root, the real collector. Without root they fail.

mod bucket;

use anyhow::{Context as _, Result};
use e2e::packing::packing;
use e2e::patience::{A_WHILE, eventually};
use e2e::vendor::Vendor;
use mainstay_patchkit::sample::tree_patch;
use ring::rand::SecureRandom as _;
use semver::Version;
use serde_json::Value;

use crate::play::Play;

/// What no packer makes smaller.
fn noise(bytes: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; bytes];
    ring::rand::SystemRandom::new().fill(&mut noise).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(noise)
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
