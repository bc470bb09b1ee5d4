//! The agent as a guest on somebody's machine: no listening socket (R15), one process, few threads and files, and none of it grows
//! with the questions it asks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::business::BusinessService;
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};

use crate::scene::Scene;

both_databases!(an_agent_at_work_listens_nowhere_and_stays_one_small_process);

async fn an_agent_at_work_listens_nowhere_and_stays_one_small_process(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let shop = BusinessService::start().await?;
    let plugin = "[[service.check]]\nname = \"queue\"\nkind = \"plugin\"\ncommand = [\"/bin/true\"]\n\n\
                  [probes]\ninterval = \"1s\"\n\n[probes.cpu]\nenabled = true\n\n[probes.disk]\nenabled = true\n";
    let config = [http_service("shop", &shop.url()), plugin.to_owned()].concat();
    let mut agent = Agent::running(&scene.collector.join_string(&[]).await?, &config).await?;
    agent.sees("shop", "up").await?;
    let proc = format!("/proc/{}", agent.process()?.pid());
    let proc = Path::new(&proc);
    let files = open_files(proc)?;
    let asked = shop.asked();
    eventually("five more rounds", A_WHILE, async || Ok((shop.asked() >= asked + 5).then_some(()))).await?;

    assert_eq!(listening(proc)?, Vec::<String>::new());
    // A round of measuring or a question may be under way at any moment, each on a thread of its own: at rest there are four, of which
    // two wait for the next round.
    eventually("four threads and no child", A_WHILE, async || {
        Ok((threads(proc)? <= 4 && children(proc)?.is_empty()).then_some(()))
    })
    .await?;
    eventually("no more files than before", A_WHILE, async || Ok((open_files(proc)? <= files).then_some(()))).await?;
    agent.stop().await
}

fn open_files(proc: &Path) -> Result<usize> {
    Ok(fs::read_dir(proc.join("fd"))?.count())
}

fn threads(proc: &Path) -> Result<usize> {
    Ok(fs::read_dir(proc.join("task"))?.count())
}

fn children(proc: &Path) -> Result<String> {
    let mut all = String::new();
    for task in fs::read_dir(proc.join("task"))? {
        // A thread may end between two looks.
        all.push_str(&fs::read_to_string(task?.path().join("children")).unwrap_or_default());
    }
    Ok(all.trim().to_owned())
}

/// The process's sockets that somebody from outside could reach: listening ones of TCP, all of UDP and raw.
fn listening(proc: &Path) -> Result<Vec<String>> {
    let links = fs::read_dir(proc.join("fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let ours: BTreeSet<String> = links.map(|link| link.display().to_string()).collect();
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        // A machine without IPv6 has no such file.
        let Ok(table) = fs::read_to_string(proc.join("net").join(protocol)) else { continue };
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (state, inode) = (words.get(3).context("a state")?, words.get(9).context("an inode")?);
            let reachable = !protocol.starts_with("tcp") || *state == "0A";
            if reachable && ours.contains(&format!("socket:[{inode}]")) {
                found.push(format!("{protocol} {}", words[1]));
            }
        }
    }
    Ok(found)
}
