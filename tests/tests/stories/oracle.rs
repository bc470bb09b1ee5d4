//! The oracle of every fault test at the collector (TRUST.md): what was accepted has exactly one event and one ticket, one clock per
//! opening, one notice per change of state, a second copy only where the answer was lost, and the chain of events verifies. It asks
//! the API, the command line and the mail server, never the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::patience::{A_WHILE, eventually};
use e2e::scripted_mail::{Mood, ScriptedMailServer, Taken};
use serde_json::Value;

use crate::load::LoadedPeer;
use crate::scene::{Scene, event_kinds, text};

/// What was looked at, for the record.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) faults: usize,
    pub(crate) tickets: usize,
    pub(crate) clocks: usize,
    pub(crate) mails: usize,
    /// Second copies that the rule allows.
    pub(crate) copies: usize,
}

/// Moments at which somebody could lose the answer of the mail server, as counts of mails taken until then.
pub(crate) type Cuts = Vec<usize>;

/// Notes such a moment: when every conversation of the one who was cut off has ended.
pub(crate) async fn note_cut(post: &ScriptedMailServer, cuts: &mut Cuts) -> Result<()> {
    eventually("the cut conversations to end", A_WHILE, async || Ok((post.conversations() == 0).then_some(()))).await?;
    cuts.push(post.taken().len());
    Ok(())
}

/// Lets the collector's clock run until every clock has ended and every notice is sent, then judges. Of a collector that fails, its
/// folder with records and log is kept.
pub(crate) async fn settle_and_judge(
    scene: &Scene,
    peers: &[LoadedPeer],
    post: &ScriptedMailServer,
    cuts: &Cuts,
    offset_s: &mut i64,
) -> Result<Verdict> {
    let verdict = async {
        settle(scene, post, cuts, offset_s).await?;
        judge(scene, peers, post, cuts).await
    };
    verdict.await.with_context(|| format!("its records and its log are kept in {}", keep_evidence(scene).display()))
}

/// Copies the collector's folder to where it outlives the test.
fn keep_evidence(scene: &Scene) -> PathBuf {
    let folder = scene.collector.folder();
    let kept = std::env::temp_dir().join(format!("mainstay-story-{}", folder.file_name().unwrap_or_default().display()));
    if let Err(error) = std::process::Command::new("cp").arg("-a").arg(folder).arg(&kept).status() {
        eprintln!("the evidence can't be kept: {error}");
    }
    kept
}

