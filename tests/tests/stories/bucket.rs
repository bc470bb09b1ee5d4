//! The repository lies in a bucket: a file reaches the box by ranges through a store that goes away and comes back; a wrong secret and a
//! damaged object are told, and harm nothing.

use std::fs::FileTimes;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::Engine;
use e2e::desk::Console;
use e2e::packing::packing;
use e2e::patience::{A_WHILE, eventually};
use e2e::s3_server::S3Server;
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::vendor::Vendor;
use semver::Version;

use crate::play::{Play, noise};

/// The page of patches, once it tells of `what`.
async fn page_tells(console: &Console, collector: &Collector, what: &str) -> Result<()> {
    let mut html = String::new();
    eventually(&format!("the page to tell of {what:?}"), A_WHILE, async || {
        html = console.page("/releases").await?.html;
        Ok(html.contains(what).then_some(()))
    })
    .await
    .with_context(|| format!("{html}\n{}", collector.log_text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_reaches_its_box_out_of_a_bucket_whose_store_goes_away_and_comes_back() -> Result<()> {
    let mut store = S3Server::new()?;
    let post = ScriptedMailServer::start(Mood::Accepts).await?;
    let mail = Some(MailWay { port: post.port(), ca_file: None });
    let settings = Settings { mail, bucket: Some(store.way()), ..Settings::default() };
    let collector = Collector::founded(Engine::Sqlite, settings).await?;
    store.start(&collector.buckets()).await?;
    let automatic = "[consent]\npatch = \"automatic\"";
    let mut play = Play::at(collector, post, automatic, "max_kib_per_s = 1024").await?;
    let file = play.publishes(Version::new(2, 1, 0), &noise(5 << 20)?).await?;
    let before = play.scene.collector.link.bytes_passed();
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    eventually("a part of it to be here", A_WHILE, async || {
        Ok((play.scene.collector.link.bytes_passed() > before + (2 << 20)).then_some(()))
    })
    .await
    .with_context(|| play.patched.logs())?;
    store.kill()?;
    let wu = play.scene.collector.account("wu", "system_engineer").await?;
    let console = Console::signed_in(&play.scene.collector.web_url(), &wu).await?;
    page_tells(&console, &play.scene.collector, "the store can&#39;t be reached").await?;
    store.start(&play.scene.collector.buckets()).await?;
    play.offer_stands(&offer, "done").await?;
    let passed = play.scene.collector.link.bytes_passed() - before;
    assert!(passed < 8 << 20, "what was there was not fetched again: {passed} bytes");

    // Bits flip in the store, and nobody touched the file: the box is the one that notices.
    let path = play.scene.collector.repository().join("files").join(play.publishes(Version::new(2, 2, 0), b"newer").await?);
    let (good, changed) = (std::fs::read(&path)?, std::fs::metadata(&path)?.modified()?);
    let mut damaged = good.clone();
    *damaged.last_mut().context("a byte")? ^= 1;
    let written = |bytes: &[u8]| -> Result<()> {
        std::fs::write(&path, bytes)?;
        Ok(std::fs::File::options().write(true).open(&path)?.set_times(FileTimes::new().set_modified(changed))?)
    };
    written(&damaged)?;
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    let offer = Play::offer_id(&play.offers(&name).await?)?;
    eventually("the agent to drop what came", A_WHILE, async || {
        Ok(play.patched.logs().contains("its hash is not the offer's").then_some(()))
    })
    .await?;
    written(&good)?;
    play.offer_stands(&offer, "done").await?;
    assert_eq!(play.patched.content()?, "newer", "mended, it is installed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_and_a_damaged_object_are_told_on_the_page_and_the_secret_nowhere() -> Result<()> {
    let mut store = S3Server::new()?;
    store.set_secret("of-another-key")?;
    let settings = Settings { bucket: Some(store.way()), ..Settings::default() };
    let mut collector = Collector::founded(Engine::Sqlite, settings).await?;
    let mut vendor = Vendor::of(&collector).await?;
    store.start(&collector.buckets()).await?;
    collector.start().await?;
    let console = Console::signed_in(&collector.web_url(), &collector.operator).await?;
    page_tells(&console, &collector, "SignatureDoesNotMatch").await?;
    assert!(!collector.log_text().contains("of-another-key") && !collector.log_text().contains("X-Amz-Signature"));
    store.right_secret()?;
    let good = vendor.publish_patch(Version::new(2, 1, 0), &packing("/bin/sleep", b"new")?)?;
    let path = collector.repository().join("files").join(&good);
    let bad = path.with_file_name("acme-gateway-2.2.0.mpatch");
    let mut bytes = std::fs::read(&path)?;
    *bytes.last_mut().context("a byte")? ^= 1;
    std::fs::write(&bad, bytes)?;
    // Larger than any signed file, by mistake: nobody copies it onto the disk of the database.
    std::fs::File::create(path.with_file_name("acme-gateway-9.0.0.mpatch"))?.set_len(500 << 30)?;
    page_tells(&console, &collector, "no signed file is larger than").await?;
    eventually("both files to be judged", A_WHILE, async || {
        let listed = collector.command(&["releases", "list"]).await?.stdout;
        let is = |name: &str, state: &str| listed.lines().any(|line| line.contains(name) && line.contains(state));
        Ok((is(&good, "good") && is("acme-gateway-2.2.0.mpatch", "refused")).then_some(()))
    })
    .await
    .with_context(|| collector.log_text())?;
    assert!(!S3Server::is_told_in(&collector.log_text()), "the secret stands in no log");
    Ok(())
}
