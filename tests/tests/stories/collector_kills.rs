//! The real collector, killed between receive and acknowledgement: by SIGKILL at a chosen moment after a report was sent, at the Kth
//! system call of a kind, while mail is handed over and while clocks fall due. `make soak` takes 1,000 points a database, the test
//! a slice; `MAINSTAY_SEED=n` tells one part again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::both_databases;
use e2e::collector::{MailWay, Settings};
use e2e::database::Engine;
use e2e::interception::{Interception, WITHIN};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use e2e::seed::{Seed, is_soak};
use mainstay_shared::time_source::TimeSource;

use crate::load::{Flight, LoadedPeer, deliver_all, peers};
use crate::oracle::{Cuts, note_cut, settle_and_judge};
use crate::scene::Scene;

both_databases!(the_collector_is_killed_between_receive_and_acknowledgement);

/// Points of one part: one collector, one seed, one judgement.
const PART: usize = 100;
const WHOLE: usize = 1000;
const SLICE: usize = 15;
const PEERS: usize = 6;

/// Calls of a collector that takes reports: its records, its answers, the way to PostgreSQL and to the mail server.
const SYSCALLS: [&str; 7] = ["pwrite64", "fdatasync", "sendto", "writev", "write", "recvfrom", "epoll_wait"];

async fn the_collector_is_killed_between_receive_and_acknowledgement(engine: Engine) -> Result<()> {
    let whole = if is_soak() { WHOLE } else { SLICE };
    let replayed = std::env::var_os("MAINSTAY_SEED").is_some();
    let (mut points, mut seeds, mut kinds) = (0, 0, BTreeMap::new());
    while points < whole {
        let number = Seed::number_or(1 + seeds);
        let wanted = PART.min(whole - points);
        let part = Sweep::part(engine, number, wanted).await;
        if part.is_err() {
            let soak = if is_soak() { "MAINSTAY_SOAK=1 " } else { "" };
            println!(
                "replay: MAINSTAY_SEED={number} {soak}cargo test -p e2e --test stories collector_kills -- --nocapture ({engine:?})"
            );
        }
        let part = part.with_context(|| format!("seed {number}"))?;
        points += part.values().sum::<usize>();
        seeds += 1;
        for (kind, count) in part {
            *kinds.entry(kind).or_insert(0) += count;
        }
        if replayed {
            break;
        }
    }
    println!("soak: part=collector-kills-{engine:?} points={points} seeds={seeds} losses=0 {kinds:?}");
    Ok(())
}

/// How a point ends the collector.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// SIGKILL, so long after the first report of the round was sent.
    After(Duration),
    /// SIGKILL at the entry of a system call.
    At(&'static str, u64),
    /// The clock jumps first: warnings and breaches fall due; SIGKILL so long after.
    WhileClocksFallDue(Duration),
}

struct Sweep {
    scene: Scene,
    peers: Vec<LoadedPeer>,
    post: ScriptedMailServer,
    seed: Seed,
    cuts: Cuts,
    offset_s: i64,
    /// The slowest answer of an undisturbed round.
    answer: Duration,
    /// For each call, how many a round has at least.
    calls: BTreeMap<&'static str, u64>,
    points: BTreeMap<&'static str, usize>,
}

