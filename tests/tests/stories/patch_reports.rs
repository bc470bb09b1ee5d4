//! What the vendor hears of a signed file where something went wrong on its way: a helper that lost its memory, a file that can't be had,
//! a word spoken to the helper on the box. Same play as `patches`.

use std::fs;

use anyhow::{Context as _, Result};
use e2e::packing::packing;
use e2e::patience::{A_WHILE, eventually};
use e2e::vendor::Vendor;
use mainstay_patchkit::crypto::sha256;
use mainstay_patchkit::manifest::{Body, Manifest, Withdrawal};
use mainstay_patchkit::sample::tree_patch;
use semver::Version;

use crate::play::Play;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_box_tells_goes_on_though_its_helper_has_lost_its_memory() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    for version in [Version::new(2, 1, 0), Version::new(2, 2, 0)] {
        let file = play.publishes(version.clone(), version.to_string().as_bytes()).await?;
        let offer = Play::offer_id(&play.offers(&file).await?)?;
        let sha256 = play.patched.waits("patch").await?["sha256"].as_str().context("a hash")?.to_owned();
        play.patched.administrator(&["patch", "apply", &sha256, "--now"]).await?.good().with_context(|| play.patched.logs())?;
        play.offer_stands(&offer, "done").await?;
        play.patched.kill();
        fs::remove_dir_all(play.patched.state_dir())?;
        play.patched.start().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_box_gives_up_is_told_with_its_reason_and_a_refusal_on_the_box_is_told_at_once() -> Result<()> {
    let mut play = Play::begins("", "max_bytes = \"1MiB\"").await?;
    let mut large = vec![0; 2 << 20];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut large).map_err(|_| anyhow::anyhow!("random"))?;
    let file = play.publishes(Version::new(2, 1, 0), &large).await?;
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    let told = play.offer_stands(&offer, "refused").await?;
    assert_eq!(told["reason"], "not_fetched", "{told:#}");
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("patches.max_bytes")), "{told:#}");

    let file = play.publishes(Version::new(2, 2, 0), b"small").await?;
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    play.offer_stands(&offer, "awaiting_consent").await?;
    let sha256 = play.patched.waits("patch").await?["sha256"].as_str().context("a hash")?.to_owned();
    // Nobody looks at a file that waits for a consent: the command calls the agent.
    play.patched.administrator(&["patch", "refuse", &sha256, "--reason", "not this week"]).await?.good()?;
    let told = play.offer_stands(&offer, "refused").await?;
    assert_eq!(told["reason"], "refused_by_customer", "{told:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_counts_on_a_box_to_which_nothing_was_offered() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    let new = packing("/bin/sleep", b"new")?;
    let patch = tree_patch(Version::new(2, 1, 0), &new.packed);
    let manifests = [hex::encode(sha256(&serde_json::to_vec_pretty(&patch)?))].into();
    let withdrawal =
        Manifest { body: Body::Withdrawal(Withdrawal { manifests }), ..Vendor::action("withdrawn-1", &["/bin/true"]) };
    let file = play.vendor.publish(&withdrawal, &[])?;
    play.is_listed(&file).await?;
    // By somebody who packed it anew: with metadata from before the withdrawal it would be refused as older than what is trusted.
    let (name, bytes) = play.vendor.signed(&patch, &new.bytes)?;
    let stick = play.patched.file(&name);
    fs::write(&stick, bytes)?;
    let stick = stick.display().to_string();
    play.patched.administrator(&["patch", "verify", &stick]).await?.good()?;
    // It asks for what is new when it starts, and once a day.
    play.patched.agent()?.stop().await?;
    play.patched.agent()?.start()?;
    let told = eventually("the box to know of the withdrawal", A_WHILE, async || {
        let told = play.patched.administrator(&["patch", "verify", &stick]).await?;
        Ok((told.code != 0).then_some(told.stderr))
    })
    .await
    .with_context(|| play.patched.logs())?;
    assert!(told.contains("(withdrawn)"), "{told}");
    Ok(())
}
