//! The child that downloads the file behind a mail's link for root: it has none of root's rights, terminal or environment left before it
//! reads its first byte, and nobody who lives as its user may look into it.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Agent;
use e2e::patch_box::REPORTER;
use e2e::patience::eventually;
use e2e::process::{program, tied};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_downloads_for_root_has_nothing_of_root_left() -> Result<()> {
    let mut agent = Agent::fresh("")?;
    std::fs::create_dir(agent.state_dir())?;
    agent.live_as(REPORTER)?;
    let mut command = tied(program("mainstay-agent")?);
    command.arg("--config").arg(agent.path("agent.toml")).arg("fetch-link").env("SECRET_OF_ROOT", "1").stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).context(name.to_owned());
    let status = eventually("the child to be the agent's user", Duration::from_secs(30), async || {
        let status = of("status")?;
        let left = ["Uid", "Gid"].iter().all(|key| numbers(&status, key).iter().all(|id| *id == REPORTER));
        Ok(left.then_some(status))
    })
    .await?;
    ensure!(numbers(&status, "Groups") == [REPORTER], "{status}");
    let stat = of("stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    ensure!(fields[3] == child.id().to_string() && fields[4] == "0", "its own session, no terminal: {stat}");
    eventually("nobody of its user to be able to look into it", Duration::from_secs(30), async || {
        Ok((std::fs::metadata(format!("/proc/{}/mem", child.id()))?.uid() == 0).then_some(()))
    })
    .await?;
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn numbers(status: &str, key: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default();
    line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}
