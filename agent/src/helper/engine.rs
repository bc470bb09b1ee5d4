//! The engine: takes a verified file from consent to "done", or back. Every step is written to the journal before it is taken; the order
//! of steps is the promise that a power cut leaves the old or the new, never something between.
//!
//! The way forward is here; the way back and what a start finds are in `back`, the looks at the services in `probation`. It must never
//! believe a return code where it can look at what runs, and never begin without the baseline.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_patchkit::manifest::{Payload, Script};
use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::PatchStep;
use mainstay_shared::time_source::{TimeSource, UnixMs};

use super::disk::Disk;
use super::disk::io_refusal;
use super::executor::{Runner, Step};
use super::settings::Settings;
use super::state::{How, Install, Job, Seal, Stage, State, Subject, Work};
use super::store::Store;
use super::tree::{PROVEN, Tree, is_an_agent};

/// Seconds that a service gets to stop or to start.
pub(super) const SERVICE_LIMIT_S: u32 = 300;
/// A file that was begun so often without an end is given up.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// What works on the machine.
pub(super) struct Engine {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
    pub(super) runner: Box<dyn Runner>,
    pub(super) time: TimeSource,
    /// Since when the services are being watched; none outside probation.
    pub(super) watch: Option<Watch>,
    /// When what a fault has left in the journal is taken up again, by the monotonic clock.
    pub(super) again_at: Option<Duration>,
    /// Another release of the agent is proven than the one that this process is: it ends as soon as nothing is under way.
    pub(super) renewed: bool,
}

/// The present probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watch {
    /// By the monotonic clock.
    pub(super) deadline: Duration,
    /// Good looks in a row.
    pub(super) good: u32,
    /// The last good look: when it came, and whether the new agent, if it is that which is judged, had reached the collector.
    pub(super) seen: Option<(Duration, bool)>,
    /// The old agent was tried, and does reach the collector.
    pub(super) old_reaches: bool,
}

/// What is to be done, decided and checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) sha256: String,
    pub(super) install: Install,
    pub(super) seal: Seal,
    pub(super) payload: Payload,
}

/// Tells how far it is.
pub(super) type Tell<'a> = &'a mut dyn FnMut(PatchStep, u8);