async fn settle(scene: &Scene, post: &ScriptedMailServer, cuts: &Cuts, offset_s: &mut i64) -> Result<()> {
    for _ in 0..4 {
        *offset_s += 11 * 60;
        jump(scene, post, cuts, *offset_s).await?;
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    eventually("every clock to end", A_WHILE, async || Ok((running_clocks(scene).await? == 0).then_some(()))).await?;
    eventually("every notice to be sent", A_WHILE, async || {
        // Leases and back-offs of the past end.
        *offset_s += 200;
        jump(scene, post, cuts, *offset_s).await?;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let waiting = waiting(scene).await?;
        ensure!(waiting.is_empty(), "these wait: {waiting:?}");
        Ok(Some(()))
    })
    .await
}

/// Moves the clock between two mails: to one under way, a jump is the end of its lease.
async fn jump(scene: &Scene, post: &ScriptedMailServer, cuts: &Cuts, offset_s: i64) -> Result<()> {
    post.set_mood(Mood::Dead);
    eventually("the mails under way to end", A_WHILE, async || Ok((post.handing_over() == 0).then_some(()))).await?;
    // Taken and not recorded yet: another node would take the lease for over. What was taken before a cut may never be recorded.
    let since = cuts.last().copied().unwrap_or_default();
    let recorded = async || Ok(waiting(scene).await?.is_disjoint(&acknowledged_since(post, since)).then_some(()));
    eventually("what was taken to be recorded", A_WHILE, recorded).await?;
    scene.collector.clock()?.jump_to_offset(offset_s)?;
    post.set_mood(Mood::Accepts);
    Ok(())
}

/// Notices that are not sent.
async fn waiting(scene: &Scene) -> Result<BTreeSet<String>> {
    let listed = scene.collector.command(&["notice", "list", "--state", "waiting", "--json"]).await?.good()?.stdout;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    listed.iter().map(|notice| Ok(text(notice, "notice_id")?.to_owned())).collect()
}

/// Notices whose sender was told that they are taken, since so many were.
fn acknowledged_since(post: &ScriptedMailServer, since: usize) -> BTreeSet<String> {
    post.taken().iter().skip(since).filter(|taken| taken.acknowledged).map(notice_id).collect()
}

fn notice_id(taken: &Taken) -> String {
    let id = taken.mail.message_id.split('@').next().unwrap_or_default();
    id.trim_start_matches('<').to_owned()
}

async fn running_clocks(scene: &Scene) -> Result<usize> {
    let mut running = 0;
    for ticket in scene.desk.tickets().await? {
        let full = scene.desk.ticket(text(&ticket, "ticket_id")?).await?;
        running += items(&full, "clocks").iter().filter(|clock| clock["state"] == "running").count();
    }
    Ok(running)
}

/// Judges what stands now.
pub(crate) async fn judge(scene: &Scene, peers: &[LoadedPeer], post: &ScriptedMailServer, cuts: &Cuts) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut raised: BTreeSet<String> = peers.iter().flat_map(LoadedPeer::raised).collect();
    let cleared: BTreeSet<String> = peers.iter().flat_map(LoadedPeer::cleared).collect();
    let mut alive: BTreeSet<(String, String)> = BTreeSet::new();
    let mut expected_mails: BTreeSet<String> = BTreeSet::new();
    for ticket in scene.desk.tickets().await? {
        let id = text(&ticket, "ticket_id")?.to_owned();
        ensure!(ticket["source"] == "agent", "nobody was silent: {ticket}");
        if ticket["state"] != "closed" {
            let cause = (text(&ticket, "appliance_id")?.to_owned(), text(&ticket, "component")?.to_owned());
            ensure!(alive.insert(cause.clone()), "two living tickets about {cause:?}");
        }
        let full = scene.desk.ticket(&id).await?;
        one_event_per_fault(&full, &mut raised, &cleared).with_context(|| format!("{id}: {full}"))?;
        verdict.clocks += one_clock_per_opening(&full).with_context(|| format!("{id}: {full}"))?;
        let notices = scene.desk.get(&format!("/tickets/{id}/notices")).await?;
        let notices = notices.as_array().cloned().unwrap_or_default();
        one_notice_per_change(&full, &notices).with_context(|| format!("{id}: {notices:?}"))?;
        for notice in &notices {
            expected_mails.insert(text(notice, "notice_id")?.to_owned());
        }
        verdict.faults += items(&full, "episodes").len();
        verdict.tickets += 1;
    }
    ensure!(raised.is_empty(), "accepted and lost: {raised:?}");
    verdict.copies = copies_are_allowed(post, &expected_mails, cuts, &scene.collector.log_text())?;
    verdict.mails = expected_mails.len();
    scene.collector.command(&["audit", "verify"]).await?.good().context("audit verify")?;
    Ok(verdict)
}

fn items(full: &Value, name: &str) -> Vec<Value> {
    full[name].as_array().cloned().unwrap_or_default()
}

fn one_event_per_fault(full: &Value, raised: &mut BTreeSet<String>, cleared: &BTreeSet<String>) -> Result<()> {
    let kinds = event_kinds(full);
    let count = |wanted: &[&str]| kinds.iter().filter(|kind| wanted.contains(&kind.as_str())).count();
    let episodes = items(full, "episodes");
    for episode in &episodes {
        let id = text(episode, "episode")?;
        ensure!(raised.remove(id), "{id} stands twice, or was never accepted");
        ensure!(episode["open"] != cleared.contains(id), "{id}: its end was accepted or it was not: {episode}");
    }
    let begun = count(&["opened", "joined", "reopened"]);
    ensure!(count(&["opened"]) == 1 && begun == episodes.len(), "{begun} events of {} faults: {kinds:?}", episodes.len());
    let ended = episodes.iter().filter(|episode| episode["open"] == false).count();
    // What was over when it was told opens its ticket as recovered, in one event.
    let told = items(full, "timeline");
    let over_at_once = told.iter().filter(|entry| entry["event"]["already_recovered"] == true).count();
    ensure!(count(&["episode_cleared"]) + over_at_once == ended, "{ended} faults ended: {kinds:?}");
    Ok(())
}

