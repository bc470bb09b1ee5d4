//! Callers who hang, through the real helper as root: whoever holds the reporter's uid keeps nobody else from the box, and what lies beside a
//! request that needs no file is not looked at.

use std::fs::File;

use anyhow::{Result, ensure};
use e2e::patch_box::{PatchBox, REPORTER};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_is_heard_however_many_of_the_reporter_s_calls_hang() -> Result<()> {
    let mut patched = PatchBox::set_up(None, "")?;
    patched.start().await?;
    ensure!(patched.version().await? == "2.0.0");
    let hanging = patched.silent_callers(REPORTER, 20).await?;
    ensure!(patched.version().await? == "2.0.0");
    let unknown = json!({"verb": "refuse", "sha256": "a".repeat(64), "code": null, "reason": "no"});
    let told = patched.ask(0, unknown, None).await?;
    ensure!(told["code"] == "no_such_file", "{told}");
    drop(hanging);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_beside_a_request_that_needs_none_is_not_copied() -> Result<()> {
    let mut patched = PatchBox::set_up(None, "")?;
    patched.start().await?;
    let unknown = json!({"verb": "consent", "sha256": "a".repeat(64), "code": "123456"});
    // It would be refused for not being a regular file, if it were looked at.
    let told = patched.ask_with(REPORTER, unknown, Some(File::open("/dev/null")?)).await?;
    ensure!(told["code"] == "no_such_file", "{told}");
    for verb in ["take", "verify"] {
        let request = if verb == "take" { json!({"verb": verb, "offer_id": null}) } else { json!({"verb": verb}) };
        let told = patched.ask_with(REPORTER, request, Some(File::open("/dev/null")?)).await?;
        ensure!(told["code"] == "bad_format", "{verb}: {told}");
    }
    Ok(())
}
