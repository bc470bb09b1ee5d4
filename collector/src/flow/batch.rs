//! A batch: the messages of several appliances in one transaction. What they need is loaded with one statement a table, each
//! message is taken in its order, what moved is written with one statement a table.
//!
//! It answers nobody: the worker does, after the commit (R28).

use std::collections::{BTreeSet, HashMap, HashSet};

use mainstay_shared::directive::Directive;
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::ids::{Epoch, Lane};
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::faults_arrive::weigh_again;
use super::heartbeat_arrives::heartbeat_arrives;
use super::report_arrives::{Outcome, Taking, lane_key, report_arrives};
use crate::appliances::links::{LinkKey, LoadedLink};
use crate::appliances::{Identity, directives, links};
use crate::audit;
use crate::db::{Conn, mark_change};
use crate::intake::marks::Marks;
use crate::intake::ready::ReadyReport;
use crate::intake::{LaneKey, store as records};

/// What an agent sent.
#[derive(Debug)]
pub(crate) enum Message {
    /// Spooled records.
    Report(ReadyReport),
    /// The request of a long poll.
    Heartbeat(PollRequest),
}

/// A message, from whom, and when it came.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) who: Identity,
    pub(crate) received_at: UnixMs,
    pub(crate) message: Message,
}

/// What became of a message, committed.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A report, with the head of its tenant's audit chain at commit.
    Report(Outcome, (i64, String)),
    /// A heartbeat, with what is asked of the appliance now.
    Heartbeat(Vec<Directive>),
    /// The appliance is gone.
    Gone,
}

/// Takes a batch; whether something changed that a page shows.
///
/// # Errors
/// If the database refuses.
pub(super) async fn take_batch(
    tx: &mut Conn,
    world: &World,
    ended_epochs: &HashMap<LinkKey, u32>,
    batch: &[&Said],
) -> anyhow::Result<(Vec<Answer>, bool)> {
    let keys: HashSet<LinkKey> = batch.iter().map(|said| links::key(&said.who)).collect();
    let links = links::load(tx, &keys.into_iter().collect::<Vec<_>>()).await?;
    let marks = load_marks(tx, batch, &links).await?;
    let mut taking = Taking {
        tx,
        config: &world.config,
        rng: &world.rng,
        links,
        marks,
        samples: Vec::new(),
        losses: Vec::new(),
        ended_epochs,
        changed: false,
    };
    let mut answers = Vec::with_capacity(batch.len());
    for said in batch {
        answers.push(match &said.message {
            Message::Report(report) => {
                Answer::Report(report_arrives(&mut taking, &said.who, said.received_at, report).await?, (0, String::new()))
            }
            Message::Heartbeat(request) => {
                if heartbeat_arrives(&mut taking, &said.who, said.received_at, request).await? {
                    Answer::Heartbeat(Vec::new())
                } else {
                    Answer::Gone
                }
            }
        });
    }
    let Taking { tx, mut links, marks, samples, losses, changed, .. } = taking;
    save_marks(tx, &mut links, &marks).await?;
    links::save(tx, &links).await?;
    for tenant_id in left(batch, &answers) {
        weigh_again(tx, &world.config, world.time.now(), tenant_id).await?;
    }
    records::add_samples(tx, samples).await?;
    records::add_losses(tx, &losses, world.time.now()).await?;
    complete(tx, world, batch, &mut answers).await?;
    if changed {
        mark_change(tx).await?;
    }
    Ok((answers, changed))
}

/// The customers of which an appliance says goodbye.
fn left<'b>(batch: &[&'b Said], answers: &[Answer]) -> BTreeSet<&'b str> {
    let leaves = |answer: &Answer| matches!(answer, Answer::Report(Outcome::Taken(taken), _) if taken.says_goodbye);
    batch.iter().zip(answers).filter(|(_, answer)| leaves(answer)).map(|(said, _)| said.who.tenant_id.as_str()).collect()
}

