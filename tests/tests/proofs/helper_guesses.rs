//! Codes guessed by whoever holds the collector: the real helper as root, signed files packed anew and offered again without end.
//!
//! A file brings a fresh code, and five wrong ones end it; whoever may bring files without end must not get guesses without end.

use anyhow::{Context as _, Result, ensure};
use e2e::packing::packing;
use e2e::patch_box::{PatchBox, REPORTER, sha256_of};
use mainstay_patchkit::file::Header;
use mainstay_patchkit::sample::{Vendor, program_action, tree_patch, whole};
use serde_json::{Value, json};

async fn running(more: &str) -> Result<PatchBox> {
    let mut patched = PatchBox::set_up(None, more)?;
    patched.start().await?;
    Ok(patched)
}

fn offer(number: usize) -> String {
    format!("{number:032x}")
}

async fn taken(patched: &PatchBox, number: usize, file: &[u8]) -> Result<Value> {
    patched.ask(REPORTER, json!({"verb": "take", "offer_id": offer(number)}), Some(file)).await
}

/// Types `code` for the file; what the box says.
async fn types(patched: &PatchBox, sha256: &str, code: &str) -> Result<Value> {
    patched.ask(REPORTER, json!({"verb": "consent", "sha256": sha256, "code": code}), None).await
}

/// One that is not it.
async fn wrong_code(patched: &PatchBox, sha256: &str) -> Result<&'static str> {
    let known = patched.known(sha256).await?;
    Ok(if known["code"] == "000000" { "000001" } else { "000000" })
}

/// The same signed texts in another file: its hash is another, what it says is the same.
fn repacked(header: &Header, payload: &[u8], number: usize) -> Result<Vec<u8>> {
    let mut header = header.clone();
    let root = header.roots[0].clone();
    header.roots.extend((0..number).map(|_| root.clone()));
    Ok(whole(&header, payload)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_packed_anew_bring_no_more_guesses_until_somebody_decides_on_the_box() -> Result<()> {
    let patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let header = Vendor::default().header(&tree_patch("2.1.0".parse()?, &good.packed))?;
    let mut guesses = 0;
    for number in 1..8 {
        let told = taken(&patched, number, &repacked(&header, &good.bytes, number)?).await?;
        let sha256 = sha256_of(&told)?;
        let wrong = wrong_code(&patched, &sha256).await?;
        for _ in 0..5 {
            let told = types(&patched, &sha256, wrong).await?;
            guesses += usize::from(told["code"] == "wrong_code");
            ensure!(matches!(told["code"].as_str(), Some("wrong_code" | "not_allowed")), "{told}");
        }
    }
    ensure!(guesses == 20, "{guesses} guesses were judged");
    let last = sha256_of(&taken(&patched, 9, &repacked(&header, &good.bytes, 9)?).await?)?;
    ensure!(patched.known(&last).await?["code"].is_null(), "a code that counts for nothing is not shown");
    // The administrator's own word is as good as ever, and codes count again after it.
    let refused =
        patched.ask(0, json!({"verb": "refuse", "sha256": last, "code": null, "reason": "not asked for"}), None).await?;
    ensure!(refused["step"] == "refused", "{refused}");
    let asked_for = sha256_of(&taken(&patched, 10, &repacked(&header, &good.bytes, 10)?).await?)?;
    let code = patched.known(&asked_for).await?["code"].as_str().context("a code")?.to_owned();
    ensure!(types(&patched, &asked_for, &code).await?["step"] == "awaiting_window", "the right code agrees");
    ensure!(patched.judge(("", "")).await? == "old");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_taken_back_and_offered_again_brings_no_more_guesses() -> Result<()> {
    let patched = running("").await?;
    let ran = patched.state_dir().join("ran");
    let script = format!("echo ran >>{}", ran.display());
    let action = Vendor::default().file(&program_action("restart-web", &["/bin/sh", "-c", &script]), b"")?;
    let mut guesses = 0;
    for number in 1..8 {
        let sha256 = sha256_of(&taken(&patched, number, &action).await?)?;
        let wrong = wrong_code(&patched, &sha256).await?;
        for _ in 0..5 {
            guesses += usize::from(types(&patched, &sha256, wrong).await?["code"] == "wrong_code");
        }
        patched.ask(REPORTER, json!({"verb": "taken_back", "offer_id": offer(number)}), None).await?;
        patched
            .ask(REPORTER, json!({"verb": "proceed", "sha256": null, "now": false, "services": patched.services()}), None)
            .await?;
    }
    ensure!(guesses == 20, "{guesses} guesses were judged");
    ensure!(!ran.exists(), "nothing ran");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_wait_are_bounded_and_roots_own_is_not_kept_out() -> Result<()> {
    let mut patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let header = Vendor::default().header(&tree_patch("2.1.0".parse()?, &good.packed))?;
    for number in 1..=16 {
        ensure!(taken(&patched, number, &repacked(&header, &good.bytes, number)?).await?["step"] == "awaiting_consent");
    }
    let kept = std::fs::read_dir(patched.state_dir().join("quarantine"))?.count();
    for number in 17..20 {
        let told = taken(&patched, number, &repacked(&header, &good.bytes, number)?).await?;
        ensure!(told["answer"] == "refused", "one too many: {told}");
    }
    ensure!(std::fs::read_dir(patched.state_dir().join("quarantine"))?.count() == kept, "none of them is kept");
    let told = patched.apply(&repacked(&header, &good.bytes, 20)?).await?;
    ensure!(told["step"] == "done", "{told}");
    ensure!(patched.judge(("2.1.0", &good.packed.tree_sha256)).await? == "new");
    // A restart takes nothing of it back.
    patched.start().await?;
    ensure!(patched.version().await? == "2.1.0");
    Ok(())
}
