//! The sweep over power cuts: scripts of pushes, batches and acknowledgements on a simulated disk whose power goes during any
//! operation, also while the spool is being read back. `MAINSTAY_SOAK=1` runs all of it, otherwise a slice; `MAINSTAY_SEED=n`
//! one seed. It prints the number of cuts and what policy dropped.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::ids::Nonce;
use mainstay_shared::record::Payload;
use mainstay_shared::time_source::{TimeSource, UnixMs};

use super::super::store::Store;
use super::super::{Limits, SpoolError};
use super::model::{Losses, Model};
use super::simulated::{Draw, SimulatedDisk};
use super::{acks_of, fault, samples, started};

const DIR: &str = "/spool";
const STEPS: usize = 80;

/// What may happen to the disk besides power cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    PowerCuts,
    FailingSyncs,
    FullDisk,
    ReadOnly,
    /// Syncs are answered and not done: nothing can be promised on such a disk, and the model must notice.
    Lies,
}

struct Run {
    disk: SimulatedDisk,
    store: Option<Store>,
    model: Model,
    draw: Draw,
    limits: Limits,
    weather: Weather,
    pushes: usize,
    cuts: u64,
}

impl Run {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut draw = Draw(seed);
        let losses = if weather == Weather::FullDisk { Losses::FullDisk } else { Losses::ByPolicy };
        let limits = Limits { max_bytes: [64 << 10, 96 << 10, 256 << 10][draw.below(3)] };
        let disk = SimulatedDisk::new(draw.next(), Path::new(DIR));
        disk.write_short(draw.one_in(2));
        if weather == Weather::Lies {
            disk.lie();
        }
        let mut run = Self { disk, store: None, model: Model::new(losses), draw, limits, weather, pushes: 0, cuts: 0 };
        run.start();
        run
    }

    fn open(&mut self) -> Result<Store, SpoolError> {
        let epoch = self.draw.hex_128().parse().unwrap();
        let disk = std::sync::Arc::new(self.disk.clone());
        Store::open_on(disk, Path::new(DIR), None, self.limits, epoch, TimeSource::manual(UnixMs(1_000)))
    }

    /// Opens the spool, again and again if its power goes meanwhile, and holds it against the model.
    fn start(&mut self) {
        for attempt in 0.. {
            if attempt < 3 && self.draw.one_in(2) {
                self.disk.cut_power_after(1 + self.draw.below(24) as u64);
            }
            match self.open() {
                Ok(mut store) if !self.disk.is_off() => {
                    self.disk.keep_power();
                    self.model.check(&mut store);
                    self.model.begun(store.epoch());
                    self.store = Some(store);
                    break;
                }
                _ if self.disk.is_off() => self.power_returns(),
                Err(error) => {
                    // A disk that refuses keeps the spool closed; it must open once the disk is well.
                    assert!(self.weather != Weather::PowerCuts && attempt < 6, "the spool does not open: {error:?}");
                    self.clear_up();
                }
                Ok(_) => unreachable!("the power is either on or off"),
            }
        }
        self.push(Payload::Started(started(&format!("boot-{}", self.pushes))));
    }

    fn power_returns(&mut self) {
        self.cuts += 1;
        self.store = None;
        self.disk.cycle_power();
        self.clear_up();
    }

    fn clear_up(&mut self) {
        self.disk.fail_syncs(0);
        self.disk.set_read_only(false);
        self.disk.leave_room(None);
    }

    fn step(&mut self) {
        if self.draw.one_in(6) {
            self.disk.cut_power_after(1 + self.draw.below(16) as u64);
        }
        self.change_weather();
        match self.draw.below(24) {
            0..10 => self.push_fault(),
            10..15 => {
                let name = self.draw.below(50);
                self.push(samples(name));
            }
            15..19 => self.deliver(true),
            19..21 => self.deliver(false),
            21 => self.set_aside(),
            22 => {
                self.push(Payload::Goodbye(mainstay_shared::record::Goodbye { reason: "stop".into(), expected_return_at: None }))
            }
            _ => {
                self.store = None;
                self.start();
            }
        }
        if self.disk.is_off() {
            self.power_returns();
            self.start();
        }
    }

    fn change_weather(&mut self) {
        let turns = self.draw.one_in(5);
        match self.weather {
            Weather::PowerCuts | Weather::Lies => {}
            Weather::FailingSyncs if turns => self.disk.fail_syncs([0, 0, 1, 1, 3, u32::MAX][self.draw.below(6)]),
            Weather::FullDisk if turns => {
                let room = [None, Some(0), Some(300), Some(2_000)][self.draw.below(4)];
                self.disk.leave_room(room);
            }
            Weather::ReadOnly if turns => self.disk.set_read_only(self.draw.one_in(2)),
            _ => {}
        }
    }

    fn push_fault(&mut self) {
        let name = self.draw.below(5);
        let episode = self.model.open_episode(&format!("service:{name}"));
        let kind = match (&episode, self.draw.below(3)) {
            (None, _) => FaultChangeKind::Raised,
            (Some(_), 0) => FaultChangeKind::Worsened,
            (Some(_), _) => FaultChangeKind::Cleared,
        };
        let Payload::Fault(mut change) = fault(name, kind, episode) else { return };
        change.summary = format!("{} {}", self.pushes, "x".repeat(self.draw.below(600)));
        self.push(Payload::Fault(change));
    }

    fn push(&mut self, payload: Payload) {
        self.pushes += 1;
        let Some(store) = &mut self.store else { return };
        match store.push(payload.clone()) {
            Ok(id) => self.model.accepted(id, payload),
            Err(SpoolError::Full) => {}
            Err(error) => {
                assert!(self.weather != Weather::PowerCuts || self.disk.is_off(), "refused: {error:?}");
                self.model.refused(payload);
            }
        }
    }

    fn nonce(&mut self) -> Nonce {
        self.draw.hex_128().parse().unwrap()
    }

    fn deliver(&mut self, answered: bool) {
        let (most, nonce) = (1 + self.draw.below(9), self.nonce());
        let Some(store) = &mut self.store else { return };
        let Ok(batch) = store.next_batch(most, 10_000) else { return };
        self.model.handed_out(&batch);
        self.model.collector_takes(&batch);
        if !answered {
            return;
        }
        match store.ack(acks_of(&batch), Some(nonce.clone()), None) {
            Ok(()) => self.model.acknowledged(&batch, nonce),
            Err(_) => self.model.acknowledgement_refused(&batch, nonce),
        }
    }

    fn set_aside(&mut self) {
        let Some(store) = &mut self.store else { return };
        let Ok(batch) = store.next_batch(1, 10_000) else { return };
        self.model.handed_out(&batch);
        let Some(id) = batch.first().filter(|r| !matches!(r.payload, Payload::Gap(_))).map(|r| r.id.clone()) else { return };
        self.model.set_aside(&id);
        drop(store.set_aside(id, "bad_message"));
    }

    fn finish(mut self) -> (u64, u64) {
        self.disk.cycle_power();
        self.clear_up();
        self.store = None;
        self.start();
        if let Some(mut store) = self.store.take() {
            let mut draw = Draw(self.draw.next());
            self.model.drain(&mut store, || draw.hex_128().parse().unwrap());
        }
        (self.cuts, self.model.told_lost())
    }
}

