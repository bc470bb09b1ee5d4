//! The console in a real browser: hostile text stays text, pages speak one language.

use anyhow::{Context as _, Result};
use e2e::both_databases;
use e2e::browser::Browser;
use e2e::collector::Collector;
use e2e::database::Engine;
use e2e::patience::{SOON, eventually};
use e2e::wire::WireAgent;
use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::ids::Lane;
use mainstay_shared::record::Payload;
use thirtyfour::By;
use thirtyfour::prelude::ElementQueryable as _;

use crate::scene::{Scene, change, started, text};

both_databases!(hostile_text_is_inert_in_the_browser, every_page_in_the_browser_speaks_one_language);

const HOSTILE: &str =
    "\"'><script>window.pwned=1</script><img src=x onerror=window.pwned=1><svg onload=window.pwned=1>{{7*7}}${7*7}";

/// Signs a new account in, as a person does.
pub(crate) async fn sign_in(browser: &Browser, collector: &Collector, name: &str) -> Result<()> {
    let account = collector.account(name, "system_engineer").await?;
    browser.goto(format!("{}/sign-in", collector.web_url())).await?;
    browser.find(By::Name("username")).await?.send_keys(&account.username).await?;
    browser.find(By::Name("password")).await?.send_keys(&account.password).await?;
    browser.find(By::Css("main form button.primary")).await?.click().await?;
    let field = browser.query(By::Name("code")).first().await.context("the password is taken")?;
    field.send_keys(account.next_code().await?).await?;
    browser.find(By::Css("main form button.primary")).await?.click().await?;
    eventually("the code to be taken", SOON, async || Ok((browser.current_url().await?.path() == "/").then_some(()))).await
}

/// A peer whose every text is hostile, with a ticket.
async fn hostile_peer(scene: &Scene) -> Result<(WireAgent, String)> {
    let join = scene.collector.join_string(&[]).await?;
    let mut peer = WireAgent::enrol(&scene.collector.agents_url(), &join, HOSTILE).await?;
    let mut start = started(&[HOSTILE]);
    if let Payload::Started(told) = &mut start {
        for field in [&mut told.agent_version, &mut told.boot_id, &mut told.hostname, &mut told.platform] {
            *field = HOSTILE.to_owned();
        }
        told.services[0].title = HOSTILE.to_owned();
        told.services[0].checks = vec![HOSTILE.to_owned()];
    }
    let mut fault = change(HOSTILE, FaultChangeKind::Raised, None);
    if let Payload::Fault(told) = &mut fault {
        told.summary = HOSTILE.to_owned();
        told.grounds.unit = HOSTILE.to_owned();
        for check in &mut told.grounds.checks {
            for field in [&mut check.check, &mut check.kind, &mut check.reason, &mut check.text, &mut check.perf_data] {
                *field = HOSTILE.to_owned();
            }
        }
    }
    let records = vec![peer.record(Lane::Fault, start), peer.record(Lane::Fault, fault)];
    peer.report(records).await?;
    let ticket = scene.desk.ticket_about(&format!("service:{HOSTILE}")).await?;
    Ok((peer, text(&ticket, "ticket_id")?.to_owned()))
}

fn pages(appliance: &str, ticket: &str) -> Vec<String> {
    let mut pages: Vec<String> =
        ["/", "/tickets/open", "/appliances", "/customers", "/account"].iter().map(|p| (*p).to_owned()).collect();
    pages.push(format!("/tickets/{ticket}"));
    pages.push(format!("/appliances/{appliance}"));
    pages
}

async fn hostile_text_is_inert_in_the_browser(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let (peer, ticket) = hostile_peer(&scene).await?;
    let browser = Browser::open("en").await?;
    sign_in(&browser, &scene.collector, "reader").await?;
    let mut seen = 0;
    for page in pages(peer.enrolment.appliance.as_str(), &ticket) {
        browser.goto(format!("{}{page}", scene.collector.web_url())).await?;
        let pwned = browser.execute("return typeof window.pwned", Vec::new()).await?;
        assert_eq!(pwned.json(), "undefined", "{page} ran a script of an agent's");
        assert!(browser.find_all(By::Css("img[src=x], svg[onload], main script")).await?.is_empty(), "{page} took markup");
        seen += usize::from(browser.source().await?.contains("window.pwned=1"));
    }
    assert!(seen >= 3, "the text is shown, as text, on {seen} pages");
    browser.close().await
}

