//! The pages of signed files in a real browser: the repository, a file, the appliance, the ticket, a mail's link in all its states. Each in
//! both languages, on a phone's width and by the keyboard alone. `MAINSTAY_SHOTS=FOLDER` keeps pictures of them there, and lets
//! FOLDER/axe.min.js judge them if it lies there.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::browser::Browser;
use e2e::packing::packing;
use e2e::patience::{A_WHILE, eventually};
use e2e::vendor::Vendor;
use mainstay_patchkit::sample::tree_patch;
use semver::Version;
use thirtyfour::{By, Key};

use crate::console::sign_in;
use crate::play::Play;

/// What is wider than the window, and what takes input without a name.
const FLAWS: &str = "
    const flaws = [];
    if (document.documentElement.scrollWidth > window.innerWidth) flaws.push(`${document.documentElement.scrollWidth} pixels wide`);
    for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a[href]')) {
        const named = (field.labels && field.labels.length) || field.getAttribute('aria-label') || field.textContent.trim();
        if (!named) flaws.push(`without a name: ${field.outerHTML}`);
    }
    for (const picture of document.querySelectorAll('svg[role=img]')) if (!picture.getAttribute('aria-label')) flaws.push(picture.outerHTML);
    if (document.querySelectorAll('h1').length !== 1) flaws.push('not one heading');
    return flaws.join('; ');";

const AXE: &str = "const done = arguments[0];
    axe.run().then(found => done(found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' ')).join('\\n')));";

struct Eyes {
    browser: Browser,
    shots: Option<PathBuf>,
}

impl Eyes {
    /// Looks at a page under `name`, wide and narrow.
    async fn look(&self, url: &str, name: &str) -> Result<()> {
        self.browser.goto(url).await?;
        for (width, what) in [(1280, "wide"), (390, "phone")] {
            self.browser.set_window_rect(0, 0, width, 1600).await?;
            let found = self.browser.execute(FLAWS, Vec::new()).await?;
            let found = found.json().as_str().context("a text")?.to_owned();
            ensure!(found.is_empty(), "{name}, {what}: {found}");
            if let Some(folder) = &self.shots {
                self.browser.screenshot(&folder.join(format!("{name}-{what}.png"))).await?;
                let axe = folder.join("axe.min.js");
                if axe.exists() {
                    self.browser.execute(std::fs::read_to_string(axe)?, Vec::new()).await?;
                    let found = self.browser.execute_async(AXE, Vec::new()).await?;
                    let found = found.json().as_str().context("a text")?.to_owned();
                    ensure!(found.is_empty(), "{name}, {what}: axe finds\n{found}");
                }
            }
        }
        Ok(())
    }

    async fn in_both(&self, url: &str, name: &str) -> Result<()> {
        for language in ["zh", "en"] {
            self.look(&format!("{url}?l={language}"), &format!("{name}-{language}")).await?;
            let shown = self.browser.find(By::Tag("html")).await?.attr("lang").await?.unwrap_or_default();
            ensure!(shown.starts_with(language), "{name} says {shown}, not {language}");
        }
        Ok(())
    }

