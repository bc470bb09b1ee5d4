//! Databases that fail under a collector that lives on: PostgreSQL killed and started again, connections cut on COMMIT, a SQLite
//! file that another process holds, a full disk, a disk that refuses to write. Agents are told to come again, nothing acknowledged
//! is missing, nothing is doubled, and the collector recovers by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::{Database, Engine};
use e2e::desk::Desk;
use e2e::interception::Interception;
use e2e::patience::{A_WHILE, SOON, eventually};
use e2e::postgres::PostgresServer;
use e2e::postgres_door::{CutAt, PostgresDoor};
use e2e::process::run;
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::seed::{Seed, is_soak};
use mainstay_shared::time_source::TimeSource;
use sqlx::Connection as _;

use crate::load::{Flight, LoadedPeer, deliver_all, peers};
use crate::oracle::{Cuts, settle_and_judge};
use crate::scene::Scene;

const PEERS: usize = 6;
/// Hours that the collector's clock begins behind, so that it may be moved on.
const BEHIND_S: i64 = -10 * 3600;
/// Deliveries that a full disk may take before it refuses one.
const MOST_ON_A_FULL_DISK: usize = 100;
/// No agent may wait longer for an answer, whatever became of the database.
const LONGEST_ANSWER: Duration = Duration::from_secs(18);

/// A collector with peers and a mail server, at one failing database.
struct Bench {
    scene: Scene,
    peers: Vec<LoadedPeer>,
    post: ScriptedMailServer,
    seed: Seed,
    number: u64,
    refused: u64,
}

impl Bench {
    async fn on(database: Database) -> Result<Self> {
        let number = Seed::number_or(1);
        let mut seed = Seed::new(number);
        let post = ScriptedMailServer::start(Mood::Slow(Duration::from_millis(2))).await?;
        let mail = MailWay { port: post.port(), ca_file: None };
        let settings = Settings { mail: Some(mail), own_clock: true, clock_offset_s: BEHIND_S, ..Settings::default() };
        let mut collector = Collector::founded_on(database, settings).await?;
        collector.start().await?;
        let desk = Desk::of(&collector).await?;
        let scene = Scene { collector, desk };
        let peers = peers(&scene, PEERS, &[], &mut seed).await?;
        Ok(Self { scene, peers, post, seed, number, refused: 0 })
    }

    /// The peers go on living while `trouble` happens; returns when all of it is over and acknowledged.
    async fn through(&mut self, trouble: impl AsyncFnOnce(&mut Scene, &mut Seed, &Flight) -> Result<()>) -> Result<()> {
        self.peers.iter_mut().for_each(LoadedPeer::lives_on);
        let flight = Flight::default();
        let (delivered, troubled) =
            tokio::join!(deliver_all(&mut self.peers, &flight), trouble(&mut self.scene, &mut self.seed, &flight));
        troubled?;
        delivered?;
        self.refused += flight.refused();
        let slowest = self.peers.iter().map(|peer| peer.slowest).max().unwrap_or_default();
        ensure!(slowest < LONGEST_ANSWER, "an agent waited {slowest:?} for an answer");
        Ok(())
    }

