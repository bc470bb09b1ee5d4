//! The agent's update of itself on the simulated disk: the power goes at every operation, and again while it recovers. Both links are
//! always whole, `proven` is never on what was not believed, and whoever judges was started from it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_patchkit::archive::{Packed, pack};
use mainstay_patchkit::manifest::Health;
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{AGENT, PatchStep};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use semver::Version;

use super::super::back::AGAIN;
use super::super::disk::Disk;
use super::super::engine::{Engine, Plan};
use super::super::executor::{End, Ended, Runner, Step};
use super::super::probation::Sight;
use super::super::readback::hash;
use super::super::settings::Settings;
use super::super::state::{How, Install, Seal, Stage, State, Subject};
use super::super::store::Store;
use super::super::tree::{PROVEN, Tree, is_an_agent};
use super::simulated::{Draw, SimulatedDisk};
use super::sweep::{seeds, whole};
use super::world::{FILE, STATE, waiting};

const PLACE: &str = "/agent";
const OLD: &str = "0.1.0-00000000";

/// What becomes of the new agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    /// It can't read this box.
    Unfit,
    NoStart,
    /// It runs and says nothing.
    Silent,
    /// A business service is worse since.
    Harmful,
    /// It serves, but does not reach the collector, which the old one does.
    CutOff,
    /// The line comes back just when the old one is asked.
    LateLine,
    /// Nobody reaches the collector.
    Offline,
}

const FATES: [Fate; 8] =
    [Fate::LateLine, Fate::Good, Fate::Unfit, Fate::NoStart, Fate::Silent, Fate::Harmful, Fate::CutOff, Fate::Offline];

const SETTINGS: &str = r#"
product = "acme"
hardware = "gw"
version = "1.0.0"
root = "/root.json"
state_dir = "/state"
tree = "/opt/acme"
socket = "/helper.sock"
reporter = "1234"
serial = "s"
[agent]
tree = "/agent"
stop = ["/stop"]
start = ["/start"]
"#;

#[derive(Clone)]
pub(super) struct Appliance {
    pub(super) disk: SimulatedDisk,
    /// The release that the reporter was started from.
    pub(super) reporter: Arc<Mutex<Option<String>>>,
    time: TimeSource,
    fate: Fate,
    late: bool,
    line: Arc<Mutex<bool>>,
    payload: Arc<(Vec<u8>, Packed)>,
    old_tree: String,
}

struct Machine(Appliance);

impl Runner for Machine {
    fn run(&self, step: &Step) -> Ended {
        let Self(this) = self;
        let ended = |end| Ended { end, output: String::new() };
        if this.disk.step().is_err() {
            return ended(End::Lost("the power is off".into()));
        }
        let code = match step.argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["/stop"] => {
                this.reporter.lock().unwrap().take();
                0
            }
            ["/start"] => {
                let before = this.reporter.lock().unwrap().is_some();
                i32::from(!before && !this.start())
            }
            [program, "helper", "--check", ..] => {
                i32::from(this.fate == Fate::Unfit && *program == this.program(&this.new_release()))
            }
            [program, "test", "reach", ..] => {
                assert_eq!(
                    (*program, step.user),
                    (this.program(OLD).as_str(), Some((1234, 1234))),
                    "the old one, as the reporter"
                );
                *this.line.lock().unwrap() = true;
                if this.fate == Fate::Offline { 69 } else { 0 }
            }
            other => panic!("{other:?}"),
        };
        ended(End::Exited(code))
    }
}

impl Appliance {
    pub(super) fn new(seed: u64, fate: Fate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(AGENT), vec![b'n'; 300]).unwrap();
        std::fs::set_permissions(folder.path().join(AGENT), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut bytes = Vec::new();
        let packed = pack(folder.path(), 1, &mut bytes).unwrap();
        let disk = SimulatedDisk::new(seed);
        let release = Path::new(PLACE).join("releases").join(OLD);
        for dir in [PLACE, "/agent/releases", release.to_str().unwrap(), STATE] {
            disk.make_dir(Path::new(dir), 0o755).unwrap();
        }
        disk.create(&release.join(AGENT), 0o755).unwrap().write_all(b"old").unwrap();
        for link in ["current", PROVEN] {
            disk.link(&format!("releases/{OLD}"), &Path::new(PLACE).join(link)).unwrap();
        }
        disk.sync_all(Path::new("/")).unwrap();
        let old_tree = hash(&disk, &release).unwrap();
        let reporter = Arc::new(Mutex::new(Some(OLD.to_owned())));
        let time = TimeSource::manual(UnixMs(1_800_000_000_000));
        let this =
            Self { disk, reporter, time, fate, late: false, line: Arc::default(), payload: Arc::new((bytes, packed)), old_tree };
        let mut engine = this.boot().unwrap();
        engine
            .store
            .change(|state| state.files.push(super::super::state::Known { product: AGENT.into(), ..waiting(false) }))
            .unwrap();
        engine.disk.sync_all(Path::new("/")).unwrap();
        this
    }

