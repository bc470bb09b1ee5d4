//! The power goes at every operation of an installation, and again at every operation of each recovery: always wholly old or wholly new,
//! truthfully told. `MAINSTAY_SOAK=1` sweeps it whole; else a seeded slice. `MAINSTAY_SEED=n` replays one seed.

use std::path::Path;

use mainstay_shared::patch::PatchStep;

use super::super::state::Subject;
use super::simulated::Draw;
use super::world::{Behaviour, FILE, OLD, STATE, World};

const BEHAVIOURS: [Behaviour; 5] =
    [Behaviour::Good, Behaviour::Sick, Behaviour::BadScript, Behaviour::NoStart, Behaviour::OneWay];

pub(super) fn whole() -> bool {
    std::env::var_os("MAINSTAY_SOAK").is_some()
}

pub(super) fn seeds() -> Vec<u64> {
    match std::env::var("MAINSTAY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=if whole() { 40 } else { 2 }).collect(),
    }
}

/// Operations from here until nothing is left to do.
fn length(world: &World) -> u64 {
    let world = world.fork(0);
    let before = world.disk.operations();
    if let Ok(mut engine) = world.boot() {
        world.live(&mut engine);
    }
    world.disk.operations() - before
}

/// To the end without a cut; what came of it.
fn settle(world: &World, what: &str) -> PatchStep {
    let mut engine = world.boot().unwrap_or_else(|error| panic!("{what}: the helper does not start: {error:#}"));
    world.live(&mut engine);
    world.judge(&engine).unwrap_or_else(|why| panic!("{what}: {why}"))
}

fn expected(behaviour: Behaviour, step: PatchStep) -> bool {
    match behaviour {
        Behaviour::Good => step == PatchStep::Done,
        Behaviour::Sick | Behaviour::BadScript | Behaviour::NoStart => step == PatchStep::RolledBack,
        Behaviour::OneWay => step == PatchStep::Done,
    }
}

#[test]
fn without_a_cut_every_version_ends_as_it_deserves() {
    for behaviour in BEHAVIOURS {
        let world = World::new(1, behaviour);
        assert!(expected(behaviour, settle(&world, "no cut")), "{behaviour:?}");
        let at = if matches!(behaviour, Behaviour::Good | Behaviour::OneWay) { world.new_release() } else { OLD.to_owned() };
        assert_eq!(world.current(), Some(at), "{behaviour:?}");
    }
}

#[test]
fn after_power_cuts_at_any_two_operations_it_is_wholly_old_or_wholly_new() {
    let mut points = 0;
    let seeds = seeds();
    for &seed in &seeds {
        for behaviour in BEHAVIOURS {
            points += sweep(seed, behaviour);
        }
    }
    println!("soak: part=patch-disk points={points} seeds={} losses=0", seeds.len());
}

fn sweep(seed: u64, behaviour: Behaviour) -> u64 {
    let mut draw = Draw(seed);
    let first = World::new(seed, behaviour);
    let mut points = 0;
    let stride = if whole() { 1 } else { 3 };
    for cut in (1..=length(&first)).skip((seed % stride) as usize).step_by(stride as usize) {
        let mut world = first.fork(draw.next());
        world.disk.cut_power_after(cut);
        if let Ok(mut engine) = world.boot() {
            world.live(&mut engine);
        }
        world.power_up(&mut draw);
        let what = format!("seed {seed} {behaviour:?} cut at {cut}");
        let length = length(&world);
        let again = if whole() { (1..=length).collect() } else { vec![1 + draw.below(length), 1 + draw.below(length)] };
        for again in again {
            let mut world = world.fork(draw.next());
            world.disk.cut_power_after(again);
            if let Ok(mut engine) = world.boot() {
                world.live(&mut engine);
            }
            world.power_up(&mut draw);
            settle(&world, &format!("{what} and again at {again}"));
            points += 1;
        }
        settle(&world, &what);
        points += 1;
    }
    points
}

#[test]
fn a_machine_that_dies_of_the_new_version_again_and_again_goes_back() {
    let mut world = World::new(3, Behaviour::Good);
    let mut draw = Draw(3);
    let mut engine = world.boot().unwrap();
    for _ in 0..20 {
        // It dies each time as soon as the new version is on probation.
        while engine.watch.is_none() && engine.state().file(FILE).is_some_and(|file| !file.step.is_final()) {
            world.live_once(&mut engine);
        }
        if engine.watch.is_none() {
            break;
        }
        world.power_up(&mut draw);
        engine = world.boot().unwrap();
    }
    world.live(&mut engine);
    assert_eq!(world.judge(&engine), Ok(PatchStep::RolledBack));
    assert_eq!(engine.state().file(FILE).unwrap().reason.0, "crashes");
}

#[test]
fn a_torn_slot_of_the_memory_costs_nothing_and_two_torn_slots_stop_everything() {
    let world = World::new(4, Behaviour::Good);
    settle(&world, "before");
    for slot in ["state.0", "state.1"] {
        let world = world.fork(5);
        world.disk.spoil(&Path::new(STATE).join(slot));
        let mut engine = world.boot().unwrap();
        world.live(&mut engine);
        assert_eq!(engine.state().damages, 1, "it is counted");
        assert_eq!(engine.state().trust.targets_floor, 5, "{slot}: the floors hold");
        assert_eq!(engine.state().product.version.to_string(), "2.0.0");
    }
    for slot in ["state.0", "state.1"] {
        world.disk.spoil(&Path::new(STATE).join(slot));
    }
    assert!(world.boot().is_err(), "it never begins from nothing");
}

#[test]
fn the_administrator_goes_back_and_the_version_is_not_tried_again() {
    let world = World::new(6, Behaviour::Good);
    settle(&world, "before");
    let mut engine = world.boot().unwrap();
    assert_eq!(engine.roll_back_installed(Subject::Product), Ok(PatchStep::RolledBack));
    assert_eq!(world.current().as_deref(), Some(OLD));
    assert_eq!(engine.state().product.version.to_string(), "1.0.0");
    assert!(engine.state().failed.contains("m"));
    assert_eq!(engine.state().trust.targets_floor, 5, "floors do not go back");
    assert!(engine.roll_back_installed(Subject::Product).is_err(), "there is nothing older");
}