    /// Waits for a moment without mail; answers 0, the COMMITs to let pass then.
    async fn mails_are_out(&self) -> Result<u64> {
        eventually("a moment without mail", A_WHILE, async || {
            for _ in 0..5 {
                if self.post.handing_over() > 0 {
                    return Ok(None);
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Ok(Some(0))
        })
        .await
    }

    /// The collector was never restarted, so no mail may come twice.
    async fn judged(self, part: &str, points: u64) -> Result<()> {
        let Self { scene, peers, post, number, refused, .. } = self;
        let mut offset_s = BEHIND_S;
        let verdict = settle_and_judge(&scene, &peers, &post, &Cuts::new(), &mut offset_s).await?;
        println!("soak: part={part} points={points} seeds=1 losses=0 seed={number} refused={refused} {verdict:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_killed_and_started_again_under_load() -> Result<()> {
    let mut server = PostgresServer::start().await?;
    let mut bench = Bench::on(Database::on(&server, None)?).await?;
    let points = if is_soak() { 100 } else { 4 };
    for point in 0..points {
        bench
            .through(async |scene, seed, flight| {
                while flight.asked() == 0 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                tokio::time::sleep(Duration::from_millis(seed.below(150))).await;
                match point % 3 {
                    0 => server.kill()?,
                    1 => server.stop_immediately().await?,
                    _ => return server.kill_a_backend(scene.collector.database().name()),
                }
                tokio::time::sleep(Duration::from_millis(seed.below(500))).await;
                server.start_again().await
            })
            .await
            .with_context(|| format!("point {point}"))?;
    }
    bench.judged("postgresql-killed", points).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_to_postgresql_is_cut_on_commit() -> Result<()> {
    let server = PostgresServer::start().await?;
    let door = PostgresDoor::to(server.port()).await?;
    let mut bench = Bench::on(Database::on(&server, Some(door.port()))?).await?;
    let points = if is_soak() { 300 } else { 15 };
    let mut cut = BTreeMap::new();
    let mut rounds = 0;
    while door.cuts() < points {
        let at = CutAt::ALL[bench.seed.place(CutAt::ALL.len())];
        let before = door.cuts();
        // Every other time the mails of the round before are out first: then it is the reports' own COMMIT.
        let passing = if rounds % 2 == 0 { bench.mails_are_out().await? } else { bench.seed.below(8) };
        door.cut(at, passing);
        bench.through(async |_, _, _| Ok(())).await.with_context(|| format!("{at:?}, cut {before}"))?;
        *cut.entry(format!("{at:?}")).or_insert(0) += door.cuts() - before;
        rounds += 1;
        ensure!(rounds < 20 * points, "COMMITs no longer pass the door: {cut:?}");
    }
    println!("cuts: {cut:?}");
    println!("serialisation failures: {}", server.log_text().matches("could not serialize access").count());
    bench.judged("postgresql-commit-cut", points).await
}

/// Another process at work on the file: shortly, and for longer than the collector waits by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_holds_the_sqlite_file() -> Result<()> {
    let mut bench = Bench::on(Database::fresh(Engine::Sqlite).await?).await?;
    let holds = if is_soak() { vec![1, 3, 12, 40, 5, 22] } else { vec![1, 22] };
    let points = holds.len() as u64;
    for seconds in holds {
        let path = bench.scene.collector.path("data").join("collector.db");
        let mut held = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
        sqlx::raw_sql("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").execute(&mut held).await?;
        bench
            .through(async |_, _, _| {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                sqlx::raw_sql("ROLLBACK").execute(&mut held).await?;
                Ok(held.close().await?)
            })
            .await
            .with_context(|| format!("held for {seconds} s"))?;
    }
    bench.judged("sqlite-busy", points).await
}

/// Writes and syncs fail, as of a disk that is full, broken or mounted read-only, and work again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_under_sqlite_refuses_to_write() -> Result<()> {
    let mut bench = Bench::on(Database::fresh(Engine::Sqlite).await?).await?;
    // SQLite, as it is built here (.cargo/config.toml), syncs by fdatasync.
    let ways = [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EROFS"), ("pwrite64", "EIO")];
    let rounds = if is_soak() { 10 } else { 1 };
    for (syscall, error) in ways.repeat(rounds) {
        let broken = Interception::failing(bench.scene.collector.pid()?, syscall, error).await?;
        bench
            .through(async |_, seed, flight| {
                told_to_come_again(flight).await?;
                tokio::time::sleep(Duration::from_millis(seed.below(700))).await;
                broken.end()
            })
            .await
            .with_context(|| format!("{syscall} fails with {error}"))?;
        bench.through(async |_, _, _| Ok(())).await.context("afterwards")?;
    }
    bench.judged("sqlite-disk-refuses", ways.len() as u64 * rounds as u64).await
}

/// A real full disk: the collector's folder on a small tmpfs. Needs root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_under_sqlite_is_full() -> Result<()> {
    let small = SmallDisk::mounted(24).await?;
    let mut bench = Bench::on(Database::fresh(Engine::Sqlite).await?).await?;
    bench.scene.collector.stop().await?;
    small.take_over(&bench.scene.collector.path("data")).await?;
    bench.scene.collector.start().await?;
    let rounds = if is_soak() { 20 } else { 2 };
    for round in 0..rounds {
        small.fill()?;
        let before = bench.refused;
        // SQLite takes what fits into the room that its log has already.
        for _ in 0..MOST_ON_A_FULL_DISK {
            bench
                .through(async |_, seed, flight| {
                    if told_to_come_again_or_done(flight).await? {
                        tokio::time::sleep(Duration::from_millis(seed.below(1000))).await;
                        small.empty()?;
                    }
                    Ok(())
                })
                .await
                .with_context(|| format!("round {round}"))?;
            if bench.refused > before {
                break;
            }
        }
        ensure!(bench.refused > before, "round {round}: the full disk refused nothing");
    }
    bench.judged("sqlite-disk-full", rounds).await
}

async fn told_to_come_again(flight: &Flight) -> Result<()> {
    eventually("an agent to be told to come again", SOON, async || Ok((flight.refused() > 0).then_some(()))).await
}

/// Whether somebody was told to come again before all was acknowledged.
async fn told_to_come_again_or_done(flight: &Flight) -> Result<bool> {
    eventually("an answer to everybody", A_WHILE, async || {
        let refused = flight.refused() > 0;
        Ok((refused || flight.has_landed()).then_some(refused))
    })
    .await
}

/// A tmpfs that is unmounted with this value.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    async fn mounted(mebibytes: u32) -> Result<Self> {
        let disk = Self { folder: tempfile::tempdir()? };
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(disk.folder.path());
        run(mount, "", A_WHILE).await?.good().context("a small disk: mounting needs root")?;
        Ok(disk)
    }

    /// Moves a folder's content here and leaves a link in its place.
    async fn take_over(&self, folder: &std::path::Path) -> Result<()> {
        let here = self.folder.path().join("data");
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(folder).arg(&here);
        run(copy, "", A_WHILE).await?.good().context("moving the collector's folder")?;
        std::fs::remove_dir_all(folder)?;
        Ok(std::os::unix::fs::symlink(&here, folder)?)
    }

    fn fill(&self) -> Result<()> {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.folder.path().join("ballast"))?;
        let block = vec![0u8; 4096];
        while ballast.write_all(&block).is_ok() {}
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.path().join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(self.folder.path()).status().ok();
    }
}

/// The network forgets the connections that stand: nothing passes on them, nothing closes them. New ones work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_forgets_the_connections_to_postgresql() -> Result<()> {
    let server = PostgresServer::start().await?;
    let door = PostgresDoor::to(server.port()).await?;
    let mut bench = Bench::on(Database::on(&server, Some(door.port()))?).await?;
    let time = TimeSource::system();
    let times = if is_soak() { 5 } else { 1 };
    for _ in 0..times {
        bench.peers.iter_mut().for_each(LoadedPeer::lives_on);
        door.forget_connections();
        deliver_all(&mut bench.peers, &Flight::default()).await?;
        eventually("the collector to be healthy", A_WHILE, async || {
            let url = format!("{}/healthz", bench.scene.collector.web_url());
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
            Ok(client.get(&url).send().await?.status().is_success().then_some(()))
        })
        .await?;
    }
    println!("recovered after {:?}", time.monotonic());
    bench.judged("postgresql-forgotten", times).await
}
