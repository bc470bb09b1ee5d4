//! The real helper as root, a hostile reporter under another uid, real signed files: good versions stay, bad ones go back by themselves,
//! refused files leave everything as it was, and nobody but root decides without the code.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::Datelike as _;
use e2e::packing::{debs, packing, signed_patch};
use e2e::patch_box::{PatchBox, REPORTER, sha256_of};
use mainstay_patchkit::manifest::{Body, Content, DataChange, Manifest, Patch, Script};
use mainstay_patchkit::sample::{Vendor, program_action};
use mainstay_shared::time_source::TimeSource;
use serde_json::{Value, json};

/// Bends the patch of a manifest.
fn patch(manifest: &mut Manifest) -> &mut Patch {
    match &mut manifest.body {
        Body::Patch(patch) => patch,
        _ => unreachable!("the sample is a patch"),
    }
}

async fn running(more: &str) -> Result<PatchBox> {
    let mut patched = PatchBox::set_up(None, more)?;
    patched.start().await?;
    Ok(patched)
}

fn order(sha256: &str, now: bool, services: Value) -> Value {
    json!({"verb": "proceed", "sha256": sha256, "now": now, "services": services})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_stays_and_bad_ones_go_back_by_themselves() -> Result<()> {
    let patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let crash = packing("/bin/false", b"crash")?;
    let quick = |manifest: &mut Manifest| patch(manifest).health.deadline_s = 1;
    let told = patched.apply(&signed_patch("2.1.0", &crash, quick)?).await?;
    ensure!(told["step"] == "rolled_back" && told["reason"][0] == "unhealthy", "a crashing version: {told}");
    ensure!(patched.judge(("", "")).await? == "old");
    let script = |manifest: &mut Manifest| {
        if let Content::Tree { scripts, .. } = &mut patch(manifest).content {
            // A program of the tree that ends badly.
            scripts.push(Script { argv: vec!["bin/web".into(), "--no-such-option".into()], timeout_s: 10 });
        }
    };
    let told = patched.apply(&signed_patch("2.2.0", &good, script)?).await?;
    ensure!(told["step"] == "rolled_back" && told["reason"][0] == "script_failed", "a bad script: {told}");
    ensure!(told["output"].as_str().is_some_and(|output| output.contains("no-such-option")), "its output is kept: {told}");
    ensure!(patched.judge(("", "")).await? == "old");
    let again =
        patched.ask(REPORTER, json!({"verb": "take", "offer_id": null}), Some(&signed_patch("2.2.0", &good, script)?)).await?;
    ensure!(again["code"] == "failed_before", "it is not tried again: {again}");
    let told = patched.apply(&signed_patch("2.3.0", &good, |_| ())?).await?;
    ensure!(told["step"] == "done", "a good version: {told}\n{}", patched.log());
    ensure!(patched.judge(("2.3.0", &good.packed.tree_sha256)).await? == "new");
    let back = patched.ask(REPORTER, json!({"verb": "rollback"}), None).await?;
    ensure!(back["code"] == "not_allowed", "the reporter goes back: {back}");
    let back = patched.ask(0, json!({"verb": "rollback"}), None).await?;
    ensure!(back["step"] == "rolled_back", "root goes back: {back}");
    ensure!(patched.judge(("", "")).await? == "old");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_to_the_deadline_goes_back_also_over_a_restart_of_the_helper() -> Result<()> {
    let mut patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |manifest| patch(manifest).health.deadline_s = 2)?;
    let taken = patched.ask(0, json!({"verb": "take", "offer_id": null}), Some(&file)).await?;
    let sha256 = sha256_of(&taken)?;
    patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
    let begun = patched.ask(0, order(&sha256, true, patched.services()), None).await?;
    ensure!(begun["step"] == "probation", "{begun}");
    patched.start().await?;
    let told = e2e::patience::eventually("it to go back", Duration::from_secs(30), async || {
        let file = patched.known(&sha256).await?;
        Ok((file["step"] != "probation" && file["step"] != "applying").then_some(file))
    })
    .await?;
    ensure!(told["step"] == "rolled_back", "{told}");
    ensure!(patched.judge(("", "")).await? == "old");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_reporter_gets_nothing_without_the_boxs_code() -> Result<()> {
    let patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |_| ())?;
    // It may be shown the door before it has spoken.
    if let Ok(stranger) = patched.ask(65_534, json!({"verb": "list"}), None).await {
        ensure!(stranger["code"] == "not_allowed", "a stranger: {stranger}");
    }
    let offer = "0123456789abcdef0123456789abcdef";
    let taken = patched.ask(REPORTER, json!({"verb": "take", "offer_id": offer}), Some(&file)).await?;
    let sha256 = sha256_of(&taken)?;
    ensure!(taken["code"].is_null() && taken["step"] == "awaiting_consent", "the reporter sees no code: {taken}");
    let tries = [
        ("consent without a code", json!({"verb": "consent", "sha256": sha256, "code": null}), "not_allowed"),
        ("beginning at once", order(&sha256, true, json!({"web": "up"})), "not_allowed"),
        ("going back", json!({"verb": "rollback"}), "not_allowed"),
        ("another verb", json!({"verb": "run", "argv": ["/bin/sh"]}), "bad_request"),
        ("a path", json!({"verb": "take", "path": "/etc/shadow", "offer_id": null}), "bad_request"),
    ];
    for (what, request, code) in tries {
        let answer = patched.ask(REPORTER, request, None).await?;
        ensure!(answer["code"] == code, "{what}: {answer}");
    }
    let waiting = patched.ask(REPORTER, order(&sha256, false, json!({"web": "up"})), None).await?;
    ensure!(waiting["step"] == "awaiting_consent", "beginning without consent: {waiting}");
    let code = patched.known(&sha256).await?["code"].as_str().context("root sees the code")?.to_owned();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    // An agent that lives as root carries what was typed at a page too: root's uid makes no wrong code right.
    for uid in [REPORTER, 0, REPORTER, 0, REPORTER] {
        let answer = patched.ask(uid, json!({"verb": "consent", "sha256": sha256, "code": wrong}), None).await?;
        ensure!(answer["code"] == "wrong_code", "{answer}");
    }
    let late = patched.ask(REPORTER, json!({"verb": "consent", "sha256": sha256, "code": code}), None).await?;
    ensure!(late["code"] == "not_allowed", "after five tries the right code is worth nothing: {late}");
    ensure!(patched.judge(("", "")).await? == "old");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_code_from_the_page_agrees_and_the_window_is_kept() -> Result<()> {
    // A window of one minute a week, half a week from now or more.
    let today = TimeSource::system().now().to_utc().weekday().num_days_from_monday() as usize;
    let name = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][(today + 3) % 7];
    let patched = running(&format!("[install_window]\ntimes = [\"{name} 03:00-03:01\"]\n")).await?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |_| ())?;
    let offer = "0123456789abcdef0123456789abcdef";
    let sha256 = sha256_of(&patched.ask(REPORTER, json!({"verb": "take", "offer_id": offer}), Some(&file)).await?)?;
    let known = patched.known(&sha256).await?;
    ensure!(known["next_windows"].as_array().is_some_and(|windows| windows.len() == 3), "{known}");
    let agreed = patched.ask(REPORTER, json!({"verb": "consent", "sha256": sha256, "code": known["code"]}), None).await?;
    ensure!(agreed["step"] == "awaiting_window", "{agreed}");
    let early = patched.ask(REPORTER, order(&sha256, false, patched.services()), None).await?;
    ensure!(early["step"] == "awaiting_window", "outside the window nothing begins: {early}");
    let begun = patched.ask(0, order(&sha256, true, patched.services()), None).await?;
    ensure!(begun["step"] == "probation", "root says now: {begun}");
    ensure!(patched.follow(&sha256).await?["step"] == "done");
    ensure!(patched.judge(("2.1.0", &good.packed.tree_sha256)).await? == "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_file_leaves_everything_as_it_was_and_the_next_good_one_installs() -> Result<()> {
    let patched = running("").await?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |_| ())?;
    let before = patched.memory()?;
    let mut torn = file.clone();
    torn.truncate(file.len() - 7);
    let mut corrupt = file.clone();
    let at = corrupt.len() - 9;
    corrupt[at] ^= 1;
    let one_key = {
        let manifest = mainstay_patchkit::sample::tree_patch("2.1.0".parse()?, &good.packed);
        let header = Vendor { threshold: 1, ..Vendor::default() }.header(&manifest)?;
        mainstay_patchkit::sample::whole(&header, &good.bytes)?
    };
    let rows: [(&str, Vec<u8>, &str); 9] = [
        ("no patch file", b"hello".to_vec(), "bad_format"),
        ("truncated", torn, "bad_format"),
        ("bytes behind the end", [&file[..], b"x"].concat(), "bad_format"),
        ("one bit", corrupt, "bad_content"),
        ("too few signatures", one_key, "bad_signature"),
        ("an older version", signed_patch("1.9.0", &good, |_| ())?, "version"),
        ("another model", signed_patch("2.1.0", &good, |m| m.hardware = ["gw-1".to_owned()].into())?, "other_hardware"),
        (
            "a feature that was not bought",
            signed_patch("2.1.0", &good, |m| patch(m).features = ["ha".to_owned()].into())?,
            "feature_not_licensed",
        ),
        ("a service that is not here", signed_patch("2.1.0", &good, |m| patch(m).services.push("db".into()))?, "bad_content"),
    ];
    for (what, bytes, code) in rows {
        let answer = patched.ask(0, json!({"verb": "take", "offer_id": null}), Some(&bytes)).await?;
        ensure!(answer["code"] == code, "{what}: {answer}");
        ensure!(patched.memory()? == before, "{what}: the helper's memory has changed");
    }
    ensure!(std::fs::read_dir(patched.state_dir().join("quarantine"))?.count() == 0, "quarantine is empty");
    ensure!(patched.judge(("", "")).await? == "old");
    let told = patched.apply(&file).await?;
    ensure!(told["step"] == "done", "{told}");
    ensure!(patched.judge(("2.1.0", &good.packed.tree_sha256)).await? == "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_appliance_and_an_unasked_one_way_change_are_not_begun() -> Result<()> {
    let patched = running("[consent]\npatch = \"automatic\"\n").await?;
    let good = packing("/bin/sleep", b"new")?;
    let file = signed_patch("2.1.0", &good, |_| ())?;
    let sha256 = sha256_of(&patched.ask(REPORTER, json!({"verb": "take", "offer_id": null}), Some(&file)).await?)?;
    let sick = patched.ask(REPORTER, order(&sha256, false, json!({"web": "down"})), None).await?;
    ensure!(sick["code"] == "unhealthy_before", "{sick}");
    ensure!(patched.known(&sha256).await?["step"] == "awaiting_window", "it waits for better times");
    let one_way = signed_patch("2.2.0", &good, |manifest| patch(manifest).data_change = DataChange::OneWay)?;
    let taken = patched.ask(REPORTER, json!({"verb": "take", "offer_id": null}), Some(&one_way)).await?;
    ensure!(taken["step"] == "awaiting_consent", "one way is never automatic: {taken}");
    ensure!(patched.known(&sha256_of(&taken)?).await?["code"].is_null(), "nor by a code");
    let begun = patched
        .ask(REPORTER, json!({"verb": "proceed", "sha256": null, "now": false, "services": patched.services()}), None)
        .await?;
    ensure!(begun["sha256"] == sha256.as_str() && begun["step"] == "probation", "well again, it begins by itself: {begun}");
    ensure!(patched.follow(&sha256).await?["step"] == "done");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_runs_at_most_once_however_often_it_is_delivered() -> Result<()> {
    let mut patched = running("").await?;
    let log = patched.state_dir().join("ran");
    let script = format!("echo ran >>{}; echo password=hunter2; sleep 2; echo over >>{}", log.display(), log.display());
    let bytes = Vendor::default().file(&program_action("restart-web", &["/bin/sh", "-c", &script]), b"")?;
    let offer = "0123456789abcdef0123456789abcdef";
    let mut sha256 = String::new();
    for _ in 0..3 {
        sha256 = sha256_of(&patched.ask(REPORTER, json!({"verb": "take", "offer_id": offer}), Some(&bytes)).await?)?;
        patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
        patched.ask(REPORTER, order(&sha256, false, patched.services()), None).await?;
    }
    let known = patched.known(&sha256).await?;
    ensure!(known["step"] == "done", "{known}");
    ensure!(known["output"] == "password=[hidden]", "its output is redacted: {known}");
    ensure!(std::fs::read_to_string(&log)? == "ran\nover\n", "it ran once");
    let other = "ffffffffffffffffffffffffffffffff";
    patched.ask(REPORTER, json!({"verb": "take", "offer_id": other}), Some(&bytes)).await?;
    patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
    let socket_gone = {
        let killed = patched.ask(REPORTER, order(&sha256, false, patched.services()), None);
        let killer = async {
            e2e::patience::eventually("it to run again", Duration::from_secs(20), async || {
                Ok((std::fs::read_to_string(&log)?.lines().count() == 3).then_some(()))
            })
            .await?;
            let pid = patched.pid().context("a helper")?;
            e2e::process::send(pid, rustix::process::Signal::KILL)
        };
        let (answer, killed) = tokio::join!(killed, killer);
        killed?;
        answer.is_err()
    };
    ensure!(socket_gone, "the helper was killed while the action ran");
    patched.start().await?;
    let known = patched.known(&sha256).await?;
    ensure!(known["step"] == "unknown", "its end was not seen: {known}");
    patched.ask(REPORTER, order(&sha256, false, patched.services()), None).await?;
    ensure!(std::fs::read_to_string(&log)? == "ran\nover\nran\n", "it is not repeated, and what ran was killed with the helper");
    Ok(())
}

/// What dpkg's database under `root` says of a package: its version, if it is installed.
fn installed(root: &Path, name: &str) -> Result<String> {
    let admin = format!("--admindir={}", root.join("var/lib/dpkg").display());
    let told = Command::new("dpkg-query").args([admin.as_str(), "-W", "-f=${Version} ${db:Status-Status}", name]).output()?;
    Ok(String::from_utf8_lossy(&told.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_go_forward_and_back_by_those_that_were_kept() -> Result<()> {
    let root = tempfile::tempdir()?;
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "opt"] {
        std::fs::create_dir_all(root.path().join(dir))?;
    }
    for file in ["status", "available"] {
        std::fs::write(root.path().join("var/lib/dpkg").join(file), "")?;
    }
    let patched = running(&format!("[packages]\nroot = {:?}\n", root.path())).await?;
    let signed = |version: &str, packages: &[(&str, &str)], deadline_s: u32| {
        let named: Vec<_> = packages.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        signed_patch(version, &debs(packages)?, |manifest| {
            patch(manifest).content = Content::Packages { packages: named };
            patch(manifest).health.deadline_s = deadline_s;
        })
    };
    let told = patched.apply(&signed("2.1.0", &[("acme-core", "1.0"), ("acme-web", "1.0")], 60)?).await?;
    ensure!(told["step"] == "done", "{told}");
    ensure!(installed(root.path(), "acme-web")? == "1.0 installed");
    // One that never serves, and brings a package that was not there.
    let bad = signed("2.2.0", &[("acme-core", "2.0"), ("acme-new", "1.0"), ("acme-web", "2.0")], 1)?;
    let sha256 = sha256_of(&patched.ask(0, json!({"verb": "take", "offer_id": null}), Some(&bad)).await?)?;
    patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
    let begun = patched.ask(0, order(&sha256, true, patched.services()), None).await?;
    ensure!(begun["step"] == "probation", "{begun}");
    ensure!(installed(root.path(), "acme-web")? == "2.0 installed");
    let told = e2e::patience::eventually("it to go back", Duration::from_secs(30), async || {
        let file = patched.known(&sha256).await?;
        Ok((file["step"] != "probation" && file["step"] != "applying").then_some(file))
    })
    .await?;
    ensure!(told["step"] == "rolled_back", "{told}\n{}", patched.log());
    ensure!(installed(root.path(), "acme-core")? == "1.0 installed" && installed(root.path(), "acme-web")? == "1.0 installed");
    ensure!(!installed(root.path(), "acme-new")?.contains("installed"), "what was not there is gone");
    ensure!(patched.version().await? == "2.1.0");
    Ok(())
}