async fn every_page_in_the_browser_speaks_one_language(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut peer = scene.peer("box-1", &["shop"]).await?;
    let record = crate::scene::raise(&mut peer, "shop");
    peer.report(vec![record]).await?;
    let ticket = text(&scene.desk.ticket_about("service:shop").await?, "ticket_id")?.to_owned();
    let browser = Browser::open("en").await?;
    sign_in(&browser, &scene.collector, "reader").await?;
    for language in ["zh", "en"] {
        browser.goto(format!("{}/", scene.collector.web_url())).await?;
        switch_language(&browser, language).await?;
        for page in pages(peer.enrolment.appliance.as_str(), &ticket) {
            browser.goto(format!("{}{page}", scene.collector.web_url())).await?;
            let declared = browser.find(By::Tag("html")).await?.attr("lang").await?.context("a page says its language")?;
            assert!(declared.starts_with(language), "{page} says {declared}, not {language}");
            let shown = browser.execute(VISIBLE_WORDS, Vec::new()).await?;
            let mut shown = shown.json().as_str().context("the page's words")?.to_owned();
            for data in DATA {
                shown = shown.replace(data, " ");
            }
            let foreign = foreign_words(&shown, language);
            assert!(foreign.is_empty(), "{page} in {language}: {foreign:?}");
        }
    }
    browser.close().await
}

pub(crate) async fn switch_language(browser: &Browser, language: &str) -> Result<()> {
    let button = browser.find_all(By::Css(format!("form[action='/language'] button[value='{language}']"))).await?;
    if let Some(button) = button.first() {
        button.click().await?;
    }
    // Leaving the page at once would call the form back.
    eventually("the page to change its language", SOON, async || {
        let shown = browser.execute("return document.documentElement.lang", Vec::new()).await;
        Ok(shown.is_ok_and(|lang| lang.json().as_str().is_some_and(|lang| lang.starts_with(language))).then_some(()))
    })
    .await
}

/// The page's own words: what users and agents wrote (`data-text`), code and times left out.
const VISIBLE_WORDS: &str = "
    const page = document.body.cloneNode(true);
    page.querySelectorAll('[data-text], code, time, script, style, [lang]').forEach(e => e.remove());
    const labels = [...page.querySelectorAll('[aria-label], [placeholder], [title]')]
        .map(e => [e.getAttribute('aria-label'), e.getAttribute('placeholder'), e.getAttribute('title')].join(' '));
    return page.textContent + ' ' + labels.join(' ');";

/// What this story's people and machines wrote: it stands on pages of both languages.
const DATA: &[&str] = &[
    "operator@test.invalid",
    "reader@test.invalid",
    "admin@test.invalid",
    "connection refused",
    "Asia/Shanghai",
    "test-bank",
    "测试银行",
    "gateway",
    "reader",
    "重庆",
    "peer",
    "shop",
    "page",
    "Test",
    "test",
    "Wang",
];

/// Words that stand on pages of both languages: the product's name, units, ids.
const NEUTRAL: &[&str] = &["Mainstay", "http", "API", "ID", "CPU", "HTTP", "TLS", "UTC", "SHA", "OpenAPI", "TOTP", "IP"];

fn foreign_words(shown: &str, language: &str) -> Vec<String> {
    let is_han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    if language == "en" {
        return shown.split_whitespace().filter(|w| w.chars().any(is_han)).map(str::to_owned).collect();
    }
    shown
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| {
            w.len() > 2
                && w.starts_with(|c: char| c.is_ascii_alphabetic())
                && w.chars().skip(1).all(|c| c.is_ascii_lowercase())
                && !NEUTRAL.contains(w)
        })
        .map(str::to_owned)
        .collect()
}
