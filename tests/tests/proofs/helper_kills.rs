//! SIGKILL of the real helper before each of its file-system calls while it takes and installs, and again while it recovers. A kill keeps
//! the page cache, so this proves the order of steps; `helper_power_cuts` proves durability.

use anyhow::{Context as _, Result, ensure};
use e2e::packing::{packing, signed_patch};
use e2e::patch_box::{PatchBox, sha256_of};
use e2e::patience::eventually;
use e2e::process::{Daemon, tied};
use serde_json::json;
use std::time::Duration;

use crate::lab::{Dice, Scale, replay};

/// Every call by which the helper changes a file system, or hands a step on.
const CALLS: &[&str] = &[
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "getdents64",
    "readlink",
    "readlinkat",
    "statx",
    "pread64",
    "read",
    "clone",
    "clone3",
    "execve",
    "pipe2",
    "close",
];
/// Of these the slice takes its points, each within so many of its calls.
const CHANGING: &[(&str, u64)] =
    &[("openat", 12), ("fsync", 3), ("fsync", 10), ("syncfs", 1), ("rename", 2), ("rename", 5), ("symlink", 1), ("clone3", 1)];

fn strace(call: &str, when: u64) -> Vec<String> {
    let words = ["-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e"];
    let mut words: Vec<_> = words.map(str::to_owned).to_vec();
    words.extend([format!("trace={call}"), "-e".into(), format!("inject={call}:signal=SIGKILL:when={when}")]);
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_the_helper_before_any_call_leaves_the_old_or_the_new() {
    let scale = Scale::from_environment();
    let seeds = scale.seeds(2, 1);
    let mut points = 0;
    for &seed in &seeds {
        points += replay("a_kill_of_the_helper_before_any_call", seed, sweep(seed, scale.whole).await);
    }
    println!("soak: part=helper-kills points={points} seeds={} losses=0", seeds.len());
}

async fn sweep(seed: u64, whole: bool) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let mut points = 0;
    if !whole {
        for (call, within) in CHANGING {
            let when = 1 + dice.below(*within);
            points += u64::from(point(call, when, &mut dice).await.with_context(|| told(call, when))?);
        }
        ensure!(points >= 4, "only {points} kills happened: the calls have changed, see CHANGING");
        return Ok(points);
    }
    for call in CALLS {
        let mut when = 1;
        while when < most_of(call) && point(call, when, &mut dice).await.with_context(|| told(call, when))? {
            points += 1;
            // Calls that come often are sampled further on.
            when += 1 + when / 8;
        }
        println!("progress: seed {seed} {call}: {points} kills so far");
    }
    Ok(points)
}

/// A look at what runs reads the link of every process: a kill in one is like a kill in the next.
fn most_of(call: &str) -> u64 {
    if matches!(call, "readlink" | "readlinkat") { 24 } else { 400 }
}

fn told(call: &str, when: u64) -> String {
    format!("a kill before {call} number {when}, then another in the recovery")
}

/// One installation with a kill in it, one or two starts with a kill in them, then to the end. Whether the first kill struck.
async fn point(call: &str, when: u64, dice: &mut Dice) -> Result<bool> {
    let mut patched = PatchBox::set_up(None, "")?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |_| ())?;
    patched.start().await?;
    let tracer = attach(patched.pid().context("a helper")?, &strace(call, when)).await?;
    let ended = patched.apply(&file).await;
    let killed = match ended {
        Ok(_) => !patched.runs()?,
        // It may take a moment to be gone; or one of its steps was killed, and it goes on.
        Err(_) => eventually("its end", Duration::from_secs(2), async || Ok((!patched.runs()?).then_some(()))).await.is_ok(),
    };
    drop(tracer);
    println!("progress: {call} number {when}: {}", if killed { "killed" } else { "went on" });
    for _ in 0..dice.below(3) {
        let again = ["openat", "write", "rename", "fsync", "clone3"][usize::try_from(dice.below(5))?];
        // Under strace it may die before it answers, or go on.
        patched.start_under(&strace(again, 20 + dice.below(80))).await?;
    }
    patched.start().await?;
    settle(&patched, &file, &good.packed.tree_sha256).await.with_context(|| patched.log())?;
    patched.judge(("2.1.0", &good.packed.tree_sha256)).await.with_context(|| patched.log())?;
    Ok(killed)
}

/// To where nothing is under way any more; a file that was lost with the kill is handed over anew.
async fn settle(patched: &PatchBox, file: &[u8], tree_sha256: &str) -> Result<()> {
    let list = patched.ask(0, json!({"verb": "list"}), None).await?;
    let under_way = list.as_array().and_then(|files| files.first().cloned());
    if let Some(known) = &under_way
        && matches!(known["step"].as_str(), Some("probation" | "applying"))
    {
        patched.follow(&sha256_of(known)?).await?;
    }
    patched.judge(("2.1.0", tree_sha256)).await.with_context(|| patched.log())?;
    let known = patched.ask(0, json!({"verb": "list"}), None).await?;
    let over =
        known.as_array().is_some_and(|files| files.iter().any(|file| file["step"] == "done" || file["step"] == "rolled_back"));
    if !over {
        let told = patched.apply(file).await?;
        ensure!(told["step"] == "done", "after the kills the same file installs: {told}");
    }
    Ok(())
}

async fn attach(pid: u32, strace: &[String]) -> Result<Daemon> {
    let mut command = tied("strace");
    command.args(strace).arg("-p").arg(pid.to_string());
    let log = tempfile::NamedTempFile::new()?;
    let mut tracer = Daemon::start("strace", command, log.path())?;
    eventually("strace to be attached", Duration::from_secs(30), async || {
        // It ends well when what it traces has ended: the kill has struck already.
        if tracer.ended()?.is_some_and(|end| end.success()) {
            return Ok(Some(()));
        }
        tracer.must_run()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok((!status.contains("TracerPid:\t0\n")).then_some(()))
    })
    .await?;
    Ok(tracer)
}
