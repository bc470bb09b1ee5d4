//! Whole stories simulated: agents' detectors and spools, the way between, the collector's rules and clocks, people, in one seeded
//! story with time moved by hand. At its end stands the oracle of TRUST; a seed that fails is printed and replays.
//!
//! Test code only. `MAINSTAY_SEED=7` replays one seed, `MAINSTAY_SOAK=1` runs them all; what happened is the `trace`.

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

use crate::db::testing::TestDb;
use story::Story;

/// Incidents of a story.
const INCIDENTS: usize = 12;

/// How a story went.
struct Told {
    hash: String,
    lines: usize,
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
        lines: story.trace.len(),
        days: story.now.since_ms(begun) / 86_400_000,
        faults,
        decisions: story.watcher.decisions,
        settlings: story.watcher.settlings,
        problems: story.watcher.problems,
    }
}

/// The seeds to run: one that is asked for, all of them in a soak, else a slice.
fn seeds(slice: u64, whole: u64) -> Vec<u64> {
    match std::env::var("MAINSTAY_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None if std::env::var_os("MAINSTAY_SOAK").is_some() => (0..whole).collect(),
        None => (0..slice).collect(),
    }
}

async fn all_is_well(seeds: Vec<u64>, on_postgres: bool) {
    let (mut days, mut faults, mut decisions, mut settlings, mut failed) = (0, 0, 0, 0, Vec::new());
    let count = seeds.len();
    for seed in seeds {
        let told = tell(seed, on_postgres).await;
        (days, faults) = (days + told.days, faults + told.faults);
        (decisions, settlings) = (decisions + told.decisions, settlings + told.settlings);
        println!("seed {seed}: {} days, {} faults, {} lines, trace {}", told.days, told.faults, told.lines, told.hash);
        if let Some(first) = told.problems.first() {
            println!("seed {seed} FAILED ({} problems), the first:\n{first}", told.problems.len());
            println!("replay: MAINSTAY_SEED={seed} cargo nextest run -p mainstay-collector whole_stories --no-capture");
            failed.push(seed);
        }
    }
    println!("points {faults}, seeds {count}, losses {}: {days} days, {decisions} decisions and {settlings} moments judged", failed.len());
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

async fn one_seed_is_one_story(on_postgres: bool) {
    let (one, other) = (tell(3, on_postgres).await, tell(3, on_postgres).await);
    assert_eq!((one.hash, one.lines), (other.hash, other.lines));
}

mod sqlite {
    #[tokio::test]
    async fn whole_stories_keep_every_promise() {
        super::all_is_well(super::seeds(10, 2000), false).await;
    }

    #[tokio::test]
    async fn the_same_seed_is_the_same_story() {
        super::one_seed_is_one_story(false).await;
    }
}

mod postgres {
    #[tokio::test]
    async fn whole_stories_keep_every_promise() {
        super::all_is_well(super::seeds(2, 100), true).await;
    }

    #[tokio::test]
    async fn the_same_seed_is_the_same_story() {
        super::one_seed_is_one_story(true).await;
    }
}
