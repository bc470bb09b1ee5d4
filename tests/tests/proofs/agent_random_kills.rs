//! The real agent killed at random moments while real services fail and recover before it, and answers are lost behind it. What its
//! log says to be recorded is told exactly once; each episode begins once and ends once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::http_service;
use e2e::business::BusinessService;
use e2e::patience::{A_WHILE, eventually};
use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::{EpisodeId, RecordId};
use mainstay_shared::record::Payload;

use crate::lab::{Dice, Lab, Scale, replay};

const SERVICES: usize = 4;
/// The latest kill after its start: long enough for a check with its retries.
const LATEST_MS: u64 = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_while_services_fail_cost_no_fault_and_double_none() {
    let scale = Scale::from_environment();
    let (seeds, kills) = if scale.whole { (scale.seeds(3, 1), 40) } else { (scale.seeds(1, 1), 5) };
    let mut points = 0;
    for &seed in &seeds {
        points += replay("kills_at_random_while_services_fail", seed, killed(seed, kills).await);
        println!("progress: seed {seed}: {points} kills so far");
    }
    println!("soak: part=agent-random-kills points={points} seeds={} losses=0", seeds.len());
}

async fn killed(seed: u64, kills: u64) -> Result<u64> {
    let mut dice = Dice::new(seed);
    let (mut services, mut declared) = (Vec::new(), "[probes]\ninterval = \"1s\"\n\n".to_owned());
    for n in 0..SERVICES {
        let service = BusinessService::start().await?;
        declared.push_str(&http_service(&format!("shop-{n}"), &service.url()));
        services.push(service);
    }
    let mut lab = Lab::with(None, &declared).await?;
    lab.start().await?;
    for _ in 0..kills {
        lab.ledger.be_away(dice.below(3) == 0);
        lab.ledger.lose_every([0, 2, 3][usize::try_from(dice.below(3))?]);
        for service in &services {
            service.answer(if dice.below(2) == 0 { 200 } else { 503 });
        }
        tokio::time::sleep(Duration::from_millis(dice.below(LATEST_MS))).await;
        lab.agent.kill()?;
        lab.start().await?;
        lab.judge("a kill at a random moment").await?;
    }
    services.iter().for_each(|service| service.answer(200));
    lab.ledger.be_away(false);
    lab.ledger.lose_every(0);
    eventually("every service to be known as well again, and no fault open", A_WHILE, async || {
        let status = lab.agent.status().await?;
        let open = status["open_faults"].as_array().context("open_faults")?;
        let services = status["services"].as_object().context("services")?;
        let well = services.values().all(|service| service["state"] == "up");
        Ok((well && open.iter().all(|fault| fault["code"] == "agent_safe_mode")).then_some(()))
    })
    .await?;
    lab.settle("the last kill").await?;
    let changes: BTreeMap<RecordId, FaultChange> = lab
        .ledger
        .taken()
        .into_iter()
        .filter_map(|(id, record)| if let Payload::Fault(change) = record.payload { Some((id, change)) } else { None })
        .collect();
    let recorded = recorded(&lab.agent.log_text());
    ensure!(!recorded.is_empty(), "the log tells of no record: nothing was proved");
    for id in recorded {
        ensure!(changes.contains_key(&id), "{id} was recorded, says the log, and was never told");
    }
    each_episode_begins_and_ends_once(&changes)?;
    Ok(kills)
}

/// The records that the agent's log tells of.
fn recorded(log: &str) -> BTreeSet<RecordId> {
    let ids = log.split("record=").skip(1);
    ids.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

fn each_episode_begins_and_ends_once(changes: &BTreeMap<RecordId, FaultChange>) -> Result<()> {
    let mut ends: BTreeMap<&EpisodeId, u32> = BTreeMap::new();
    for (id, change) in changes {
        let Some(episode) = &change.episode else { continue };
        let raised = changes.get(episode).filter(|raise| raise.kind == FaultChangeKind::Raised && raise.key == change.key);
        ensure!(raised.is_some(), "{id} speaks of episode {episode}, which nothing raised: {change:?}");
        *ends.entry(episode).or_default() += u32::from(change.kind == FaultChangeKind::Cleared);
    }
    let services = changes.iter().filter(|(_, change)| change.kind == FaultChangeKind::Raised && change.key.service().is_some());
    let mut episodes = 0;
    for (id, raise) in services {
        let ended = ends.get(id).copied().unwrap_or(0);
        ensure!(ended == 1, "episode {id} of {} ended {ended} times", raise.key.component);
        episodes += 1;
    }
    ensure!(episodes > 0, "no service ever failed: nothing was proved");
    Ok(())
}