    pub(super) fn fork(&self, seed: u64) -> Self {
        let reporter = Arc::new(Mutex::new(self.reporter.lock().unwrap().clone()));
        let line = Arc::new(Mutex::new(*self.line.lock().unwrap()));
        Self { disk: self.disk.fork(seed), reporter, line, time: TimeSource::manual(self.time.now()), ..self.clone() }
    }

    pub(super) fn points_to(&self, link: &str) -> String {
        let target = self.disk.target_of(&Path::new(PLACE).join(link)).unwrap_or_default();
        target.strip_prefix("releases/").unwrap_or_default().to_owned()
    }

    pub(super) fn new_release(&self) -> String {
        format!("0.2.0-{}", &self.payload.1.tree_sha256[..8])
    }

    fn program(&self, release: &str) -> String {
        Path::new(PLACE).join("releases").join(release).join(AGENT).display().to_string()
    }

    /// Starts the reporter from `current`, if that can be started.
    fn start(&self) -> bool {
        let current = self.points_to("current");
        let starts = self.fate != Fate::NoStart || current == OLD;
        if starts {
            self.reporter.lock().unwrap().get_or_insert(current);
        }
        starts
    }

    /// The helper starts, from `proven`.
    pub(super) fn boot(&self) -> anyhow::Result<Engine> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let shipped = || Ok(State::shipped(Version::new(1, 0, 0), "{}".into(), mainstay_shared::time_source::UnixMs(0)));
        let store = Store::open(Arc::clone(&disk), STATE.into(), shipped)?;
        let (proven, state) = (self.points_to(PROVEN), store.state());
        let is_done = state.file(FILE).is_some_and(|file| file.step == PatchStep::Done);
        assert!(proven == OLD || (is_done && proven == self.new_release()), "{proven} is proven: {state:#?}");
        let (settings, runner) = (Arc::new(Settings::read(SETTINGS)?), Box::new(Machine(self.clone())));
        let mut engine =
            Engine { disk, store, settings, runner, time: self.time.clone(), watch: None, again_at: None, renewed: false };
        engine.recover()?;
        if self.late {
            self.start();
        }
        Ok(engine)
    }

    fn power_up(&mut self, draw: &mut Draw) {
        self.disk.cycle_power();
        self.reporter.lock().unwrap().take();
        self.late = draw.below(2) == 0;
        if !self.late {
            self.start();
        }
    }

    fn plan(&self, engine: &Engine) -> Plan {
        let tree = engine.tree_of(Subject::Agent);
        let install = Install {
            stage: Stage::Staging,
            subject: Subject::Agent,
            how: How::Tree {
                from_release: tree.current().unwrap_or_default(),
                to_release: self.new_release(),
                tree_sha256: self.payload.1.tree_sha256.clone(),
                scripts: Vec::new(),
            },
            from_version: engine.state().agent.version.clone(),
            to_version: Version::new(0, 2, 0),
            services: vec![AGENT.into()],
            baseline: [("web".to_owned(), ServiceState::Up)].into(),
            health: Health { consecutive_ok: 2, deadline_s: 60 },
            one_way: false,
            rounds: 0,
        };
        let seal = Seal { root: Some("{2}".into()), targets_version: 5, role_version: 7, verified_at: self.time.now() };
        Plan { sha256: FILE.into(), install, seal, payload: self.payload.1.payload.clone() }
    }

    /// What the reporter that runs says, if it says anything.
    fn word(&self) -> Option<Sight> {
        let runs = self.reporter.lock().unwrap().clone()?;
        let is_new = runs != OLD;
        if is_new && self.fate == Fate::Silent {
            return None;
        }
        let web = if is_new && self.fate == Fate::Harmful { ServiceState::Down } else { ServiceState::Up };
        let reached = match self.fate {
            Fate::Offline => false,
            Fate::LateLine => *self.line.lock().unwrap(),
            Fate::CutOff => !is_new,
            _ => true,
        };
        let exe = Some(PathBuf::from(self.program(&runs)));
        Some(Sight { services: [("web".to_owned(), web)].into(), reached: Some(reached), exe })
    }

    /// Until nothing is left to do or the power goes; a helper that is renewed is started anew.
    fn live(&self) -> anyhow::Result<Engine> {
        let mut engine = self.boot()?;
        for _ in 0..60 {
            if engine.renewed {
                engine = self.boot()?;
            }
            if self.disk.is_off() || !self.live_once(&mut engine) {
                break;
            }
        }
        Ok(engine)
    }

    pub(super) fn live_once(&self, engine: &mut Engine) -> bool {
        let step = engine.state().file(FILE).map(|file| file.step);
        if engine.watch.is_some() {
            if let Some(sight) = self.word() {
                engine.look(&sight);
            }
            self.time.advance(Duration::from_secs(20));
            engine.tick();
        } else if step == Some(PatchStep::AwaitingWindow) && engine.state().job.is_none() {
            let plan = self.plan(engine);
            engine.install(&plan, &mut self.payload.0.as_slice(), &mut |_, _| ()).ok();
        } else if engine.state().job.is_some() {
            self.time.advance(AGAIN);
            engine.tick();
        } else {
            return false;
        }
        true
    }

    /// To the end without a cut: both links on one whole release, which runs and is told.
    pub(super) fn settle(&self, what: &str) -> (PatchStep, String) {
        let engine = self.live().unwrap_or_else(|error| panic!("{what}: the helper does not start: {error:#}"));
        self.judge(&engine, what)
    }

    pub(super) fn judge(&self, engine: &Engine, what: &str) -> (PatchStep, String) {
        let (state, current) = (engine.state(), self.points_to("current"));
        let is_new = current == self.new_release();
        let must = |holds: bool, why: &str| assert!(holds, "{what}: {why}: {current} is current, {state:#?}");
        must(self.points_to(PROVEN) == current, "the links differ");
        let found = hash(&self.disk, &Path::new(PLACE).join("releases").join(&current)).unwrap_or_default();
        must(found == if is_new { &self.payload.1.tree_sha256 } else { &self.old_tree }.as_str(), "it is not whole");
        must(self.reporter.lock().unwrap().as_ref() == Some(&current), "the reporter does not run it");
        must(state.job.is_none() && state.agent.moving.is_none(), "something is still under way");
        must(state.agent.version == Version::new(0, if is_new { 2 } else { 1 }, 0), "the agent's version");
        must(state.product.version == Version::new(1, 0, 0) && state.product.previous.is_none(), "the product's version moved");
        must(state.trust.targets_floor == if is_new { 5 } else { 0 }, "the floors are not those of what runs");
        must(state.agent.previous.is_some() == is_new, "the way back");
        let file = state.file(FILE).unwrap();
        must((file.step == PatchStep::Done) == is_new, "what is told is not so");
        must(file.step != PatchStep::RolledBack || state.failed.contains("m"), "it may be tried again");
        (file.step, file.reason.0.clone())
    }
}

