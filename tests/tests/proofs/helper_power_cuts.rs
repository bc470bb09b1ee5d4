//! The power is cut under the real helper while it takes, installs, watches and goes back: a real ext4 and a real xfs, shut down without a
//! log flush, mounted anew. Wholly old or wholly new, truthfully told, and the next good version installs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::loop_disk::{Kind, LoopDisk};
use e2e::patch_box::{PatchBox, packing, sha256_of, signed_patch};
use e2e::patience::{SOON, eventually};
use mainstay_patchkit::manifest::Body;
use serde_json::json;

use crate::lab::{Dice, Scale, replay};

/// The latest moment of a cut after the installation began.
const LATEST_US: u64 = 400_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_ext4_leave_the_old_or_the_new() {
    prove("power_cuts_on_ext4_leave", "helper-power-cuts-ext4", Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_xfs_leave_the_old_or_the_new() {
    prove("power_cuts_on_xfs_leave", "helper-power-cuts-xfs", Kind::Xfs).await;
}

async fn prove(name: &str, part: &str, kind: Kind) {
    let scale = Scale::from_environment();
    let (seeds, cuts) = if scale.whole { (scale.seeds(10, 1), 10) } else { (scale.seeds(1, 1), 3) };
    let mut points = 0;
    for &seed in &seeds {
        points += replay(name, seed, cut_again_and_again(kind, seed, cuts).await);
        println!("progress: {name} seed {seed}: {points} cuts so far");
    }
    println!("soak: part={part} points={points} seeds={} losses=0", seeds.len());
}

async fn cut_again_and_again(kind: Kind, seed: u64, cuts: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    for cut in 0..cuts {
        let mut disk = LoopDisk::mount(kind)?;
        let mut patched = PatchBox::set_up(Some(&disk.path()), "")?;
        patched.start().await?;
        let bad = dice.below(3) == 0;
        let program = if bad { "/bin/false" } else { "/bin/sleep" };
        let packed = packing(program, &vec![7; 200_000])?;
        let file = signed_patch("2.1.0", &packed, |manifest| {
            if let Body::Patch(patch) = &mut manifest.body {
                patch.health.deadline_s = 1;
            }
        })?;
        let after = Duration::from_micros(dice.below(LATEST_US));
        let (_, cut_off) = tokio::join!(tokio::time::timeout(Duration::from_secs(2), patched.apply(&file)), async {
            tokio::time::sleep(after).await;
            disk.cut_power()
        });
        cut_off?;
        let what = format!("cut {cut} of seed {seed}, {after:?} into a {} version", if bad { "bad" } else { "good" });
        power_up(&mut patched, &mut disk).await.with_context(|| what.clone())?;
        if dice.below(2) == 0 {
            // A second cut, in the recovery.
            let (_, cut_off) = tokio::join!(patched.start(), async {
                tokio::time::sleep(Duration::from_micros(dice.below(60_000))).await;
                disk.cut_power()
            });
            cut_off?;
            power_up(&mut patched, &mut disk).await.with_context(|| what.clone())?;
        }
        patched.start_service()?;
        patched.start().await.with_context(|| what.clone())?;
        settle(&patched, &packed.packed.tree_sha256).await.with_context(|| format!("{what}\n{}", patched.log()))?;
        let next = packing("/bin/sleep", b"next")?;
        let told =
            patched.apply(&signed_patch("2.2.0", &next, |_| ())?).await.with_context(|| format!("{what}\n{}", patched.log()))?;
        ensure!(told["step"] == "done", "{what}: the next good version: {told}");
        patched.kill();
        patched.stop_service()?;
    }
    Ok(cuts)
}

/// With the power everything ends that ran; what the helper had just started is gone a moment after it.
async fn power_up(patched: &mut PatchBox, disk: &mut LoopDisk) -> Result<()> {
    patched.kill();
    eventually("the disk to be let go of", SOON, async || {
        patched.stop_service()?;
        disk.power_up().map(Some)
    })
    .await
}

async fn settle(patched: &PatchBox, tree_sha256: &str) -> Result<()> {
    let list = patched.ask(0, json!({"verb": "list"}), None).await?;
    if let Some(known) = list.as_array().and_then(|files| files.first())
        && matches!(known["step"].as_str(), Some("probation" | "applying"))
    {
        patched.follow(&sha256_of(known)?).await?;
    }
    patched.judge(("2.1.0", tree_sha256)).await?;
    Ok(())
}
