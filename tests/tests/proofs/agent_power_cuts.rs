//! The power is cut under the real agent while it accepts and is acknowledged: a real ext4 and a real xfs, shut down without a
//! log flush, mounted anew. What the agent had said to be accepted is there exactly once; nothing else is asked of a power cut.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::injection::Injection;
use e2e::loop_disk::{Kind, LoopDisk, are_apart};
use e2e::process::{freeze, send};
use rustix::process::Signal;

use crate::lab::{Dice, Lab, Scale, replay};

/// The latest moment of a cut after its run began.
const LATEST_US: u64 = 250_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_ext4_cost_nothing_accepted() {
    prove("power_cuts_on_ext4", "agent-power-cuts-ext4", Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_xfs_cost_nothing_accepted() {
    prove("power_cuts_on_xfs", "agent-power-cuts-xfs", Kind::Xfs).await;
}

async fn prove(name: &str, part: &str, kind: Kind) {
    let scale = Scale::from_environment();
    let (seeds, cuts) = if scale.whole { (scale.seeds(10, 1), 10) } else { (scale.seeds(1, 1), 4) };
    let mut points = 0;
    for &seed in &seeds {
        points += replay(name, seed, cut_again_and_again(kind, seed, cuts).await);
        println!("progress: {name} seed {seed}: {points} cuts so far");
    }
    println!("soak: part={part} points={points} seeds={} losses=0", seeds.len());
}

/// One disk whose power is cut `cuts` times, each time at another moment and under another kind of collector.
async fn cut_again_and_again(kind: Kind, seed: u64, cuts: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let mut disk = LoopDisk::mount(kind)?;
    let mut lab = Lab::set(Some(&disk.path())).await?;
    anyhow::ensure!(are_apart(&disk.path(), lab.side())?, "the side log must not lie on the disk that is cut");
    // The enrolment is as durable as a fault: the one-use secret is spent.
    disk.cut_power()?;
    disk.power_up()?;
    lab.start().await.context("the first start, after a cut just behind the enrolment")?;
    for cut in 1..cuts {
        lab.ledger.be_away(dice.below(2) == 0);
        lab.ledger.lose_every([0, 2, 3][usize::try_from(dice.below(3))?]);
        let after = Duration::from_micros(dice.below(LATEST_US));
        let told = lab.accepted.len();
        tell_until_cut(&mut lab, &disk, after, dice.below(2) == 0).await?;
        lab.agent.kill()?;
        disk.power_up()?;
        let what = format!("cut {cut} of seed {seed}, {after:?} into its run, {} accepted in it", lab.accepted.len() - told);
        lab.start().await.with_context(|| format!("the start after {what}"))?;
        lab.judge(&what).await?;
    }
    lab.settle("the last cut").await?;
    Ok(cuts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let losses = on_a_lying_disk().await.expect("the proof of the proof runs");
    assert!(losses.iter().any(|loss| loss.contains("is lost")), "the oracle must see what a lying disk costs: {losses:?}");
}

/// The same cut over a disk that syncs nothing and says that it did.
async fn on_a_lying_disk() -> Result<Vec<String>> {
    let mut disk = LoopDisk::mount(Kind::Ext4)?;
    let mut lab = Lab::set(Some(&disk.path())).await?;
    lab.start().await?;
    lab.ledger.be_away(true);
    let pid = lab.agent.process()?.pid();
    let lie =
        Injection { call: "fdatasync,fsync".into(), tampering: "retval=0".into(), when: "1+".into(), paths: lab.queue_paths() };
    let tracer = lie.attach(pid, "spool", lab.side()).await?;
    anyhow::ensure!(lab.tell_until_refused(5).await? == 5, "nothing hinders it from accepting");
    // The lie lasts until the power goes: one honest sync behind it would save everything before.
    disk.cut_power()?;
    lab.agent.kill()?;
    drop(tracer);
    disk.power_up()?;
    lab.losses().await
}

/// Tells numbered faults without a pause until the power goes, and the agent with it. `noise`: another program syncs beside it,
/// so that what the agent has half done reaches the disk in pieces.
///
/// The agent stands still when the cut comes: ext4 lets an fdatasync that is under way during this ioctl return success
/// (docs/reliability.md), which no real cut does.
async fn tell_until_cut(lab: &mut Lab, disk: &LoopDisk, after: Duration, noise: bool) -> Result<()> {
    let (agent, is_cut) = (lab.agent.process()?.pid(), Arc::new(AtomicBool::new(false)));
    let other = noise.then(|| {
        let (path, until) = (disk.path().join("other"), Arc::clone(&is_cut));
        std::thread::spawn(move || make_noise(&path, &until))
    });
    let telling = async {
        while !is_cut.load(Ordering::SeqCst) {
            lab.tell().await?;
        }
        Ok(())
    };
    let cutting = async {
        tokio::time::sleep(after).await;
        let done = freeze(agent).await.and_then(|()| disk.cut_power());
        is_cut.store(true, Ordering::SeqCst);
        send(agent, Signal::KILL)?;
        done
    };
    let (told, cut): (Result<()>, Result<()>) = tokio::join!(telling, cutting);
    if let Some(other) = other {
        other.join().map_err(|_| anyhow::anyhow!("the other program crashed"))?;
    }
    cut?;
    told
}

/// Appends and syncs until the disk is gone.
fn make_noise(path: &Path, until: &AtomicBool) {
    let Ok(mut file) = std::fs::File::create(path) else { return };
    while !until.load(Ordering::SeqCst) && file.write_all(&[7; 700]).and_then(|()| file.sync_all()).is_ok() {}
}
