//! The agent updates itself by a signed file: the real reporter without rights, the real helper as root, the real collector. The old agent
//! judges the new one; what is bad goes back and makes one ticket, a line that is dead is nobody's fault. Without root they fail.

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::patience::{A_WHILE, SOON, eventually};
use e2e::renewing_box::{Manager, NewAgent, RenewingBox, SHIPPED};
use e2e::vendor::Vendor;
use serde_json::{Value, json};

/// A vendor, its collector, and one box.
struct Play {
    collector: Collector,
    desk: Desk,
    engineer: Desk,
    vendor: Vendor,
    renewing: RenewingBox,
    appliance: String,
}

impl Play {
    async fn begins(manager: Manager) -> Result<Self> {
        let mut collector = Collector::founded(Engine::Sqlite, Settings { releases: true, ..Settings::default() }).await?;
        let vendor = Vendor::of(&collector).await?;
        collector.start().await?;
        let desk = Desk::of(&collector).await?;
        let engineer = Desk::of_account(&collector.web_url(), &collector.account("lin", "system_engineer").await?).await?;
        let renewing = RenewingBox::running(&collector.join_string(&[]).await?, &vendor.root, manager).await?;
        let appliance = eventually("the box to say what runs on it", A_WHILE, async || {
            let boxes = desk.list("/appliances").await?;
            let Some(id) = boxes.first().and_then(|one| one["id"].as_str().or(one["appliance_id"].as_str())) else {
                return Ok(None);
            };
            let told = desk.get(&format!("/appliances/{id}/patches")).await?;
            Ok((told["installed"]["version"] == "2.0.0").then(|| id.to_owned()))
        });
        let appliance = appliance.await.with_context(|| renewing.logs())?;
        Ok(Self { collector, desk, engineer, vendor, renewing, appliance })
    }

    /// Publishes new agents; each file's name and its release's.
    async fn publishes<const N: usize>(&mut self, agents: [(&str, NewAgent, u32); N]) -> Result<[(String, String); N]> {
        let mut published = Vec::new();
        for (version, behaves, deadline_s) in agents {
            let (manifest, payload, release) = self.renewing.agent_of(version, behaves, deadline_s)?;
            published.push((self.vendor.publish(&manifest, &payload)?, release));
        }
        eventually("the collector to find the files good", A_WHILE, async || {
            let listed = self.collector.command(&["releases", "list"]).await?.stdout;
            let is_good = |file: &str| listed.lines().any(|line| line.contains(file) && line.contains("good"));
            Ok(published.iter().all(|(file, _)| is_good(file)).then_some(()))
        })
        .await?;
        published.try_into().map_err(|_| anyhow::anyhow!("{N} agents"))
    }

    async fn offers(&self, file: &str) -> Result<Value> {
        let wish = json!({"appliances": [self.appliance], "ordered": true, "mail": false});
        Ok(self.engineer.post(&format!("/releases/{file}/offers"), &wish).await?[0].clone())
    }

    /// Offers it, and waits until the offer stands so.
    async fn ends(&self, file: &str, state: &str) -> Result<Value> {
        let offered = self.offers(file).await?;
        let id = offered["offer_id"].as_str().with_context(|| format!("an offer: {offered}"))?.to_owned();
        let mut seen = Value::Null;
        let what = format!("the offer to be {state}");
        let ended = eventually(&what, A_WHILE, async || {
            seen = self.desk.get(&format!("/appliances/{}/patches", self.appliance)).await?;
            let offers = seen["offers"].as_array().cloned().unwrap_or_default();
            Ok(offers.into_iter().find(|one| one["offer_id"] == id.as_str() && one["state"] == state))
        });
        ended.await.with_context(|| format!("{seen:#}\n{}", self.renewing.logs()))
    }

    /// A helper of that release runs, and the new agent is on probation with it.
    async fn still_judges(&self, release: &str) -> Result<()> {
        eventually("the next helper to judge", SOON, async || {
            let on_probation = self.renewing.files("list").await?.iter().any(|file| file["step"] == "probation");
            Ok((on_probation && self.renewing.helper_runs()? == release).then_some(()))
        })
        .await
        .with_context(|| self.renewing.logs())
    }