pub(super) fn length(this: &Appliance) -> u64 {
    let this = this.fork(0);
    let before = this.disk.operations();
    drop(this.live());
    this.disk.operations() - before
}

#[test]
fn every_new_agent_ends_as_it_deserves() {
    let table = [
        (Fate::Good, PatchStep::Done, ""),
        (Fate::Unfit, PatchStep::RolledBack, "new_agent_unfit"),
        (Fate::NoStart, PatchStep::RolledBack, "start_failed"),
        (Fate::Silent, PatchStep::RolledBack, "unhealthy"),
        (Fate::Harmful, PatchStep::RolledBack, "unhealthy"),
        (Fate::CutOff, PatchStep::RolledBack, "cannot_reach"),
        (Fate::LateLine, PatchStep::Done, ""),
        (Fate::Offline, PatchStep::Done, "not_reached"),
    ];
    for (fate, step, reason) in table {
        assert_eq!(Appliance::new(1, fate).settle("no cut"), (step, reason.to_owned()), "{fate:?}");
    }
}

#[test]
fn after_power_cuts_at_any_two_operations_both_links_are_on_one_whole_believed_agent() {
    let (mut points, stride) = (0, if whole() { 1 } else { 3 });
    let seeds: Vec<_> = seeds().into_iter().take(8).collect();
    for (&seed, fate) in seeds.iter().flat_map(|seed| FATES.map(|fate| (seed, fate))) {
        let (mut draw, first) = (Draw(seed), Appliance::new(seed, fate));
        for cut in (1..=length(&first)).skip((seed % stride) as usize).step_by(stride as usize) {
            let what = format!("seed {seed} {fate:?} cut at {cut}");
            let mut this = first.fork(draw.next());
            this.disk.cut_power_after(cut);
            drop(this.live());
            this.power_up(&mut draw);
            let length = length(&this);
            let again = if whole() { (1..=length).collect() } else { vec![1 + draw.below(length), 1 + draw.below(length)] };
            for again in again {
                let mut this = this.fork(draw.next());
                this.disk.cut_power_after(again);
                drop(this.live());
                this.power_up(&mut draw);
                this.settle(&format!("{what} and again at {again}"));
                points += 1;
            }
            this.settle(&what);
            points += 1;
        }
    }
    println!("soak: part=patch-disk-agent points={points} seeds={} losses=0", seeds.len());
}

