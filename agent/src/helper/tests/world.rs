//! An appliance in memory: a simulated disk, a product with one service, a verified patch, a hand on the clock.
//!
//! Its services run what `current` points to when they are started; a cut of the power stops them, and the machine starts them again, or
//! not yet, when it is back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mainstay_patchkit::archive::{Packed, pack};
use mainstay_patchkit::manifest::{Health, Script};
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{PatchKind, PatchStep};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use semver::Version;

use super::super::back::AGAIN;
use super::super::disk::Disk;
use super::super::engine::{Engine, Plan};
use super::super::executor::{End, Ended, Runner, Step};
use super::super::probation::Sight;
use super::super::readback::hash;
use super::super::settings::Settings;
use super::super::state::{AgreedBy, How, Install, Known, Seal, Stage, State, Subject};
use super::super::store::Store;
use super::simulated::{Draw, SimulatedDisk};

pub(super) const TREE: &str = "/opt/acme";
pub(super) const STATE: &str = "/state";
pub(super) const FILE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(super) const OLD: &str = "1.0.0-00000000";

/// How the new version behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// Its service never answers.
    Sick,
    /// Its script fails.
    BadScript,
    /// Its service can't be started.
    NoStart,
    /// Its change of the data can't be undone.
    OneWay,
}

/// What runs: the release that each service was started from.
pub(super) type Running = Arc<Mutex<BTreeMap<String, String>>>;

#[derive(Clone)]
pub(super) struct World {
    pub(super) disk: SimulatedDisk,
    pub(super) running: Running,
    pub(super) time: TimeSource,
    pub(super) behaviour: Behaviour,
    /// The machine starts the service after the helper rather than before.
    late: bool,
    payload: Arc<(Vec<u8>, Packed)>,
    old_tree: String,
}

struct Machine {
    world: World,
}

impl Runner for Machine {
    fn run(&self, step: &Step) -> Ended {
        let ended = |end| Ended { end, output: String::new() };
        if self.world.disk.step().is_err() {
            return ended(End::Lost("the power is off".into()));
        }
        let current = self.world.current();
        let is_new = current.as_deref() != Some(OLD);
        let mut running = self.world.running.lock().unwrap();
        match step.argv.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["/stop", name] => drop(running.remove(*name)),
            ["/start", _] if is_new && self.world.behaviour == Behaviour::NoStart => return ended(End::Exited(1)),
            ["/start", name] => drop(running.insert((*name).to_owned(), current.unwrap_or_default())),
            [script] if script.ends_with("migrate") && self.world.behaviour == Behaviour::BadScript => {
                return ended(End::Exited(1));
            }
            _ => {}
        }
        ended(End::Exited(0))
    }
}

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
[[service]]
name = "web"
stop = ["/stop", "web"]
start = ["/start", "web"]
"#;

