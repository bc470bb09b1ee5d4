//! The agent in trouble of its own: a crash loop, a full disk, a clock at 1970 and one that jumps.

use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::agent::{Agent, http_service};
use e2e::both_databases;
use e2e::business::BusinessService;
use e2e::database::Engine;
use e2e::machine_clock::MachineClock;
use e2e::patience::{A_WHILE, eventually};

use crate::scene::{Scene, text};

both_databases!(
    a_crash_loop_ends_in_safe_mode_which_still_delivers_faults,
    a_box_at_1970_reports_and_a_jump_of_its_clock_changes_nothing,
    a_full_disk_loses_no_fault_that_was_accepted,
);

async fn is_checked(service: &BusinessService) -> Result<()> {
    let before = service.asked();
    eventually("the service to be checked", A_WHILE, async || Ok((service.asked() > before).then_some(()))).await
}

async fn a_crash_loop_ends_in_safe_mode_which_still_delivers_faults(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut shop = BusinessService::start().await?;
    let mut agent = Agent::running(&scene.collector.join_string(&[]).await?, &http_service("shop", &shop.url())).await?;
    for _ in 0..3 {
        is_checked(&shop).await?;
        agent.kill()?;
        agent.start()?;
    }
    is_checked(&shop).await?;
    eventually("the safe mode to be told", A_WHILE, async || {
        Ok(scene.desk.tickets().await?.into_iter().find(|t| t["code"] == "agent_safe_mode"))
    })
    .await?;
    shop.take_down().await;
    let ticket = scene.desk.ticket_about("service:shop").await?;
    assert_eq!(text(&ticket, "severity")?, "critical");
    Ok(())
}

async fn a_box_at_1970_reports_and_a_jump_of_its_clock_changes_nothing(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let mut shop = BusinessService::start().await?;
    let mut agent = Agent::fresh(&http_service("shop", &shop.url()))?;
    agent.live_by(MachineClock::starting_at("1970-01-01T00:10:00Z".parse()?)?);
    agent.enrol(&scene.collector.join_string(&[]).await?).await?.good().context("enroll at 1970")?;
    agent.start()?;
    is_checked(&shop).await?;
    shop.take_down().await;
    let ticket = scene.desk.ticket_about("service:shop").await?;
    let (opened, fault) = (ticket["opened_at"].as_i64().context("opened_at")?, ticket["fault_at"].as_i64().context("fault_at")?);
    assert!((0..600_000).contains(&(opened - fault)), "the fault's time is receipt minus its age: {ticket}");

    let clock = MachineClock::starting_at("2026-01-01T00:00:00Z".parse()?)?;
    agent.stop().await?;
    let clock = agent.live_by(clock);
    clock.jump_to_offset(0)?;
    agent.start()?;
    shop.bring_back().await?;
    is_checked(&shop).await?;
    agent.clock()?.jump_to_offset(-3600 * 24 * 400)?;
    is_checked(&shop).await?;
    agent.clock()?.jump_to_offset(3600 * 24 * 400)?;
    is_checked(&shop).await?;
    let id = text(&ticket, "ticket_id")?.to_owned();
    eventually("the ticket to recover in spite of the jumps", A_WHILE, async || {
        Ok((text(&scene.desk.ticket(&id).await?["ticket"], "state")? == "recovered").then_some(()))
    })
    .await?;
    assert_eq!(scene.tickets_by_component().await?.get("service:shop"), Some(&1));
    Ok(())
}

/// The state folder is a tmpfs of 1 MiB, filled to the brim while services fail.
async fn a_full_disk_loses_no_fault_that_was_accepted(engine: Engine) -> Result<()> {
    let scene = Scene::set(engine).await?;
    let shop = BusinessService::start().await?;
    let mut agent = Agent::fresh(&http_service("shop", &shop.url()))?;
    let disk = SmallDisk::at(&agent.state_dir())?;
    agent.enrol(&scene.collector.join_string(&[]).await?).await?.good().context("enroll")?;
    agent.start()?;
    is_checked(&shop).await?;
    eventually("the agent to be heard", A_WHILE, async || Ok((scene.collector.link.connections() > 1).then_some(()))).await?;
    scene.collector.link.cut();
    disk.fill()?;
    let asked = shop.asked();
    shop.answer(500);
    eventually("the service to be asked, with its retries, on a full disk", A_WHILE, async || {
        Ok((shop.asked() >= asked + 6).then_some(()))
    })
    .await?;
    agent.process()?.must_run().context("a full disk is no reason to die")?;
    disk.free()?;
    scene.collector.link.restore();
    let ticket = scene.desk.ticket_about("service:shop").await?;
    assert_eq!(text(&ticket, "severity")?, "critical");
    Ok(())
}

/// A file system of its own that a test can fill. Needs root.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(folder: &std::path::Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(folder).status()?;
        anyhow::ensure!(mounted.success(), "mounting a small disk needs root");
        Ok(Self(folder.to_owned()))
    }

    fn fill(&self) -> Result<()> {
        let chunk = vec![0u8; 4096];
        let mut file = std::fs::File::create(self.0.join("ballast"))?;
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