#[test]
fn the_administrator_takes_the_agent_back_and_the_product_stays() {
    let this = Appliance::new(6, Fate::Good);
    this.settle("before");
    let mut engine = this.boot().unwrap();
    assert!(engine.roll_back_installed(Subject::Product).is_err(), "the product was never patched");
    assert_eq!(engine.roll_back_installed(Subject::Agent), Ok(PatchStep::RolledBack));
    assert!(engine.renewed, "the next helper is the old one");
    assert_eq!((this.points_to("current"), this.points_to(PROVEN)), (OLD.to_owned(), OLD.to_owned()));
    assert_eq!(engine.state().agent.version, Version::new(0, 1, 0));
    assert!(engine.roll_back_installed(Subject::Agent).is_err(), "there is nothing older");
}

#[test]
fn nobody_but_the_new_agent_itself_speaks_for_it() {
    let this = Appliance::new(7, Fate::Good);
    let mut engine = this.boot().unwrap();
    while engine.watch.is_none() {
        assert!(this.live_once(&mut engine));
    }
    let good = this.word().unwrap();
    for _ in 0..5 {
        let looks_on = engine.look(&Sight { reached: None, ..good.clone() });
        assert_eq!(looks_on, Some((PatchStep::Probation, 0)), "somebody at the command line");
        let old = engine.look(&Sight { exe: Some(this.program(OLD).into()), ..good.clone() });
        assert_eq!(old, Some((PatchStep::Probation, 0)), "the old one, which was not stopped");
    }
    assert_eq!(engine.look(&good), Some((PatchStep::Probation, 50)));
    assert_eq!(engine.look(&good), Some((PatchStep::Done, 100)));
}

#[test]
fn a_release_of_the_agent_is_its_one_program_and_nothing_beside() {
    type Row = (&'static str, &'static [(&'static str, u32)], bool);
    let table: [Row; 5] = [
        ("the program", &[(AGENT, 0o755)], true),
        ("nothing", &[], false),
        ("another name", &[("agent", 0o755)], false),
        ("nothing to be run", &[(AGENT, 0o644)], false),
        ("something beside it", &[(AGENT, 0o755), ("more", 0o644)], false),
    ];
    for (what, files, fits) in table {
        let (disk, dir) = (SimulatedDisk::new(1), Path::new("/releases/x"));
        disk.make_dir(Path::new("/releases"), 0o755).and_then(|()| disk.make_dir(dir, 0o755)).unwrap();
        files.iter().for_each(|(name, mode)| drop(disk.create(&dir.join(name), *mode).unwrap()));
        assert_eq!(is_an_agent(Tree { disk: &disk, dir: Path::new("/") }, "x").is_ok(), fits, "{what}");
    }
}