    async fn everything_runs(&self, release: &str) -> Result<()> {
        let (mut seen, both) = (Vec::new(), [release, release]);
        eventually(&format!("everything to run {release}"), SOON, async || {
            seen = vec![self.renewing.reporter_runs()?, self.renewing.helper_runs()?];
            seen.extend(self.renewing.links()?);
            Ok((seen == [both, both].concat()).then_some(()))
        })
        .await
        .with_context(|| format!("{seen:?}\n{}", self.renewing.logs()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_new_agent_takes_the_old_ones_place_and_the_next_helper_is_the_new_one() -> Result<()> {
    let mut play = Play::begins(Manager::Nobody).await?;
    let agents = [("0.2.0", NewAgent::Good, 60), ("0.1.5", NewAgent::Good, 60)];
    let [(file, release), (older, _)] = play.publishes(agents).await?;
    play.ends(&file, "done").await?;
    play.everything_runs(&release).await?;

    let known = play.renewing.files("history").await?;
    let told = (&known[0]["product"], &known[0]["from_version"], &known[0]["to_version"]);
    assert_eq!(told, (&json!("mainstay-agent"), &json!("0.1.0"), &json!("0.2.0")), "{known:#?}");
    let patches = play.desk.get(&format!("/appliances/{}/patches", play.appliance)).await?;
    assert_eq!(patches["installed"]["version"], "2.0.0", "the product's version is not the agent's: {patches:#}");
    assert!(play.desk.tickets().await?.is_empty(), "a planned stop is no fault");

    // The new helper refuses an older one, and goes back when root says so.
    assert_eq!(play.ends(&older, "refused").await?["reason"], "version");
    let back = play.renewing.administrator(&["patch", "rollback"]).await?;
    assert_eq!(back.code, 11, "the product was never patched: {}{}", back.stdout, back.stderr);
    play.renewing.administrator(&["patch", "rollback", "agent"]).await?.good()?;
    play.everything_runs(SHIPPED).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_new_agent_goes_back_to_the_old_one_with_one_ticket_and_is_not_offered_again() -> Result<()> {
    let mut play = Play::begins(Manager::Nobody).await?;
    let agents = [
        ("0.2.0", NewAgent::EndsAtOnce, 3),
        ("0.2.1", NewAgent::Silent, 3),
        ("0.2.2", NewAgent::CutOff, 5),
        ("0.2.3", NewAgent::Good, 60),
    ];
    let [ends_at_once, silent, cut_off, good] = play.publishes(agents).await?;
    for ((file, _), reason) in [(ends_at_once, "unhealthy"), (silent, "unhealthy"), (cut_off, "cannot_reach")] {
        let offer = play.ends(&file, "rolled_back").await?;
        assert_eq!(offer["reason"], reason, "{file}: {offer:#}");
        play.everything_runs(SHIPPED).await.with_context(|| file.clone())?;
        let again = play.offers(&file).await?;
        assert!(again["offer_id"].is_null(), "{file}: it failed there and is not offered again: {again}");
    }
    let tickets = play.desk.tickets().await?;
    assert_eq!(tickets.len(), 1, "{tickets:#?}");
    assert!(tickets[0].to_string().contains("mainstay-agent"), "it says what failed: {tickets:#?}");
    // The one that is good is not held up by those before it.
    play.ends(&good.0, "done").await?;
    play.everything_runs(&good.1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_line_a_new_agent_is_judged_on_the_box_by_the_old_one_also_after_a_kill() -> Result<()> {
    let mut play = Play::begins(Manager::Sockets).await?;
    let (manifest, payload, release) = play.renewing.agent_of("0.2.0", NewAgent::Good, 6)?;
    let (name, bytes) = play.vendor.signed(&manifest, &payload)?;
    let stick = play.renewing.path(&name);
    std::fs::write(&stick, bytes)?;
    play.collector.link.cut();
    let stick = stick.display().to_string();
    let apply = async {
        play.renewing.administrator(&["patch", "apply", &stick, "--now"]).await?;
        anyhow::Ok(())
    };
    let in_probation = eventually("the new agent to be on probation", A_WHILE, async || {
        let files = play.renewing.files("list").await?;
        Ok(files.iter().any(|file| file["step"] == "probation").then_some(()))
    });
    tokio::select! {
        seen = in_probation => seen.with_context(|| play.renewing.logs())?,
        applied = apply => anyhow::bail!("it ended before the kill: {applied:?}\n{}", play.renewing.logs()),
    }
    assert_eq!(play.renewing.links()?, [release.clone(), SHIPPED.to_owned()], "in probation the old one is proven");
    play.renewing.kill_helper()?;
    play.still_judges(SHIPPED).await?;
    play.everything_runs(&release).await?;
    let known = play.renewing.files("history").await?;
    assert_eq!((&known[0]["step"], &known[0]["reason"][0]), (&json!("done"), &json!("not_reached")), "{known:#?}");

    play.collector.link.restore();
    // A fresh start waits for no back-off.
    play.renewing.restart_reporter()?;
    eventually("the vendor to hear of it", A_WHILE, async || {
        let told = play.desk.get(&format!("/appliances/{}/patches", play.appliance)).await?;
        let reports = told["reports"].as_array().cloned().unwrap_or_default();
        Ok(reports.iter().any(|one| one["product"] == "mainstay-agent" && one["step"] == "done").then_some(()))
    })
    .await
    .with_context(|| play.renewing.logs())?;
    assert!(play.desk.tickets().await?.is_empty(), "{:#?}", play.desk.tickets().await?);
    Ok(())
}