    /// The page's own words.
    async fn shows(&self, text: &str) -> Result<()> {
        eventually(&format!("the page to show {text:?}"), A_WHILE, async || {
            // It is loaded anew while the box has not answered.
            let shown = match self.browser.find(By::Tag("main")).await {
                Ok(main) => main.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            Ok(shown.contains(text).then_some(()))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_signed_files_are_readable_in_both_languages_on_a_phone_and_by_the_keyboard() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    play.patched.stop_service()?;
    let ticket = play.scene.desk.ticket_about("service:web").await?["ticket_id"].as_str().context("a ticket")?.to_owned();
    let action = play.vendor.publish(&Vendor::action("collect-1", &["/bin/true"]), &[])?;
    let new = packing("/bin/sleep", b"new")?;
    let mut manifest = tree_patch(Version::new(2, 1, 0), &new.packed);
    (manifest.title.zh, manifest.title.en) =
        ("修复收单服务在账本超过一百行时退出".into(), "Card payments go on with a long book".into());
    (manifest.notes.zh, manifest.notes.en) = ("安装时收单服务停顿数秒。".into(), "Card payments pause for a few seconds.".into());
    let patch = play.vendor.publish(&manifest, &new.bytes)?;
    play.is_listed(&action).await?;
    play.is_listed(&patch).await?;
    let ordered = Play::offer_id(&play.offers_from(&action, &ticket).await?)?;
    let offer = Play::offer_id(&play.offers_from(&patch, &ticket).await?)?;
    let link = eventually("the mail of the patch", A_WHILE, async || Ok(play.link_about(&patch))).await?;
    play.offer_stands(&ordered, "awaiting_consent").await?;
    play.offer_stands(&offer, "awaiting_consent").await?;
    let listed = play.patched.waiting("patch").await?;
    let code = listed[0]["code"].as_str().context("a code")?.to_owned();

    let eyes = Eyes { browser: Browser::open("en").await?, shots: std::env::var_os("MAINSTAY_SHOTS").map(PathBuf::from) };
    eyes.in_both(&link, "link-waiting").await?;
    // By the keyboard alone: the first field of a form is the code's; Enter sends it.
    eyes.browser.goto(format!("{link}?l=en")).await?;
    let field = eyes.browser.find(By::Css("input[name=code]")).await?;
    for _ in 0..40 {
        if eyes.browser.active_element().await?.element_id() == field.element_id() {
            break;
        }
        eyes.browser.active_element().await?.send_keys(Key::Tab + "").await?;
    }
    let reached = eyes.browser.active_element().await?;
    ensure!(reached.element_id() == field.element_id(), "the code's field is reached by the tab key");
    let wrong = if code == "000000" { "111111" } else { "000000" };
    reached.send_keys(wrong.to_owned() + Key::Enter).await?;
    eyes.shows("that code is not right").await?;
    eyes.in_both(&link, "link-wrong-code").await?;
    eyes.browser.goto(format!("{link}?l=en")).await?;
    eyes.browser.find(By::Css("input[name=code]")).await?.send_keys(code + Key::Enter).await?;
    play.offer_stands(&offer, "done").await?;
    eyes.in_both(&link, "link-done").await?;
    let unknown = format!("{}{}", &link[..link.len() - 4], if link.ends_with("0000") { "1111" } else { "0000" });
    eyes.in_both(&unknown, "link-unknown").await?;

    let refused = Play::offer_id(&{
        let file = play.publishes(Version::new(2, 2, 0), b"newer").await?;
        let made = play.offers(&file).await?;
        let link = eventually("the mail of the next", A_WHILE, async || Ok(play.link_about(&file))).await?;
        let code = play.patched.code("patch").await?;
        let id = Play::offer_id(&made)?;
        play.types(&link, "refuse", &[("offer", &id), ("code", &code), ("reason", "month-end+closing")]).await?;
        play.offer_stands(&id, "refused").await?;
        eyes.in_both(&link, "link-refused").await?;
        made
    })?;
    ensure!(!refused.is_empty(), "an offer");
    let web = play.scene.collector.web_url();
    sign_in(&eyes.browser, &play.scene.collector, "reader").await?;
    for language in ["zh", "en"] {
        eyes.browser.goto(format!("{web}/")).await?;
        crate::console::switch_language(&eyes.browser, language).await?;
        for (path, name) in [
            ("/releases".to_owned(), "releases"),
            (format!("/releases/{patch}"), "release"),
            (format!("/appliances/{}", play.appliance), "appliance"),
            (format!("/tickets/{ticket}"), "ticket"),
        ] {
            eyes.look(&format!("{web}{path}"), &format!("{name}-{language}")).await?;
        }
    }
    eyes.browser.close().await
}
