//! What stories of signed files share: a vendor, its collector with mail, one whole box, an engineer's desk, and what a person does with
//! the link of a mail.

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::packing::packing;
use e2e::patch_box::PatchBox;
use e2e::patience::{A_WHILE, eventually};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::vendor::Vendor;
use reqwest::{Client, Method, Response};
use ring::rand::SecureRandom as _;
use semver::Version;
use serde_json::{Value, json};

use crate::scene::Scene;

/// What no packer makes smaller.
pub(crate) fn noise(bytes: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; bytes];
    ring::rand::SystemRandom::new().fill(&mut noise).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(noise)
}

/// A vendor, its collector with mail, and one box.
pub(crate) struct Play {
    pub(crate) scene: Scene,
    pub(crate) vendor: Vendor,
    post: ScriptedMailServer,
    pub(crate) patched: PatchBox,
    pub(crate) appliance: String,
    pub(crate) engineer: Desk,
}

impl Play {
    /// A vendor with a repository, its customer's box with version 2.0.0 on it. `helper` and `patches` are TOML, see [`PatchBox::enrolled`].
    pub(crate) async fn begins(helper: &str, patches: &str) -> Result<Self> {
        let post = ScriptedMailServer::start(Mood::Accepts).await?;
        let mail = Some(MailWay { port: post.port(), ca_file: None });
        let settings = Settings { mail, releases: true, ..Settings::default() };
        Self::at(Collector::founded(Engine::Sqlite, settings).await?, post, helper, patches).await
    }

    /// At a collector that was founded, whose mails go to `post`.
    pub(crate) async fn at(mut collector: Collector, post: ScriptedMailServer, helper: &str, patches: &str) -> Result<Self> {
        // A node reads its online keys when it starts.
        let vendor = Vendor::of(&collector).await?;
        collector.start().await?;
        let scene = Scene { desk: Desk::of(&collector).await?, collector };
        let lin = scene.collector.account("lin", "system_engineer").await?;
        let engineer = Desk::of_account(&scene.collector.web_url(), &lin).await?;
        let patched = PatchBox::enrolled(&scene.collector.join_string(&[]).await?, &vendor.root, helper, patches).await?;
        let mut play = Self { scene, vendor, post, patched, appliance: String::new(), engineer };
        play.appliance = eventually("the box to say what runs on it", A_WHILE, async || {
            let boxes = play.scene.desk.list("/appliances").await?;
            let Some(id) = boxes.first().and_then(|one| one["id"].as_str().or(one["appliance_id"].as_str())) else {
                return Ok(None);
            };
            let told = play.scene.desk.get(&format!("/appliances/{id}/patches")).await?;
            Ok((told["installed"]["version"] == "2.0.0").then(|| id.to_owned()))
        })
        .await
        .with_context(|| play.patched.logs())?;
        Ok(play)
    }

    /// Publishes a version; the file's name. Its service answers unless `content` begins with `broken`.
    pub(crate) async fn publishes(&mut self, version: Version, content: &[u8]) -> Result<String> {
        let file = self.vendor.publish_patch(version, &packing("/bin/sleep", content)?)?;
        self.is_listed(&file).await?;
        Ok(file)
    }

    /// Waits until the collector has verified it.
    pub(crate) async fn is_listed(&self, file: &str) -> Result<()> {
        eventually("the collector to find the file good", A_WHILE, async || {
            let listed = self.scene.collector.command(&["releases", "list"]).await?.stdout;
            Ok(listed.lines().any(|line| line.contains(file) && line.contains("good")).then_some(()))
        })
        .await
    }

    /// Offers a file to the box, by mail too; what the collector answers.
    pub(crate) async fn offers(&self, file: &str) -> Result<Value> {
        self.offers_from(file, "").await
    }

    /// The same from a ticket.
    pub(crate) async fn offers_from(&self, file: &str, ticket: &str) -> Result<Value> {
        let wish = json!({"appliances": [self.appliance], "ticket": ticket, "ordered": true, "mail": true});
        let told = self.engineer.post(&format!("/releases/{file}/offers"), &wish).await?;
        Ok(told[0].clone())
    }

    /// Waits for the offer in this state, as the API shows it.
    pub(crate) async fn offer_stands(&self, offer: &str, state: &str) -> Result<Value> {
        let path = format!("/appliances/{}/patches", self.appliance);
        let mut seen = Value::Null;
        eventually(&format!("the offer to be {state}"), A_WHILE, async || {
            seen = self.scene.desk.get(&path).await?;
            let offers = seen["offers"].as_array().cloned().unwrap_or_default();
            Ok(offers.into_iter().find(|one| one["offer_id"] == offer && one["state"] == state))
        })
        .await
        .with_context(|| format!("{seen:#}\n{}", self.patched.logs()))
    }

    /// The page that the mail of the newest offer leads to.
    pub(crate) async fn link(&self) -> Result<String> {
        eventually("a mail with a link", A_WHILE, async || Ok(self.link_about(""))).await
    }

    /// The page of the newest mail that names `file`, if there is one.
    pub(crate) fn link_about(&self, file: &str) -> Option<String> {
        let mails = self.post.taken();
        let path = mails.iter().rev().filter(|taken| taken.mail.text.contains(file)).find_map(|taken| {
            let at = taken.mail.text.find("/p/")?;
            taken.mail.text[at..].split(|c: char| c.is_whitespace() || c == '>' || c == '?').next()
        })?;
        Some(format!("{}{path}", self.scene.collector.web_url()))
    }

    /// A form of the link's page, as a browser sends it; status and where it leads.
    pub(crate) async fn types(&self, link: &str, verb: &str, fields: &[(&str, &str)]) -> Result<String> {
        let form = fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let answer = Self::visits(Method::POST, &format!("{link}/{verb}"), form).await?;
        Ok(format!("{} {:?}", answer.status(), answer.headers().get("location")))
    }

    /// Anybody's request; redirects are not followed.
    pub(crate) async fn visits(method: Method, url: &str, form: String) -> Result<Response> {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let request = client.request(method, url).header("Content-Type", "application/x-www-form-urlencoded").body(form);
        Ok(request.send().await?)
    }

    /// The offer that was made.
    pub(crate) fn offer_id(offered: &Value) -> Result<String> {
        Ok(offered["offer_id"].as_str().with_context(|| format!("an offer: {offered}"))?.to_owned())
    }
}
