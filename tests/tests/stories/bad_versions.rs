//! Versions that crash, hang, eat memory or break the service: each is offered, put in place, and gone by itself; the version before runs
//! again, the vendor is told why, and has one ticket about the product's patches, which they join while it is open. Same play as `patches`.

use anyhow::{Context as _, Result, ensure};
use e2e::packing::{memory_hog, packing};
use e2e::patience::{A_WHILE, eventually};
use mainstay_patchkit::manifest::Body;
use mainstay_patchkit::sample::tree_patch;
use semver::Version;
use serde_json::Value;

use crate::play::Play;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_crashes_hangs_eats_memory_or_breaks_the_service_goes_back_by_itself_with_one_ticket() -> Result<()> {
    let mut play = Play::begins("[consent]\npatch = \"automatic\"", "").await?;
    let bad = [
        ("crashes", packing("/bin/false", b"new")?),
        ("hangs", packing("/bin/sleep", b"hangs")?),
        ("eats memory", memory_hog()?),
        ("breaks the service", packing("/bin/sleep", b"broken")?),
    ];
    for (number, (what, packing)) in (1..).zip(bad) {
        let mut manifest = tree_patch(Version::new(2, number, 0), &packing.packed);
        if let Body::Patch(patch) = &mut manifest.body {
            // Longer than the memory lasts, and looked at all along.
            (patch.health.deadline_s, patch.health.consecutive_ok) = (10, 6);
        }
        let file = play.vendor.publish(&manifest, &packing.bytes)?;
        play.is_listed(&file).await?;
        let offer = Play::offer_id(&play.offers(&file).await?)?;
        let stands = play.offer_stands(&offer, "rolled_back").await.context(what)?;
        ensure!(stands["reason"] == "unhealthy", "{what}: {stands:#}");
        ensure!(play.patched.judge(("", "")).await.context(what)? == "old", "{what}");
        ensure!(play.patched.service_state() == "up", "{what}: the service of the version before runs");
        let tickets = eventually("a ticket", A_WHILE, async || {
            let tickets = about_patches(&play).await?;
            Ok((!tickets.is_empty()).then_some(tickets))
        });
        let tickets = tickets.await.context(what)?;
        ensure!(tickets.len() == 1, "{what}: {tickets:#?}");
    }
    Ok(())
}

async fn about_patches(play: &Play) -> Result<Vec<Value>> {
    let tickets = play.scene.desk.tickets().await?;
    Ok(tickets
        .into_iter()
        .filter(|ticket| ticket["component"].as_str().is_some_and(|about| about.starts_with("patch")))
        .collect())
}