impl Sweep {
    /// One collector, killed until `wanted` kills have met a report between receive and acknowledgement.
    async fn part(engine: Engine, number: u64, wanted: usize) -> Result<BTreeMap<&'static str, usize>> {
        let mut seed = Seed::new(number);
        let post = ScriptedMailServer::start(Mood::Slow(Duration::from_millis(2))).await?;
        let mail = MailWay { port: post.port(), ca_file: None };
        let offset_s = -20 * 3600;
        let settings = Settings { mail: Some(mail), own_clock: true, clock_offset_s: offset_s, ..Settings::default() };
        let scene = Scene::with(engine, settings).await?;
        let peers = peers(&scene, PEERS, &[], &mut seed).await?;
        let calls = SYSCALLS.into_iter().map(|call| (call, if call == "fdatasync" { 2 } else { 8 })).collect();
        let answer = Duration::from_millis(50);
        let mut sweep = Self { scene, peers, post, seed, cuts: Cuts::new(), offset_s, answer, calls, points: BTreeMap::new() };
        for _ in 0..3 {
            sweep.round().await?;
            let slowest = sweep.peers.iter().map(|peer| peer.slowest).max().unwrap_or(sweep.answer);
            sweep.answer = slowest.min(Duration::from_millis(300));
        }
        let mut tries = 0;
        while sweep.points.values().sum::<usize>() < wanted {
            tries += 1;
            ensure!(tries < 20 * wanted + 100, "kills no longer meet a report: {:?}", sweep.points);
            sweep.point().await?;
        }
        let Self { scene, peers, post, cuts, mut offset_s, points, .. } = sweep;
        let verdict = settle_and_judge(&scene, &peers, &post, &cuts, &mut offset_s).await?;
        println!("{engine:?} seed {number}: {points:?} kills, {verdict:?}");
        Ok(points)
    }

    /// Undisturbed.
    async fn round(&mut self) -> Result<()> {
        self.peers.iter_mut().for_each(LoadedPeer::lives_on);
        deliver_all(&mut self.peers, &Flight::default()).await
    }

    async fn point(&mut self) -> Result<()> {
        self.peers.iter_mut().for_each(LoadedPeer::lives_on);
        let mood = if self.seed.once_in(12) { Mood::DiesAfterTaking } else { Mood::Slow(Duration::from_millis(2)) };
        self.post.set_mood(mood);
        let way = self.way();
        let flight = Flight::default();
        let Self { scene, peers, .. } = self;
        let trap = match way {
            Way::At(call, nth) => Some(Interception::killing(scene.collector.pid()?, call, nth).await?),
            Way::After(_) | Way::WhileClocksFallDue(_) => None,
        };
        let killing = kill(scene, way, trap, &flight, &mut self.offset_s, (&self.post, &mut self.cuts));
        let delivering = deliver_all(peers, &flight);
        let (delivered, killed) = tokio::join!(delivering, killing);
        let killed = killed.with_context(|| format!("{way:?}"))?;
        delivered.with_context(|| format!("{way:?}"))?;
        if let Way::At(call, _) = way {
            let most = self.calls.entry(call).or_default();
            *most = if killed.is_some() { (*most + 4).min(400) } else { (*most * 2 / 3).max(1) };
        }
        if let Some(met) = killed {
            self.count(way, met);
        }
        Ok(())
    }

    fn way(&mut self) -> Way {
        let within = |seed: &mut Seed, longest: Duration| {
            Duration::from_micros(seed.below(u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)))
        };
        match self.seed.below(10) {
            0..5 => Way::After(within(&mut self.seed, self.answer * 3 / 2)),
            5 => Way::WhileClocksFallDue(within(&mut self.seed, Duration::from_millis(1500))),
            _ => {
                let call = SYSCALLS[self.seed.place(SYSCALLS.len())];
                let most = self.calls.get(call).copied().unwrap_or(8);
                Way::At(call, 1 + self.seed.below(most))
            }
        }
    }

    /// A point is a kill that met something; others are forgotten.
    fn count(&mut self, way: Way, met: Met) {
        let name = match way {
            Way::WhileClocksFallDue(_) => "clocks",
            _ if met.reports == 0 && met.mails == 0 => return,
            _ if met.reports == 0 => "mail",
            Way::After(_) => "moment",
            Way::At(call, _) => call,
        };
        *self.points.entry(name).or_default() += 1;
    }
}

/// What a kill met under way.
#[derive(Debug, Clone, Copy)]
struct Met {
    reports: usize,
    mails: usize,
}

/// Kills the collector as told and starts it again. `None`: the round was over before.
async fn kill(
    scene: &mut Scene,
    way: Way,
    trap: Option<Interception>,
    flight: &Flight,
    offset_s: &mut i64,
    (post, cuts): (&ScriptedMailServer, &mut Cuts),
) -> Result<Option<Met>> {
    let met = || Met { reports: flight.asking(), mails: post.handing_over() };
    while flight.asked() == 0 {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let seen = match way {
        Way::After(delay) => {
            tokio::time::sleep(delay).await;
            let met = met();
            scene.collector.kill()?;
            met
        }
        Way::WhileClocksFallDue(delay) => {
            *offset_s += 11 * 60;
            scene.collector.clock()?.jump_to_offset(*offset_s)?;
            tokio::time::sleep(delay).await;
            let met = met();
            scene.collector.kill()?;
            met
        }
        Way::At(..) => {
            let time = TimeSource::system();
            let mut before = met();
            while !scene.collector.has_ended()? {
                before = met();
                let is_over = before.reports == 0 && before.mails == 0;
                if (is_over && time.monotonic() > Duration::from_millis(500)) || time.monotonic() > WITHIN {
                    trap.map_or(Ok(()), Interception::end)?;
                    // It may strike while it is taken away, and a killed process takes a moment to end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if scene.collector.has_ended()? {
                        break;
                    }
                    return Ok(None);
                }
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            scene.collector.kill().ok();
            before
        }
    };
    note_cut(post, cuts).await?;
    scene.collector.start().await?;
    Ok(Some(seen))
}
