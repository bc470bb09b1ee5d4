//! Signed files as people meet them: a mail gateway that presses every button, a customer who refuses with a reason, an administrator who
//! pastes the link, a box that was cut off before, an engineer who has an action run from a ticket.

use anyhow::{Context as _, Result};
use e2e::patience::{A_WHILE, eventually};
use e2e::vendor::Vendor;
use reqwest::Method;
use semver::Version;
use serde_json::Value;

use crate::play::Play;

/// What an event says of a file, wherever it stands in the story.
fn tells(story: &Value, what: &str, text: &str) -> bool {
    let events = story.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(Value::to_string).any(|event| event.contains(&format!("\"what\":\"{what}\"")) && event.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_gateway_presses_every_button_in_vain_and_a_refusal_reaches_the_vendor_with_its_reason() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    play.patched.stop_service()?;
    let ticket = play.scene.desk.ticket_about("service:web").await?["ticket_id"].as_str().context("a ticket")?.to_owned();
    let file = play.publishes(Version::new(2, 1, 0), b"new").await?;
    let offer = Play::offer_id(&play.offers_from(&file, &ticket).await?)?;
    let link = play.link().await?;
    let code = play.patched.code("patch").await?;
    for _ in 0..20 {
        for method in [Method::GET, Method::HEAD] {
            assert!(Play::visits(method, &link, String::new()).await?.status().is_success());
        }
        for (verb, form) in [("approve", ""), ("refuse", "&reason=spam"), ("receipt", "&receipt=x"), ("approve", "&code=x")] {
            let answer = Play::visits(Method::POST, &format!("{link}/{verb}"), format!("offer={offer}{form}")).await?;
            assert!(answer.status().is_redirection(), "{verb}: {}", answer.status());
        }
        assert!(Play::visits(Method::POST, &format!("{link}/download"), String::new()).await?.status().is_success());
    }
    let told = play.offer_stands(&offer, "awaiting_consent").await?;
    assert_eq!((told["decision"].as_str(), play.patched.code("patch").await?), (Some(""), code.clone()), "{told}");
    assert_eq!(play.patched.content()?, "old");

    let why = [("offer", offer.as_str()), ("code", code.as_str()), ("reason", "month-end+closing%2C+ask+again")];
    play.types(&link, "refuse", &why).await?;
    let refused = play.offer_stands(&offer, "refused").await?;
    assert!(refused["detail"].as_str().is_some_and(|why| why.contains("month-end closing, ask again")), "{refused}");
    eventually("the ticket to tell of the refusal", A_WHILE, async || {
        let shown = play.scene.desk.ticket(&ticket).await?;
        Ok(tells(&shown["timeline"], "refused", "month-end closing, ask again").then_some(()))
    })
    .await?;
    assert_eq!(play.patched.waiting("patch").await?, Vec::<Value>::new(), "nothing is asked of the customer any more");
    let history = play.patched.administrator(&["patch", "history"]).await?.good()?.stdout;
    assert!(history.contains("month-end closing, ask again"), "{history}");
    let late = play.types(&link, "approve", &why[..2]).await?;
    assert!(late.contains("refused_offer_over"), "{late}");
    assert_eq!(play.patched.content()?, "old");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_cut_off_from_the_vendor_takes_the_link_stays_patched_reports_later_and_goes_back_when_told() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    // It hears of no offer: the line of the agents is cut, as behind a firewall that lets only browsers out.
    play.scene.collector.link.cut();
    let file = play.publishes(Version::new(2, 1, 0), b"new").await?;
    let offer = Play::offer_id(&play.offers(&file).await?)?;
    let link = play.link().await?;
    let expired = format!("{}0", &link[..link.len() - 1]);
    let expired = if expired == link { format!("{}1", &link[..link.len() - 1]) } else { expired };
    let none = play.patched.administrator(&["patch", "apply", &expired]).await?;
    assert!(none.code == 11 && none.stderr.contains("not known, or has expired"), "{none:?}");

    let looked = play.patched.administrator(&["patch", "verify", &link]).await?.good()?;
    assert!(looked.stderr.contains("download 100 %") && looked.stdout.contains("2.0.0 → 2.1.0"), "{looked:?}");
    let applied = play.patched.administrator(&["patch", "apply", &link, "--now"]).await?;
    assert_eq!(applied.code, 0, "{}{}\n{}", applied.stdout, applied.stderr, play.patched.logs());
    assert_eq!(play.patched.content()?, "new");
    let kept = play.patched.agent()?.state_dir().join("link");
    let left: Vec<_> =
        std::fs::read_dir(kept)?.flatten().filter(|entry| entry.path().extension() == Some("mpatch".as_ref())).collect();
    assert!(left.is_empty(), "what the helper has taken is not kept twice: {left:?}");

    play.scene.collector.link.restore();
    play.offer_stands(&offer, "done").await?;
    let back = play.patched.administrator(&["patch", "rollback"]).await?;
    assert_eq!(back.code, 0, "{}{}", back.stdout, back.stderr);
    assert_eq!(play.patched.content()?, "old");
    eventually("the vendor to see the version before again", A_WHILE, async || {
        let told = play.scene.desk.get(&format!("/appliances/{}/patches", play.appliance)).await?;
        Ok((told["installed"]["version"] == "2.0.0").then_some(()))
    })
    .await?;
    let over = play.patched.administrator(&["patch", "apply", &link]).await?;
    assert!(over.code == 11 && over.stderr.contains("the offer of this link is over"), "{over:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_ordered_from_the_ticket_starts_the_service_again_and_the_ticket_tells_it() -> Result<()> {
    let mut play = Play::begins("", "").await?;
    play.patched.stop_service()?;
    let ticket = play.scene.desk.ticket_about("service:web").await?["ticket_id"].as_str().context("a ticket")?.to_owned();
    let start = play.patched.file("web-start").display().to_string();
    let action = Vendor::action("start-web-1", &["/bin/sh", "-c", &format!("{start}; echo started by the action")]);
    let file = play.vendor.publish(&action, &[])?;
    play.is_listed(&file).await?;
    let offer = Play::offer_id(&play.offers_from(&file, &ticket).await?)?;
    let waiting = play.patched.waits("action").await?;
    let sha256 = waiting["sha256"].as_str().context("a hash")?.to_owned();
    play.patched.administrator(&["action", "run", &sha256[..12]]).await?.good()?;
    play.offer_stands(&offer, "done").await?;
    let told = eventually("the ticket to tell the action's end and to recover", A_WHILE, async || {
        let shown = play.scene.desk.ticket(&ticket).await?;
        let whole = tells(&shown["timeline"], "done", "started by the action") && !shown["ticket"]["recovered_at"].is_null();
        Ok(whole.then_some(shown))
    });
    told.await.with_context(|| play.patched.logs())?;
    Ok(())
}
