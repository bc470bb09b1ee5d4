//! Whole stories simulated: agents' detectors and spools, the way between, the collector's rules and clocks, people, in one seeded
//! story with time moved by hand. At its end stands the oracle of TRUST; a seed that fails is printed and replays.
//!
//! Test code only. `MAINSTAY_SEED=7` replays one seed and prints its trace, `MAINSTAY_SOAK=1` runs them all.

mod rng;
mod trace;
mod fleet;
mod machine;
mod office;
mod incidents;
mod knowledge;
mod story;
mod watcher;
mod deeds;
mod oracle;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::db::testing::TestDb;
use story::Story;

/// Incidents of a story.
const INCIDENTS: usize = 12;

/// How a story went.
struct Told {
    hash: String,
    lines: Vec<String>,
    appliances: i64,
    days: i64,
    faults: usize,
    decisions: usize,
    settlings: usize,
    problems: Vec<String>,
}

async fn tell(seed: u64, on_postgres: bool) -> Told {
    let home = match tempfile::tempdir_in("/dev/shm") {
        Ok(home) => home,
        Err(_) => tempfile::tempdir().expect("a folder"),
    };
    let database = if on_postgres { TestDb::postgres().await } else { TestDb::sqlite_in(home.path()).await };
    let mut story = Story::begin(seed, database, home.path().to_owned(), INCIDENTS, on_postgres).await;
    let begun = story.now;
    story.run().await;
    let faults = story.check_end().await;
    Told {
        hash: story.trace.hash(),
        lines: story.trace.lines().to_vec(),
        appliances: i64::try_from(story.machines.len()).expect("few"),
        days: story.now.since_ms(begun) / 86_400_000,
        faults,
        decisions: story.watcher.decisions,
        settlings: story.watcher.settlings,
        problems: story.watcher.problems,
    }
}

/// The seeds to run: one that is asked for, all of them in a soak, else a slice.
fn seeds(slice: u64, whole: u64) -> Vec<u64> {
    match asked_for() {
        Some((from, to)) => (from..to).collect(),
        None if std::env::var_os("MAINSTAY_SOAK").is_some() => (0..whole).collect(),
        None => (0..slice).collect(),
    }
}

/// `MAINSTAY_SEED=7`, or `7..20` for a range.
fn asked_for() -> Option<(u64, u64)> {
    let text = std::env::var("MAINSTAY_SEED").ok()?;
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (from.parse().expect("a number"), to.parse().expect("a number")),
        None => (text.parse().expect("a number or a range"), text.parse::<u64>().expect("a number or a range") + 1),
    };
    Some((from, to))
}

/// Every seed is a world of its own, so they are told side by side.
fn all_is_well(seeds: &[u64], on_postgres: bool) {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Sum::default()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = runtime().block_on(tell(*seed, on_postgres));
                    sum.lock().expect("no panic inside").add(*seed, &told, seeds.len() == 1);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no panic inside");
    let (part, losses) = (if on_postgres { "stories-postgres" } else { "stories-sqlite" }, sum.failed.len());
    println!(
        "{} appliance-years, {} decisions and {} settled moments judged",
        sum.appliance_days / 365,
        sum.decisions,
        sum.settlings
    );
    println!("soak: part={part} points={} seeds={} losses={losses}", sum.faults, seeds.len());
    assert!(sum.failed.is_empty(), "seeds that failed: {:?}", sum.failed);
}

/// What all stories came to.
#[derive(Default)]
struct Sum {
    appliance_days: i64,
    faults: usize,
    decisions: usize,
    settlings: usize,
    failed: Vec<u64>,
}

impl Sum {
    fn add(&mut self, seed: u64, told: &Told, alone: bool) {
        self.appliance_days += told.days * told.appliances;
        self.faults += told.faults;
        self.decisions += told.decisions;
        self.settlings += told.settlings;
        let Told { appliances, days, faults, lines, hash, problems, .. } = told;
        println!(
            "progress: seed {seed}: {appliances} appliances, {days} days, {faults} faults, {} lines, trace {hash}",
            lines.len()
        );
        if alone {
            lines.iter().for_each(|line| println!("{line}"));
        }
        if let Some(first) = problems.first() {
            self.failed.push(seed);
            println!("seed {seed} FAILED ({} problems), the first:\n{first}", problems.len());
            println!("replay: MAINSTAY_SEED={seed} cargo nextest run -p mainstay-collector whole_stories --no-capture");
        }
    }
}

/// One thread: what is awaited first is done first, or a seed would not be a story.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn one_seed_is_one_story(on_postgres: bool) {
    let (one, other) = (runtime().block_on(tell(3, on_postgres)), runtime().block_on(tell(3, on_postgres)));
    assert_eq!((one.lines, one.hash), (other.lines, other.hash));
}

mod sqlite {
    #[test]
    fn whole_stories_keep_every_promise() {
        super::all_is_well(&super::seeds(12, 2000), false);
    }

    #[test]
    fn the_same_seed_is_the_same_story() {
        super::one_seed_is_one_story(false);
    }
}

mod postgres {
    #[test]
    fn whole_stories_keep_every_promise() {
        super::all_is_well(&super::seeds(3, 200), true);
    }

    #[test]
    fn the_same_seed_is_the_same_story() {
        super::one_seed_is_one_story(true);
    }
}