/// What ended the way forward.
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Engine {
    pub(super) fn now(&self) -> UnixMs {
        self.time.now()
    }

    pub(super) fn state(&self) -> &State {
        self.store.state()
    }

    pub(super) fn tree_of(&self, subject: Subject) -> Tree<'_> {
        let dir = match (subject, &self.settings.agent) {
            (Subject::Product, _) => self.settings.tree.as_path(),
            (Subject::Agent, Some(agent)) => agent.tree.as_path(),
            // Nothing of the agent's is begun, or gone on with, without its table.
            (Subject::Agent, None) => Path::new("/nonexistent"),
        };
        Tree { disk: &*self.disk, dir }
    }

    /// What the job under way is about.
    pub(super) fn subject(&self) -> Subject {
        self.job().map(|(_, install)| install.subject).unwrap_or_default()
    }

    pub(super) fn tree(&self) -> Tree<'_> {
        self.tree_of(self.subject())
    }

    /// From the journal's first line to the beginning of probation, or back. What is told is where it stands then.
    ///
    /// # Errors
    /// A refusal before anything that runs was touched; everything is then as before.
    pub(super) fn install(&mut self, plan: &Plan, payload: &mut (dyn Read + Send), tell: Tell<'_>) -> Result<PatchStep, Refusal> {
        let now = self.now();
        let job = Job {
            sha256: plan.sha256.clone(),
            work: Work::Install(plan.install.clone()),
            seal: plan.seal.clone(),
            why: Default::default(),
            output: String::new(),
        };
        let begun = self.store.change(|state| {
            state.job = Some(job);
            if let Some(file) = state.file_mut(&plan.sha256) {
                file.attempts += 1;
            }
            state.step(&plan.sha256, PatchStep::Applying, ("", ""), "", now);
        });
        begun.map_err(|error| io_refusal(&error))?;
        tell(PatchStep::Applying, 0);
        if let Err(refusal) = self.stage(plan, payload, tell) {
            self.undo_staging(&plan.sha256, &refusal)?;
            return Err(refusal);
        }
        Ok(self.go_on(Stage::Swapping, tell))
    }

    fn stage(&mut self, plan: &Plan, payload: &mut (dyn Read + Send), tell: Tell<'_>) -> Result<(), Refusal> {
        match &plan.install.how {
            How::Tree { to_release, tree_sha256, .. } => {
                let told = &mut |percent| tell(PatchStep::Applying, percent);
                let tree = self.tree_of(plan.install.subject);
                if self.is_needed(plan.install.subject, to_release).map_err(|error| io_refusal(&error))? {
                    return is_what_was_signed(tree, to_release, tree_sha256);
                }
                tree.stage(to_release, tree_sha256, payload, &plan.payload, told)?;
                if plan.install.subject == Subject::Agent { is_an_agent(tree, to_release) } else { Ok(()) }
            }
            How::Packages { .. } => self.stage_packages(payload, &plan.payload),
        }
    }

    /// From `stage` to the beginning of probation; what fails, goes back.
    pub(super) fn go_on(&mut self, stage: Stage, tell: Tell<'_>) -> PatchStep {
        match self.forward(stage, tell) {
            Ok(()) => PatchStep::Probation,
            Err(failure) => {
                tracing::error!(code = failure.code, "the patch goes back: {}", failure.detail);
                self.give_up(failure.code, &failure.detail)
            }
        }
    }

    fn forward(&mut self, from: Stage, tell: Tell<'_>) -> Result<(), Failure> {
        if from <= Stage::Swapping {
            self.enter(Stage::Swapping)?;
            self.check_new_agent()?;
            self.stop_services()?;
            tell(PatchStep::Applying, 92);
            self.put_in_place()?;
        }
        if from <= Stage::Scripts && !self.scripts().is_empty() {
            self.enter(Stage::Scripts)?;
            tell(PatchStep::Applying, 94);
            self.run_scripts()?;
        }
        self.enter(Stage::Starting)?;
        tell(PatchStep::Applying, 97);
        self.start_services()?;
        self.begin_probation()
    }

    /// The job that is under way, if it is an installation.
    pub(super) fn job(&self) -> Option<(&Job, &Install)> {
        let job = self.state().job.as_ref()?;
        match &job.work {
            Work::Install(install) => Some((job, install)),
            Work::Action { .. } => None,
        }
    }

    /// Changes the job that is under way.
    pub(super) fn change_job(&mut self, change: impl FnOnce(&mut Job, &mut Install)) -> Result<(), Failure> {
        let changed = self.store.change(|state| {
            if let Some(mut job) = state.job.take() {
                if let Work::Install(install) = &job.work {
                    let mut install = install.clone();
                    change(&mut job, &mut install);
                    job.work = Work::Install(install);
                }
                state.job = Some(job);
            }
        });
        changed.map_err(|error| Failure { code: "io", detail: format!("the journal can't be written: {error}") })
    }

    fn enter(&mut self, stage: Stage) -> Result<(), Failure> {
        let now_at = self.job().map(|(_, install)| install.stage);
        if now_at == Some(stage) {
            return Ok(());
        }
        self.change_job(|_, install| {
            // Back from probation to the start, after a crash, the crashes are counted on.
            if install.stage < stage {
                install.rounds = 0;
            }
            install.stage = stage;
        })
    }

    pub(super) fn own_services(&self) -> Vec<String> {
        self.job().map(|(_, install)| install.services.clone()).unwrap_or_default()
    }

    fn scripts(&self) -> Vec<Script> {
        match self.job().map(|(_, install)| &install.how) {
            Some(How::Tree { scripts, .. }) => scripts.clone(),
            _ => Vec::new(),
        }
    }

    fn stop_services(&mut self) -> Result<(), Failure> {
        for name in self.own_services() {
            self.service(&name, false)?;
        }
        Ok(())
    }

    pub(super) fn start_services(&mut self) -> Result<(), Failure> {
        for name in self.own_services() {
            self.service(&name, true)?;
        }
        Ok(())
    }

    /// Stops or starts one service by the box's own settings for it.
    pub(super) fn service(&mut self, name: &str, start: bool) -> Result<(), Failure> {
        let (code, verb) = if start { ("start_failed", "start") } else { ("stop_failed", "stop") };
        let Some(service) = self.settings.service(name) else {
            return Err(Failure { code, detail: format!("service {name:?}: not in helper.toml") });
        };
        let argv = if start { service.start.clone() } else { service.stop.clone() };
        let step = Step { argv, dir: "/".into(), timeout_s: SERVICE_LIMIT_S, leaves_children: true, user: None };
        let ended = self.runner.run(&step);
        match ended.trouble(&format!("{verb} {name}")) {
            None => Ok(()),
            Some(detail) => {
                self.keep_output(&ended.output)?;
                Err(Failure { code, detail })
            }
        }
    }

    fn put_in_place(&mut self) -> Result<(), Failure> {
        match self.job().map(|(_, install)| install.how.clone()) {
            Some(How::Tree { to_release, .. }) => {
                let failed = |error: std::io::Error| Failure { code: "io", detail: format!("the swap failed: {error}") };
                self.tree().swap(Some(&to_release)).map_err(failed)
            }
            Some(How::Packages { packages, .. }) => self.install_packages(&packages),
            None => Ok(()),
        }
    }

    fn run_scripts(&mut self) -> Result<(), Failure> {
        for script in self.scripts() {
            let Some((program, arguments)) = script.argv.split_first() else { continue };
            let inside = self.settings.tree.join("current");
            let argv =
                std::iter::once(inside.join(program).to_string_lossy().into_owned()).chain(arguments.iter().cloned()).collect();
            let step = Step { argv, dir: inside, timeout_s: script.timeout_s, leaves_children: false, user: None };
            let ended = self.runner.run(&step);
            self.keep_output(&ended.output)?;
            if let Some(detail) = ended.trouble(program) {
                return Err(Failure { code: "script_failed", detail });
            }
        }
        Ok(())
    }

    pub(super) fn keep_output(&mut self, output: &str) -> Result<(), Failure> {
        if output.is_empty() {
            return Ok(());
        }
        self.change_job(|job, _| {
            if !job.output.is_empty() {
                job.output.push('\n');
            }
            job.output.push_str(output);
            job.output = super::redact::redact(&job.output);
        })
    }

    /// Where payloads of packages lie, unpacked.
    pub(super) fn packages_dir(&self) -> PathBuf {
        self.settings.state_dir.join("packages")
    }

    /// What is no longer needed is removed; what can't be now, will be the next time.
    pub(super) fn clean_up(&self) {
        for subject in Subject::ALL {
            if let Err(error) = self.clean_up_of(subject) {
                tracing::warn!(?subject, "old releases can't be removed: {error}");
            }
        }
    }

    /// Whether a release runs, is believed, or can be gone back to. Our memory may be older than the tree: a copy was restored.
    fn is_needed(&self, subject: Subject, release: &str) -> std::io::Result<bool> {
        let (line, tree) = (self.state().line(subject), self.tree_of(subject));
        let linked = [tree.current()?, if subject == Subject::Agent { tree.target(PROVEN)? } else { None }];
        let previous = line.previous.as_ref().map(|previous| previous.release.as_str());
        Ok(previous == Some(release) || linked.iter().flatten().any(|name| name == release))
    }

    fn clean_up_of(&self, subject: Subject) -> std::io::Result<()> {
        if subject == Subject::Agent && self.settings.agent.is_none() {
            return Ok(());
        }
        let (line, tree) = (self.state().line(subject), self.tree_of(subject));
        let mut keep: Vec<&str> = line.previous.iter().map(|previous| previous.release.as_str()).collect();
        if let Some((_, Install { how: How::Tree { from_release, to_release, .. }, .. })) = self.job() {
            keep.extend(from_release.as_deref());
            keep.push(to_release);
        }
        let proven = if subject == Subject::Agent { tree.target(PROVEN)? } else { None };
        keep.extend(proven.as_deref());
        tree.clean(&keep)
    }
}

/// A release that is needed is never written anew: it is what is to come already, or the patch is refused.
fn is_what_was_signed(tree: Tree<'_>, release: &str, tree_sha256: &str) -> Result<(), Refusal> {
    if tree.hash_of(release)? == tree_sha256 {
        return Ok(());
    }
    let path = tree.path_of(release);
    Err(Refusal::NotSetUp(format!("{}: it is in use, and not what was signed", path.display())))
}
