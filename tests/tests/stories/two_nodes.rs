//! Two collectors on one PostgreSQL, agents spread over both and moving between them. One stands still for five minutes of the
//! world's time, in the middle of whatever it does, and goes on; or keeps a transaction open while it does. No ticket, clock or mail
//! is lost or doubled, and nobody is called silent for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::Database;
use e2e::desk::Desk;
use e2e::postgres::PostgresServer;
use e2e::postgres_door::{CutAt, PostgresDoor};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::seed::{Seed, is_soak};
use rustix::process::Signal;

use crate::load::{Flight, LoadedPeer, deliver_all, peers};
use crate::oracle::{Cuts, settle_and_judge};
use crate::scene::Scene;

const PEERS: usize = 6;
const BEHIND_S: i64 = -20 * 3600;
/// Steps of the world's time during a pause: each shorter than what a collector takes for its own standstill.
const STEP_S: i64 = 100;
const STEPS: i64 = 3;

struct TwoNodes {
    scene: Scene,
    second: Collector,
    peers: Vec<LoadedPeer>,
    post: ScriptedMailServer,
    seed: Seed,
    offset_s: i64,
    /// When a node began to stand still: what it had handed over then may come again.
    cuts: Cuts,
}

impl TwoNodes {
    async fn on(server: &PostgresServer, door: Option<u16>, number: u64) -> Result<Self> {
        let mut seed = Seed::new(number);
        let post = ScriptedMailServer::start(Mood::Slow(Duration::from_millis(2))).await?;
        let mail = MailWay { port: post.port(), ca_file: None };
        let settings = Settings { mail: Some(mail), own_clock: true, clock_offset_s: BEHIND_S, ..Settings::default() };
        let mut collector = Collector::founded_on(Database::on(server, None)?, settings.clone()).await?;
        collector.start().await?;
        let second = Collector::another_node_through(&collector, &settings, door).await?;
        let desk = Desk::of(&collector).await?;
        let scene = Scene { collector, desk };
        let doors = [scene.collector.agents_url(), second.agents_url()];
        let mut peers = peers(&scene, PEERS, &doors, &mut seed).await?;
        // An agent gives up on a node that stands still sooner than the pause ends.
        peers.iter_mut().for_each(|peer| peer.waits_at_most(Duration::from_millis(1500)));
        Ok(Self { scene, second, peers, post, seed, offset_s: BEHIND_S, cuts: Cuts::new() })
    }

    async fn round(&mut self) -> Result<()> {
        self.peers.iter_mut().for_each(LoadedPeer::lives_on);
        deliver_all(&mut self.peers, &Flight::default()).await
    }

    /// One node stands still, at some moment of a busy round; the world goes on for five minutes.
    async fn pause(&mut self, really: bool) -> Result<()> {
        let (to_second, delay) = (self.seed.once_in(2), Duration::from_millis(self.seed.below(120)));
        let node = if to_second { &self.second } else { &self.scene.collector };
        let stop = i32::try_from(node.pid()?).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
        self.peers.iter_mut().for_each(LoadedPeer::lives_on);
        let flight = Flight::default();
        let standing_still = async {
            tokio::time::sleep(delay).await;
            rustix::process::kill_process(stop, Signal::STOP).context("stopping a node")
        };
        let (delivered, stopped) = tokio::join!(deliver_all(&mut self.peers, &flight), standing_still);
        stopped?;
        delivered?;
        self.cuts.push(self.post.taken().len());
        for _ in 0..STEPS {
            if really {
                tokio::time::sleep(Duration::from_secs(STEP_S.unsigned_abs())).await;
            } else {
                self.offset_s += STEP_S;
                self.scene.collector.clock()?.jump_to_offset(self.offset_s)?;
                tokio::time::sleep(Duration::from_millis(1300)).await;
            }
            self.round().await.context("while one node stands still")?;
        }
        rustix::process::kill_process(stop, Signal::CONT).context("letting it go on")?;
        self.round().await.context("after it went on")?;
        println!("stood still: {}", if to_second { "the second" } else { "the first" });
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_nodes_stands_still_for_five_minutes() -> Result<()> {
    let server = PostgresServer::start().await?;
    let number = Seed::number_or(1);
    let mut nodes = TwoNodes::on(&server, None, number).await?;
    let pauses = if is_soak() { 40 } else { 1 };
    for pause in 0..pauses {
        nodes.pause(false).await.with_context(|| format!("pause {pause}"))?;
        ensure!(!nodes.second.has_ended()? && !nodes.scene.collector.has_ended()?, "a node ended by itself");
    }
    if is_soak() {
        nodes.pause(true).await.context("five real minutes")?;
    }
    let failures = server.log_text().matches("could not serialize access").count();
    let TwoNodes { scene, peers, post, cuts, mut offset_s, .. } = nodes;
    let verdict = settle_and_judge(&scene, &peers, &post, &cuts, &mut offset_s).await?;
    println!(
        "soak: part=two-nodes-paused points={pauses} seeds=1 losses=0 seed={number} serialisation_failures={failures} {verdict:?}"
    );
    Ok(())
}

/// The worst moment to stand still: every row of a transaction locked, its COMMIT not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_within_a_transaction_holds_up_nobody() -> Result<()> {
    let server = PostgresServer::start().await?;
    let door = PostgresDoor::to(server.port()).await?;
    let number = Seed::number_or(1);
    let mut nodes = TwoNodes::on(&server, Some(door.port()), number).await?;
    let points = if is_soak() { 10 } else { 1 };
    for point in 0..points {
        door.cut(CutAt::HeldBack, nodes.seed.below(4));
        let mut rounds = 0;
        while door.cuts() <= point {
            nodes.round().await.with_context(|| format!("point {point}"))?;
            rounds += 1;
            ensure!(rounds < 100, "no COMMIT was held back");
        }
        nodes.cuts.push(nodes.post.taken().len());
        nodes.round().await.context("while a transaction is held open")?;
        door.remember_connections();
        nodes.round().await.context("after it went on")?;
    }
    let TwoNodes { scene, peers, post, cuts, mut offset_s, second, .. } = nodes;
    let verdict = settle_and_judge(&scene, &peers, &post, &cuts, &mut offset_s).await?;
    drop(second);
    println!("soak: part=two-nodes-within-a-transaction points={points} seeds=1 losses=0 seed={number} {verdict:?}");
    Ok(())
}