fn run(seed: u64, weather: Weather) -> (u64, u64) {
    let mut run = Run::new(seed, weather);
    for _ in 0..STEPS {
        run.step();
    }
    run.finish()
}

/// Runs seeds until there were so many cuts; a failing seed is named with the command that replays it.
fn sweep(weather: Weather, slice: u64, whole: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("MAINSTAY_SEED") {
        println!("seed {seed}: {:?}", run(seed, weather));
        return;
    }
    let wanted = if number("MAINSTAY_SOAK") == Some(1) { whole } else { slice };
    let (next, points, losses) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while points.load(Ordering::Relaxed) < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let outcome = std::panic::catch_unwind(|| run(seed, weather));
            let Ok((cuts, lost)) = outcome else {
                let test = std::thread::current().name().unwrap_or("sweep").to_owned();
                panic!("\nreplay: MAINSTAY_SEED={seed} cargo test -p mainstay-agent sweep (it failed in {weather:?}, {test})");
            };
            points.fetch_add(cuts, Ordering::Relaxed);
            losses.fetch_add(lost, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(cause) = thread.join() {
                std::panic::resume_unwind(cause);
            }
        }
    });
    let name = match weather {
        Weather::PowerCuts => "power-cuts",
        Weather::FailingSyncs => "failing-syncs",
        Weather::FullDisk => "full-disk",
        Weather::ReadOnly => "read-only-disk",
        Weather::Lies => "lying-disk",
    };
    println!(
        "soak: part=spool-{name} points={} seeds={} losses=0 (dropped by policy and counted: {})",
        points.into_inner(),
        next.into_inner(),
        losses.into_inner()
    );
}

#[test]
fn whatever_a_power_cut_leaves_what_was_accepted_is_there_once_and_in_order() {
    sweep(Weather::PowerCuts, 1_500, 60_000);
}

#[test]
fn a_sync_that_fails_once_thrice_or_always_costs_nothing_that_was_accepted() {
    sweep(Weather::FailingSyncs, 700, 25_000);
}

#[test]
fn a_disk_that_is_full_and_has_room_again_costs_samples_at_most_and_they_are_counted() {
    sweep(Weather::FullDisk, 500, 15_000);
}

#[test]
fn gaps_in_an_old_segment_are_not_taken_for_rotten_when_the_samples_in_the_open_one_cannot_give_way() {
    for seed in [250, 660] {
        run(seed, Weather::FullDisk);
    }
}

#[test]
fn a_disk_that_turns_read_only_and_back_costs_nothing_that_was_accepted() {
    sweep(Weather::ReadOnly, 300, 10_000);
}

#[test]
fn the_model_notices_a_disk_that_lies_about_its_syncs() {
    let noticed = (0..20).filter(|seed| std::panic::catch_unwind(|| run(*seed, Weather::Lies)).is_err()).count();
    assert!(noticed >= 15, "only {noticed} of 20 runs on a lying disk were noticed");
}
