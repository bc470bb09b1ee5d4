//! A box that is not set up for it takes no update of the agent, and says what is missing; the product's patches are not touched by that.

use anyhow::{Context as _, Result, ensure};
use e2e::packing::{packing, signed_patch};
use e2e::patch_box::{PatchBox, REPORTER, sha256_of};
use mainstay_patchkit::archive::pack;
use mainstay_patchkit::sample::{Vendor, agent_patch};
use semver::Version;
use serde_json::json;

type Change<'a> = &'a dyn Fn() -> std::io::Result<()>;

/// A signed update of the agent to this version.
fn new_agent(version: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("mainstay-agent");
    std::fs::copy("/bin/sleep", &program)?;
    let mut payload = Vec::new();
    let packed = pack(folder.path(), 1, &mut payload)?;
    Ok(Vendor::default().file(&agent_patch(Version::parse(version)?, &packed), &payload)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_table_an_update_of_the_agent_is_not_even_taken() -> Result<()> {
    let mut patched = PatchBox::set_up(None, "")?;
    patched.start().await?;
    let taken = patched
        .ask(REPORTER, json!({"verb": "take", "offer_id": "0123456789abcdef0123456789abcdef"}), Some(&new_agent("9.0.0")?))
        .await?;
    ensure!(taken["code"] == "not_set_up" && taken["detail"].to_string().contains("[agent]"), "{taken}");
    let reports = patched.ask(REPORTER, json!({"verb": "reports", "after": 0}), None).await?;
    let told = reports.as_array().and_then(|all| all.last()).context("the vendor is told")?.clone();
    ensure!((&told["product"], &told["reason"]) == (&json!("mainstay-agent"), &json!("not_set_up")), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_layout_is_named_and_neither_the_agent_nor_the_product_is_touched() -> Result<()> {
    let place = tempfile::tempdir()?;
    let top = place.path().display();
    let table = format!("[agent]\ntree = \"{top}\"\nstop = [\"/bin/false\"]\nstart = [\"/bin/false\"]\n");
    let mut patched = PatchBox::set_up(None, &table)?;
    patched.start().await?;
    let older = patched.ask(0, json!({"verb": "take", "offer_id": null}), Some(&new_agent("0.0.1")?)).await?;
    ensure!(older["code"] == "version", "older than the agent that runs, whatever the product's version: {older}");

    let release = place.path().join("releases/0.1.0-shipped0");
    let lay = |link: &str| std::os::unix::fs::symlink("releases/0.1.0-shipped0", place.path().join(link));
    let steps: [(&str, &str, Change<'_>); 4] = [
        ("9.0.0", "/current points to nothing", &|| Ok(())),
        ("9.0.1", "/proven to nothing", &|| std::fs::create_dir_all(&release).and_then(|()| lay("current"))),
        ("9.0.2", "shipped0/mainstay-agent: No such file", &|| lay("proven")),
        ("9.0.3", "/proven/mainstay-agent to be what helper and executor run", &|| {
            std::fs::copy("/bin/sleep", release.join("mainstay-agent")).map(drop)
        }),
    ];
    for (version, told, change) in steps {
        change()?;
        let taken = patched.ask(0, json!({"verb": "take", "offer_id": null}), Some(&new_agent(version)?)).await?;
        let sha256 = sha256_of(&taken)?;
        patched.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
        let order = json!({"verb": "proceed", "sha256": sha256, "now": true, "services": patched.services()});
        let begun = patched.ask(0, order, None).await?;
        ensure!(begun["code"] == "not_set_up" && begun["detail"].to_string().contains(told), "{told}: {begun}");
        ensure!(patched.known(&sha256).await?["step"] == "refused", "it is over");
    }
    let good = packing("/bin/sleep", b"new")?;
    let told = patched.apply(&signed_patch("2.1.0", &good, |_| ())?).await?;
    ensure!(told["step"] == "done" && patched.version().await? == "2.1.0", "{told}");
    Ok(())
}