/// The marks that a batch needs: those of the present runs came with the links; rows are asked for other runs only.
async fn load_marks(tx: &mut Conn, batch: &[&Said], links: &HashMap<LinkKey, LoadedLink>) -> anyhow::Result<Marks> {
    let mut marks = Marks::default();
    let mut other_runs: HashSet<Vec<String>> = HashSet::new();
    for said in batch {
        let Message::Report(report) = &said.message else { continue };
        let key = links::key(&said.who);
        let Some(link) = links.get(&key).map(LoadedLink::link) else { continue };
        for epoch in report.records.iter().map(|record| &record.id.epoch).chain([&report.epoch]) {
            if link.epoch == epoch.as_str() {
                marks.loaded(lane_key(&key, epoch, Lane::Fault), link.fault_mark);
                marks.loaded(lane_key(&key, epoch, Lane::Sample), link.sample_mark);
            } else {
                other_runs.insert(vec![key.0.clone(), key.1.clone(), epoch.to_string()]);
            }
        }
        // A run that this batch ends takes its marks along into rows of their own.
        if let Ok(present) = link.epoch.parse::<Epoch>()
            && present != report.epoch
        {
            marks.loaded(lane_key(&key, &present, Lane::Fault), link.fault_mark);
            marks.loaded(lane_key(&key, &present, Lane::Sample), link.sample_mark);
        }
    }
    let other_runs: Vec<_> = other_runs.into_iter().collect();
    for (lane, seq) in records::load_marks(tx, &other_runs).await? {
        marks.loaded(lane, seq);
    }
    Ok(marks)
}

/// Puts the marks of present runs into their links, writes the others.
async fn save_marks(tx: &mut Conn, links: &mut HashMap<LinkKey, LoadedLink>, marks: &Marks) -> anyhow::Result<()> {
    for (key, loaded) in &mut *links {
        let Ok(present) = loaded.link().epoch.parse::<Epoch>() else { continue };
        if !loaded.is_touched() {
            continue;
        }
        // A batch without a report of it has loaded no marks for it.
        let goes_on = loaded.link().epoch == loaded.loaded_epoch;
        let settled = |lane, stored: u64| marks.of(&lane_key(key, &present, lane)).max(if goes_on { stored } else { 0 });
        let link = loaded.touch();
        link.fault_mark = settled(Lane::Fault, link.fault_mark);
        link.sample_mark = settled(Lane::Sample, link.sample_mark);
    }
    let epoch_of = |lane: &LaneKey, epoch: fn(&LoadedLink) -> &str| {
        links.get(&(lane.tenant_id.clone(), lane.appliance_id.clone())).is_some_and(|loaded| epoch(loaded) == lane.epoch.as_str())
    };
    let ended = marks.ended(|lane| epoch_of(lane, |now| &now.link().epoch), |lane| epoch_of(lane, |was| &was.loaded_epoch));
    Ok(records::save_marks(tx, ended).await?)
}

/// Adds to the answers what is read once for the whole batch: open directives, heads of audit chains.
async fn complete(tx: &mut Conn, world: &World, batch: &[&Said], answers: &mut [Answer]) -> anyhow::Result<()> {
    let polling: HashSet<LinkKey> =
        batch.iter().filter(|said| matches!(said.message, Message::Heartbeat(_))).map(|said| links::key(&said.who)).collect();
    let polling: Vec<_> = polling.into_iter().collect();
    let open = directives::open_of(tx, &polling, world.time.now()).await?;
    let mut heads: HashMap<&str, (i64, String)> = HashMap::new();
    for (said, answer) in batch.iter().zip(answers) {
        match answer {
            Answer::Heartbeat(directives) => *directives = open.get(&links::key(&said.who)).cloned().unwrap_or_default(),
            Answer::Report(Outcome::Taken(taken), head) if !taken.receipted.is_empty() => {
                let tenant = said.who.tenant_id.as_str();
                if !heads.contains_key(tenant) {
                    heads.insert(tenant, audit::head(tx, tenant).await?);
                }
                if let Some(found) = heads.get(tenant) {
                    head.clone_from(found);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
