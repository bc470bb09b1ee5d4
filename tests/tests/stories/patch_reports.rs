//! What the vendor hears of a signed file where something went wrong on its way: a helper that lost its memory, a file that can't be had,
//! a word spoken to the helper on the box. Same play as `patches`.

use std::fs;

use anyhow::{Context as _, Result};
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