impl World {
    /// An appliance with its old version, and a patch that waits, agreed to.
    pub(super) fn new(seed: u64, behaviour: Behaviour) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(folder.path().join("bin/web"), vec![b'n'; 300]).unwrap();
        std::fs::write(folder.path().join("version"), "2.0.0").unwrap();
        let mut bytes = Vec::new();
        let packed = pack(folder.path(), 1, &mut bytes).unwrap();
        let disk = SimulatedDisk::new(seed);
        let release = Path::new(TREE).join("releases").join(OLD);
        for dir in ["/opt", TREE, "/opt/acme/releases", release.to_str().unwrap(), STATE] {
            disk.make_dir(Path::new(dir), 0o755).unwrap();
        }
        for (name, content) in [("version", "1.0.0"), ("config", "old only")] {
            disk.create(&release.join(name), 0o644).unwrap().write_all(content.as_bytes()).unwrap();
        }
        disk.link(&format!("releases/{OLD}"), &Path::new(TREE).join("current")).unwrap();
        disk.sync_all(Path::new("/")).unwrap();
        let old_tree = hash(&disk, &release).unwrap();
        let running = Arc::new(Mutex::new(BTreeMap::from([("web".to_owned(), OLD.to_owned())])));
        let time = TimeSource::manual(UnixMs(1_800_000_000_000));
        let world = Self { disk, running, time, behaviour, late: false, payload: Arc::new((bytes, packed)), old_tree };
        let mut engine = world.boot().unwrap();
        engine.store.change(|state| state.files.push(waiting(behaviour == Behaviour::OneWay))).unwrap();
        engine.disk.sync_all(Path::new("/")).unwrap();
        world
    }

    /// The same appliance with its own further life.
    pub(super) fn fork(&self, seed: u64) -> Self {
        let running = Arc::new(Mutex::new(self.running.lock().unwrap().clone()));
        Self { disk: self.disk.fork(seed), running, time: TimeSource::manual(self.time.now()), ..self.clone() }
    }

    pub(super) fn current(&self) -> Option<String> {
        let target = self.disk.target_of(&Path::new(TREE).join("current"))?;
        target.strip_prefix("releases/").map(str::to_owned)
    }

    pub(super) fn new_release(&self) -> String {
        format!("2.0.0-{}", &self.payload.1.tree_sha256[..8])
    }

    /// The helper starts: memory is read, the journal finished or undone.
    pub(super) fn boot(&self) -> anyhow::Result<Engine> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let shipped = || Ok(State::shipped(Version::new(1, 0, 0), "{}".into(), UnixMs(0)));
        let store = Store::open(Arc::clone(&disk), STATE.into(), shipped)?;
        let runner = Box::new(Machine { world: self.clone() });
        let settings = Arc::new(Settings::read(SETTINGS)?);
        let mut engine =
            Engine { disk, store, settings, runner, time: self.time.clone(), watch: None, again_at: None, renewed: false };
        engine.recover()?;
        if self.late {
            self.start_service();
        }
        Ok(engine)
    }

    /// The power comes back; the machine has started the service, or does so later.
    pub(super) fn power_up(&mut self, draw: &mut Draw) {
        self.disk.cycle_power();
        self.running.lock().unwrap().clear();
        self.late = draw.below(2) == 0;
        if !self.late {
            self.start_service();
        }
    }

    fn start_service(&self) {
        let current = self.current().unwrap_or_default();
        if self.behaviour != Behaviour::NoStart || current == OLD {
            self.running.lock().unwrap().entry("web".into()).or_insert(current);
        }
    }

    fn plan(&self, engine: &Engine) -> Plan {
        let scripts = vec![Script { argv: vec!["bin/migrate".into()], timeout_s: 60 }];
        let how = How::Tree {
            from_release: engine.tree().current().unwrap_or_default(),
            to_release: self.new_release(),
            tree_sha256: self.payload.1.tree_sha256.clone(),
            scripts: if matches!(self.behaviour, Behaviour::BadScript | Behaviour::OneWay) { scripts } else { Vec::new() },
        };
        let install = Install {
            stage: Stage::Staging,
            subject: Subject::Product,
            how,
            from_version: engine.state().product.version.clone(),
            to_version: Version::new(2, 0, 0),
            services: vec!["web".into()],
            baseline: BTreeMap::from([("web".into(), ServiceState::Up)]),
            health: Health { consecutive_ok: 2, deadline_s: 60 },
            one_way: self.behaviour == Behaviour::OneWay,
            rounds: 0,
        };
        let seal = Seal { root: Some("{2}".into()), targets_version: 5, role_version: 7, verified_at: self.time.now() };
        Plan { sha256: FILE.into(), install, seal, payload: self.payload.1.payload.clone() }
    }

    /// What a reporter does: proceeds with what is due, looks at the services, until nothing is left to do or the power goes.
    pub(super) fn live(&self, engine: &mut Engine) {
        for _ in 0..40 {
            if self.disk.is_off() || !self.live_once(engine) {
                return;
            }
        }
    }

    /// One of its steps; false: nothing is left to do.
    pub(super) fn live_once(&self, engine: &mut Engine) -> bool {
        let step = engine.state().file(FILE).map(|file| file.step);
        if engine.watch.is_some() {
            engine.look(&Sight { services: self.services(), ..Sight::default() });
            self.time.advance(std::time::Duration::from_secs(20));
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

    fn services(&self) -> BTreeMap<String, ServiceState> {
        let running = self.running.lock().unwrap().get("web").cloned();
        let state = match running.as_deref() {
            None => ServiceState::Down,
            Some(OLD) => ServiceState::Up,
            Some(_) if self.behaviour == Behaviour::Sick => ServiceState::Down,
            Some(_) => ServiceState::Up,
        };
        BTreeMap::from([("web".to_owned(), state)])
    }

    /// Wholly old or wholly new, running, and told as it is.
    pub(super) fn judge(&self, engine: &Engine) -> Result<PatchStep, String> {
        let state = engine.state();
        let file = state.file(FILE).ok_or("the file is forgotten")?;
        let current = self.current().ok_or("there is no current version")?;
        let found = hash(&self.disk, &Path::new(TREE).join("releases").join(&current)).map_err(|why| why.to_string())?;
        let is_new = current == self.new_release();
        let whole = if is_new { &self.payload.1.tree_sha256 } else { &self.old_tree };
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: current {current}, {state:#?}")) };
        must(&found == whole, "the tree is neither the old nor the new")?;
        must(state.job.is_none(), "something is still under way")?;
        must(
            state.product.version == if is_new { Version::new(2, 0, 0) } else { Version::new(1, 0, 0) },
            "the version is not what lies there",
        )?;
        let runs = self.running.lock().unwrap().get("web").cloned();
        must(runs.as_ref() == Some(&current) || file.step == PatchStep::Failed, "the service does not run it")?;
        let told = match file.step {
            PatchStep::Done => is_new,
            PatchStep::RolledBack | PatchStep::AwaitingWindow | PatchStep::Refused => !is_new,
            PatchStep::Failed => self.behaviour == Behaviour::OneWay,
            _ => false,
        };
        must(told, "what is told is not so")?;
        let floors = (state.trust.targets_floor, state.trust.role_floor, state.trust.root.as_str());
        must(floors == if is_new { (5, 7, "{2}") } else { (0, 0, "{}") }, "the floors are not those of what runs")?;
        must(state.reports.last().is_none_or(|last| last.step == file.step), "the last report tells something else")?;
        must(state.reports.windows(2).all(|two| two[0].number < two[1].number), "reports are numbered twice")?;
        must(file.step != PatchStep::RolledBack || state.failed.contains("m"), "it may be tried again")?;
        Ok(file.step)
    }
}

pub(super) fn waiting(one_way: bool) -> Known {
    Known {
        sha256: FILE.into(),
        manifest_sha256: "m".into(),
        offer_id: None,
        by_hand: false,
        kind: PatchKind::Patch,
        name: "2.0.0".into(),
        product: "acme".into(),
        from_version: Some("1.0.0".into()),
        to_version: "2.0.0".into(),
        title: Default::default(),
        notes: Default::default(),
        bytes: 1,
        one_way,
        step: PatchStep::AwaitingWindow,
        reason: Default::default(),
        output: String::new(),
        at: UnixMs(0),
        code: None,
        tries: 0,
        agreed: Some(AgreedBy::Administrator),
        attempts: 0,
    }
}