fn one_clock_per_opening(full: &Value) -> Result<usize> {
    let (clocks, timeline) = (items(full, "clocks"), items(full, "timeline"));
    let kinds = event_kinds(full);
    let openings = kinds.iter().filter(|kind| ["opened", "reopened"].contains(&kind.as_str())).count();
    ensure!(clocks.len() == openings, "{} clocks of {openings} openings", clocks.len());
    for (n, clock) in clocks.iter().enumerate() {
        ensure!(clock["clock_no"] == n + 1, "{clock}");
        let told = |kind: &str| {
            let of = |entry: &&Value| entry["event"]["type"] == kind && entry["event"]["clock_no"] == clock["clock_no"];
            timeline.iter().filter(of).count()
        };
        ensure!(told("clock_warned") <= 1 && told("clock_missed") <= 1, "told twice: {clock}");
        ensure!((clock["state"] == "missed") == (told("clock_missed") == 1), "{clock}");
        ensure!((clock["state"] == "void") != (told("clock_started") == 1), "{clock}");
    }
    Ok(clocks.len())
}

fn one_notice_per_change(full: &Value, notices: &[Value]) -> Result<()> {
    let kinds = event_kinds(full);
    let timeline = items(full, "timeline");
    let late = timeline.iter().filter(|entry| entry["event"]["already_recovered"] == true).count();
    let mut told: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for notice in notices {
        ensure!(notice["state"] == "sent", "{notice}");
        *told.entry((text(notice, "recipient")?, text(notice, "kind")?)).or_default() += 1;
    }
    let recipients: BTreeSet<&str> = told.keys().filter(|(_, kind)| *kind != "missed").map(|(to, _)| *to).collect();
    for kind in ["opened", "reopened", "recovered"] {
        let events = kinds.iter().filter(|k| *k == kind).count() - if kind == "opened" { late } else { 0 };
        for to in &recipients {
            let mails = told.get(&(*to, kind)).copied().unwrap_or_default();
            ensure!(mails == events || mails == 0, "{to}: {mails} mails of {events} events {kind}");
        }
        let anybody = recipients.iter().any(|to| told.contains_key(&(*to, kind)));
        ensure!(events == 0 || anybody, "nobody was told of {kind}");
    }
    let sent = kinds.iter().filter(|kind| *kind == "notice_sent").count();
    ensure!(sent == notices.len(), "{sent} sent of {} notices", notices.len());
    Ok(())
}

/// Every notice was taken; a second copy only if the first one's answer was lost: by the server, or by a cut between the two.
fn copies_are_allowed(post: &ScriptedMailServer, expected: &BTreeSet<String>, cuts: &Cuts, log: &str) -> Result<usize> {
    let taken = post.taken();
    let mut copies: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, mail) in taken.iter().enumerate() {
        copies.entry(notice_id(mail)).or_default().push(place);
    }
    for id in expected {
        ensure!(copies.contains_key(id), "notice {id} counts as sent and never reached the mail server");
    }
    let mut seconds = 0;
    for (id, places) in &copies {
        for two in places.windows(2) {
            let lost = !taken[two[0]].acknowledged || cuts.iter().any(|cut| two[0] < *cut && *cut <= two[1]);
            let said = || log.lines().filter(|line| line.contains(id)).collect::<Vec<_>>().join("\n");
            ensure!(lost, "notice {id} came twice though its answer had arrived ({two:?}, cuts {cuts:?}):\n{}", said());
            seconds += 1;
        }
    }
    Ok(seconds)
}
