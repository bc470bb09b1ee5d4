//! A disk that lives but refuses: for a while, or for good in one place; and ways back that are refused or must be left as they were.
//! Nothing stays stopped, nobody needs to call, and no version is taken for gone that only can't be seen.

use std::path::Path;

use mainstay_shared::patch::PatchStep;
use ring::rand::SystemRandom;
use semver::Version;

use super::super::protocol::{Answer, Request};
use super::super::quarantine::Quarantine;
use super::super::state::{Previous, State, Subject};
use super::super::tree::PROVEN;
use super::super::verbs::{Helper, Speaker};
use super::own_update::{Appliance, Fate, length};
use super::world::{Behaviour, FILE, OLD, STATE, World};

#[test]
fn while_the_memory_refuses_the_reporter_runs_and_afterwards_it_goes_on_by_itself() {
    let first = Appliance::new(8, Fate::Good);
    for at in 1..=length(&first) {
        let (this, what) = (first.fork(at), format!("refused from {at} on"));
        let mut engine = this.boot().unwrap();
        this.disk.refuse_after(Some((at, STATE)));
        for _ in 0..20 {
            if engine.renewed || !this.live_once(&mut engine) {
                break;
            }
            let under_way = engine.state().job.is_some();
            assert_eq!(engine.tick().is_some(), under_way, "{what}: the helper ends though something is under way");
        }
        assert!(this.reporter.lock().unwrap().is_some(), "{what}: the appliance is silent");
        this.disk.refuse_after(None);
        // Systemd has started it again if it had ended.
        let mut left = 60;
        while left > 0 && (engine.renewed || this.live_once(&mut engine)) {
            if engine.renewed {
                engine = this.boot().unwrap();
            }
            left -= 1;
        }
        assert_eq!(this.judge(&engine, &what), (PatchStep::Done, String::new()), "{what}");
    }
}

/// The file of the old version that is changed.
const OLD_FILE: &str = "/opt/acme/releases/1.0.0-00000000/config";

#[test]
fn an_old_version_that_is_damaged_leaves_no_service_stopped() {
    for by_hand in [true, false] {
        let world = World::new(9, if by_hand { Behaviour::Good } else { Behaviour::Sick });
        let mut engine = world.boot().unwrap();
        let old = engine.tree().hash_of(OLD).unwrap();
        engine.store.change(|state| drop(state.product.releases.insert(OLD.to_owned(), old))).unwrap();
        if by_hand {
            world.live(&mut engine);
        } else {
            while engine.watch.is_none() {
                assert!(world.live_once(&mut engine));
            }
        }
        world.disk.spoil(Path::new(OLD_FILE));
        if by_hand {
            assert!(engine.roll_back_installed(Subject::Product).is_err(), "it is told at once");
            assert!(engine.state().job.is_none());
        } else {
            assert!(engine.watch.is_some());
            world.live(&mut engine);
            let file = engine.state().file(FILE).unwrap();
            assert_eq!((file.step, file.reason.0.as_str()), (PatchStep::Failed, "old_version_damaged"));
        }
        let runs = world.running.lock().unwrap().get("web").cloned();
        assert_eq!(runs, Some(world.new_release()), "by hand: {by_hand}");
    }
}

#[test]
fn a_tree_that_cannot_be_swapped_back_leaves_no_service_stopped() {
    let world = World::new(10, Behaviour::Sick);
    let mut engine = world.boot().unwrap();
    while engine.watch.is_none() {
        assert!(world.live_once(&mut engine));
    }
    world.disk.refuse_after(Some((0, "/opt/acme/.current.new")));
    world.live(&mut engine);
    assert!(engine.state().job.is_none(), "it is given up");
    assert_eq!(engine.state().file(FILE).unwrap().step, PatchStep::Failed);
    assert_eq!(world.running.lock().unwrap().get("web").cloned(), Some(world.new_release()));
}

#[test]
fn the_administrator_undoes_on_probation_what_he_names_and_the_older_way_back_stays() {
    let this = Appliance::new(11, Fate::Good);
    let mut engine = this.boot().unwrap();
    let before = Previous {
        release: "0.0.9-00000000".into(),
        version: Version::new(0, 0, 9),
        sha256: "9".repeat(64),
        services: vec!["mainstay-agent".into()],
    };
    engine.store.change(|state| state.agent.previous = Some(before.clone())).unwrap();
    while engine.watch.is_none() {
        assert!(this.live_once(&mut engine));
    }
    let folder = tempfile::tempdir().unwrap();
    let quarantine = Quarantine::open(folder.path().join("quarantine")).unwrap();
    let mut helper = Helper { engine, quarantine, random: Box::new(SystemRandom::new()), told_before: 0 };
    let mut rollback = |agent| helper.answer(Request::Rollback { agent }, None, (Speaker::Root, None), &mut |_| ());
    let answer = rollback(false);
    assert!(matches!(&answer, Answer::Refused { code, .. } if code == "busy"), "{answer:?}");
    assert_eq!(this.points_to("current"), this.new_release(), "the agent stays on probation");
    let answer = rollback(true);
    assert!(matches!(&answer, Answer::File(file) if file.step == PatchStep::RolledBack), "{answer:?}");
    assert_eq!(helper.engine.state().agent.previous, Some(before));
}

#[test]
fn a_memory_that_is_older_than_the_tree_removes_nothing_that_runs() {
    for is_whole in [true, false] {
        let world = World::new(12, Behaviour::Good);
        let mut engine = world.boot().unwrap();
        let before = engine.state().clone();
        world.live(&mut engine);
        engine.store.change(|state| *state = State { sequence: state.sequence, ..before }).unwrap();
        let runs = engine.tree().path_of(&world.new_release());
        if !is_whole {
            world.disk.spoil(&runs.join("version"));
        }
        let found = engine.tree().hash_of(&world.new_release()).unwrap();
        world.live(&mut engine);
        assert_eq!(engine.tree().hash_of(&world.new_release()), Ok(found), "it is as it was");
        assert_eq!(world.current(), Some(world.new_release()));
        let step = engine.state().file(FILE).unwrap().step;
        assert_eq!(step, if is_whole { PatchStep::Done } else { PatchStep::Refused });
        assert_eq!(engine.state().product.previous, None, "it is not gone back to from itself");
    }
}

#[test]
fn an_old_agent_that_only_cannot_be_seen_is_gone_back_to_once_it_can() {
    let this = Appliance::new(13, Fate::Harmful);
    let mut engine = this.boot().unwrap();
    while engine.watch.is_none() {
        assert!(this.live_once(&mut engine));
    }
    this.disk.refuse_after(Some((0, "/agent/releases/0.1.0-00000000")));
    while engine.watch.is_some() {
        assert!(this.live_once(&mut engine));
    }
    assert_eq!(this.points_to(PROVEN), "0.1.0-00000000", "what was not believed is not proven");
    assert!(this.reporter.lock().unwrap().is_some());
    this.disk.refuse_after(None);
    while this.live_once(&mut engine) {}
    assert_eq!(this.judge(&engine, "seen again"), (PatchStep::RolledBack, "unhealthy".to_owned()));
}
