//! The way back, and what a start finds in the journal: finish or undo, whatever was cut. As careful as the way forward.
//!
//! A part of `engine`. Everything here can be cut again and begun again. It must never leave services stopped that ran, nor call something
//! rolled back that is not.

use std::time::Duration;

use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::{PatchKind, PatchStep};

use super::disk::io_refusal;
use super::engine::{Engine, Failure, MAX_ATTEMPTS};
use super::rules::{self, INTERRUPTED, MAX_ROUNDS, Recovery};
use super::state::{How, Install, Job, Previous, Stage, State, Subject, Work};

/// So long after a fault what it has left in the journal is taken up again.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// A rollback that the administrator asked for.
const BY_ADMINISTRATOR: &str = "by_administrator";

impl Engine {
    /// Reads the journal and finishes or undoes what it tells of. Called once, before anybody is answered.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub(super) fn recover(&mut self) -> std::io::Result<()> {
        self.take_up(true)
    }

    /// The same with what a fault has left while this helper runs: no crash is counted.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub(super) fn take_up_again(&mut self) -> std::io::Result<()> {
        self.take_up(false)
    }

    /// [`Engine::take_up_again`] when it is time: whoever could call may be what was stopped. How long until then; none: nothing is left.
    pub(super) fn take_up_in_time(&mut self) -> Option<Duration> {
        let now = self.time.monotonic();
        match self.again_at {
            _ if self.state().job.is_none() => {}
            Some(at) if at > now => return Some(at.saturating_sub(now)),
            Some(_) => log_if(self.take_up_again()),
            None => {}
        }
        let is_left = self.state().job.is_some() && self.watch.is_none();
        self.again_at = is_left.then(|| self.time.monotonic() + AGAIN);
        self.left().or(is_left.then_some(AGAIN))
    }

    fn take_up(&mut self, after_crash: bool) -> std::io::Result<()> {
        if self.subject() == Subject::Agent && self.settings.agent.is_none() {
            let told = "helper.toml: the table [agent] was removed while an update of the agent is under way; expected it back";
            return Err(std::io::Error::other(told));
        }
        // Where it can't be moved now, the next start tries again; nothing of the agent's is begun before.
        log_if(self.move_proven());
        self.know_agent()?;
        match self.state().job.clone() {
            None => {}
            Some(Job { work: Work::Action { .. }, sha256, output, .. }) => self.lose_action(&sha256, &output)?,
            Some(Job { work: Work::Install(install), sha256, .. }) => {
                let recovery = rules::recover(&install, self.can_go_back(&install));
                tracing::warn!(stage = ?install.stage, "an interrupted patch was found: {recovery:?}");
                self.recover_install(&sha256, &install, &recovery, after_crash)?;
            }
        }
        self.clean_up();
        Ok(())
    }

    fn recover_install(
        &mut self,
        sha256: &str,
        install: &Install,
        recovery: &Recovery,
        after_crash: bool,
    ) -> std::io::Result<()> {
        let unheard = &mut |_, _| ();
        match recovery {
            Recovery::Forget => self.forget(sha256),
            Recovery::GoBack(code) => {
                let counted = self.change_job(|_, install| install.rounds += u32::from(install.stage == Stage::GoingBack));
                counted.map_err(|failure| std::io::Error::other(failure.detail))?;
                self.go_back(code, "");
                Ok(())
            }
            Recovery::GoOn(stage) => {
                let rounds = install.rounds + u32::from(after_crash);
                let counted = self.change_job(|_, install| install.rounds = rounds);
                counted.map_err(|failure| std::io::Error::other(failure.detail))?;
                self.go_on(*stage, unheard);
                Ok(())
            }
        }
    }

    /// Whether the old version is there and may run on the data as they are. What only can't be looked at now is there.
    fn can_go_back(&self, install: &Install) -> bool {
        let there = match &install.how {
            How::Tree { from_release: Some(release), .. } => self.tree().has(release).unwrap_or(true),
            How::Tree { from_release: None, .. } => true,
            How::Packages { before, .. } => self.packages_are_kept(before),
        };
        there && !install.one_way
    }

    /// Undoes a staging that was refused.
    pub(super) fn undo_staging(&mut self, sha256: &str, refusal: &Refusal) -> Result<(), Refusal> {
        let now = self.now();
        let (code, detail) = (refusal.code(), refusal.to_string());
        let undone = self.store.change(|state| {
            state.job = None;
            let worn_out = state.file(sha256).is_some_and(|file| file.attempts >= MAX_ATTEMPTS);
            let step = if rules::passes(refusal) && !worn_out { PatchStep::AwaitingWindow } else { PatchStep::Refused };
            state.step(sha256, step, (code, &detail), "", now);
        });
        self.clean_up();
        undone.map_err(|error| io_refusal(&error))
    }

    /// A staging that was cut: as if it had not been.
    fn forget(&mut self, sha256: &str) -> std::io::Result<()> {
        let now = self.now();
        self.store.change(|state| {
            state.job = None;
            wait_again(state, sha256, now, "");
        })
    }

    /// The way forward failed: back, if there is a way back.
    pub(super) fn give_up(&mut self, code: &str, detail: &str) -> PatchStep {
        match self.job().map(|(_, install)| self.can_go_back(install)) {
            Some(true) => self.go_back(code, detail),
            Some(false) => self.stay(code, detail),
            None => PatchStep::Failed,
        }
    }

    /// No way back: the new version stays, and a person must look.
    fn stay(&mut self, code: &str, detail: &str) -> PatchStep {
        self.watch = None;
        let now = self.now();
        let stayed = self.store.change(|state| {
            let Some(job) = state.job.take() else { return };
            if let Work::Install(install) = &job.work {
                let line = state.line_mut(install.subject);
                line.version.clone_from(&install.to_version);
                line.previous = None;
                line.moving = install.proven_after(true);
            }
            state.seal(&job.seal);
            fail(state, &job.sha256);
            state.step(&job.sha256, PatchStep::Failed, (code, detail), &job.output, now);
        });
        log_if(stayed.and_then(|()| self.move_proven()));
        PatchStep::Failed
    }

    /// Swaps back and starts what ran before. Begun again after a cut, at most [`MAX_ROUNDS`] times.
    pub(super) fn go_back(&mut self, code: &str, detail: &str) -> PatchStep {
        self.watch = None;
        let entered = self.change_job(|job, install| {
            if install.stage != Stage::GoingBack {
                install.stage = Stage::GoingBack;
                install.rounds = 0;
                job.why = (code.to_owned(), detail.to_owned());
            }
        });
        let Some((job, install)) = self.job().map(|(job, install)| (job.clone(), install.clone())) else {
            return PatchStep::Failed;
        };
        if let Err(failure) = entered {
            // Nothing is done that was not written down; but what was stopped already may be all that speaks for this appliance.
            let troubles = self.each_service(&install, true);
            tracing::error!(?troubles, "the way back can't be begun, it is tried again: {}", failure.detail);
            return PatchStep::Applying;
        }
        match self.back_in_place(&install) {
            Ok(trouble) => self.gone_back(&job, &install, &trouble),
            Err(failure) if install.rounds + 1 >= MAX_ROUNDS => self.lost(&job, &failure),
            Err(failure) => {
                tracing::error!("the way back failed, it is tried again: {}", failure.detail);
                PatchStep::Applying
            }
        }
    }

    /// The old version in place and its services started; what did not go well, but doesn't matter for that. Where it can't be put in place
    /// its services run what is there.
    fn back_in_place(&mut self, install: &Install) -> Result<String, Failure> {
        let mut troubles = Vec::new();
        let back = self.check_old(install.subject, &install.how).and_then(|()| {
            // A service that crashed may not let itself be stopped: it goes back all the same.
            troubles = self.each_service(install, false);
            self.put_back(&install.how)
        });
        troubles.extend(self.each_service(install, true));
        match back {
            Ok(()) => Ok(troubles.join("; ")),
            Err(Failure { code, detail }) => {
                troubles.insert(0, detail);
                Err(Failure { code, detail: troubles.join("; ") })
            }
        }
    }

    fn put_back(&mut self, how: &How) -> Result<(), Failure> {
        match how {
            How::Tree { from_release, .. } => {
                let failed = |error: std::io::Error| Failure { code: "io", detail: format!("the swap failed: {error}") };
                self.tree().swap(from_release.as_deref()).map_err(failed)
            }
            How::Packages { packages, before } => self.packages_back(packages, before),
        }
    }

    /// Stops or starts all of them; what did not go well.
    fn each_service(&mut self, install: &Install, start: bool) -> Vec<String> {
        install.services.iter().filter_map(|name| self.service(name, start).err()).map(|failure| failure.detail).collect()
    }

    /// The old release must be there, and, if it was put there by us, be what it was.
    fn check_old(&self, subject: Subject, how: &How) -> Result<(), Failure> {
        let How::Tree { from_release: Some(release), .. } = how else { return Ok(()) };
        let (tree, damaged) = (self.tree_of(subject), "old_version_damaged");
        match tree.has(release) {
            Ok(true) => {}
            Ok(false) => return Err(Failure { code: damaged, detail: format!("{release}: it is not there any more") }),
            Err(error) => return Err(Failure { code: "io", detail: format!("{release}: {error}") }),
        }
        let Some(known) = self.state().line(subject).releases.get(release) else { return Ok(()) };
        match tree.hash_of(release) {
            Ok(found) if found == *known => Ok(()),
            Ok(_) => Err(Failure { code: damaged, detail: format!("{release}: not what was installed") }),
            Err(refusal) => Err(Failure { code: damaged, detail: format!("{release}: {refusal}") }),
        }
    }

    fn gone_back(&mut self, job: &Job, install: &Install, trouble: &str) -> PatchStep {
        let now = self.now();
        let interrupted = job.why.0 == INTERRUPTED;
        let detail = if trouble.is_empty() { job.why.1.clone() } else { format!("{} ({trouble})", job.why.1) };
        let told = self.store.change(|state| {
            let output = state.job.take().map(|job| job.output).unwrap_or_default();
            let line = state.line_mut(install.subject);
            if let How::Tree { to_release, .. } = &install.how {
                line.releases.remove(to_release);
            }
            // What was on probation leaves the way back that there was before it.
            line.previous.take_if(|previous| previous.sha256 == job.sha256);
            line.version.clone_from(&install.from_version);
            line.moving = install.proven_after(false).filter(|_| job.why.0 == BY_ADMINISTRATOR);
            if interrupted {
                wait_again(state, &job.sha256, now, &detail);
            } else {
                fail(state, &job.sha256);
                state.step(&job.sha256, PatchStep::RolledBack, (&job.why.0, &detail), &output, now);
            }
        });
        log_if(told.and_then(|()| self.move_proven()));
        self.clean_up();
        if interrupted { PatchStep::AwaitingWindow } else { PatchStep::RolledBack }
    }

    /// Neither forward nor back.
    fn lost(&mut self, job: &Job, failure: &Failure) -> PatchStep {
        let now = self.now();
        let told = self.store.change(|state| {
            state.job = None;
            fail(state, &job.sha256);
            state.step(&job.sha256, PatchStep::Failed, (failure.code, &failure.detail), &job.output, now);
        });
        log_if(told);
        PatchStep::Failed
    }

    /// Back to the version before, because root says so.
    ///
    /// # Errors
    /// When there is none, or something is under way.
    pub(super) fn roll_back_installed(&mut self, subject: Subject) -> Result<PatchStep, Refusal> {
        let refused = |text: &str| Err(Refusal::Customer(text.to_owned()));
        if self.state().job.is_some() {
            return refused("something else is under way");
        }
        let Some(Previous { release, version, sha256, services }) = self.state().line(subject).previous.clone() else {
            return refused("there is no version to go back to");
        };
        if subject == Subject::Agent {
            self.takes_agents()?;
            self.check_old_agent(&release)?;
        }
        let current = self.tree_of(subject).current().map_err(|error| io_refusal(&error))?.unwrap_or_default();
        let how = How::Tree {
            from_release: Some(release),
            tree_sha256: self.state().line(subject).releases.get(&current).cloned().unwrap_or_default(),
            to_release: current,
            scripts: Vec::new(),
        };
        // Told at once, and nothing is stopped for it.
        self.check_old(subject, &how).map_err(|failure| Refusal::Content(failure.detail))?;
        let install = Install {
            stage: Stage::GoingBack,
            subject,
            how,
            from_version: version,
            to_version: self.state().line(subject).version.clone(),
            services,
            baseline: Default::default(),
            health: mainstay_patchkit::manifest::Health { consecutive_ok: 1, deadline_s: 1 },
            one_way: false,
            rounds: 0,
        };
        let trust = self.state().trust.clone();
        let seal = super::state::Seal {
            root: None,
            targets_version: trust.targets_floor,
            role_version: trust.role_floor,
            verified_at: trust.time_floor,
        };
        let why = (BY_ADMINISTRATOR.to_owned(), "the administrator asked for it".to_owned());
        let job = Job { sha256, work: Work::Install(install), seal, why, output: String::new() };
        self.store.change(|state| state.job = Some(job)).map_err(|error| io_refusal(&error))?;
        Ok(self.go_back(BY_ADMINISTRATOR, ""))
    }
}

fn log_if(told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::error!("the journal can't be written, it is tried again: {error}");
    }
}

/// Not tried again, under whatever signature.
fn fail(state: &mut State, sha256: &str) {
    let manifest = state.file(sha256).filter(|file| file.kind == PatchKind::Patch).map(|file| file.manifest_sha256.clone());
    state.failed.extend(manifest);
}

/// What was only cut waits for its next try, unless it was cut too often.
fn wait_again(state: &mut State, sha256: &str, now: mainstay_shared::time_source::UnixMs, detail: &str) {
    let worn_out = state.file(sha256).is_some_and(|file| file.attempts >= MAX_ATTEMPTS);
    let step = if worn_out { PatchStep::RolledBack } else { PatchStep::AwaitingWindow };
    if worn_out {
        fail(state, sha256);
    }
    state.step(sha256, step, (INTERRUPTED, detail), "", now);
}
