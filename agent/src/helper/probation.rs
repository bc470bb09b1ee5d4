//! Probation: the new version is in place and must serve before it is believed. Looks come from the reporter (or from root's command);
//! silence to the deadline goes back as well as a bad answer does.
//!
//! A part of `engine`. The commit is here: one write moves version, floors, roots and the file's step together. It must never extend a
//! deadline but after a restart, whose number is limited, and once for a new agent, when the old one was just found to reach the collector.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::PatchStep;

use super::engine::{Engine, Failure, Watch};
use super::rules::{self, Look};
use super::state::{How, Install, Job, Previous, Stage, Subject, Work};

/// A new agent that has said nothing for so long before the deadline does not serve.
const SPOKE_LATELY: Duration = Duration::from_secs(60);
/// So long the new agent may still reach the collector once the old one did.
const SAME_CHANCE: Duration = Duration::from_secs(20);
const TOO_FEW: &str = "too few good answers before the deadline";
const SILENT: &str = "the new agent said nothing, or too little, before the deadline";
const CANNOT_REACH: &str = "the new agent did not reach the collector; the old one, tried in the same minute, did";
const NOT_REACHED: &str = "neither the new agent nor the old one reached the collector: it was judged on this appliance alone";

/// What one look shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) services: BTreeMap<String, ServiceState>,
    /// Whether the reporter has reached the collector since its start; none: somebody else looks.
    pub(super) reached: Option<bool>,
    /// The program that tells it.
    pub(super) exe: Option<PathBuf>,
}

impl Engine {
    pub(super) fn begin_probation(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let changed = self.store.change(|state| {
            let Some(job) = &mut state.job else { return };
            if let Work::Install(install) = &mut job.work {
                install.stage = Stage::Probation;
            }
            let sha256 = job.sha256.clone();
            state.step(&sha256, PatchStep::Probation, ("", ""), "", now);
        });
        changed.map_err(|error| Failure { code: "io", detail: format!("the journal can't be written: {error}") })?;
        let deadline_s = self.job().map_or(0, |(_, install)| install.health.deadline_s);
        let deadline = self.time.monotonic() + Duration::from_secs(deadline_s.into());
        self.watch = Some(Watch { deadline, good: 0, seen: None, old_reaches: false });
        Ok(())
    }

    /// One look at the services; where it stands then, with the percentage of good looks.
    pub(super) fn look(&mut self, sight: &Sight) -> Option<(PatchStep, u8)> {
        let watch = self.watch?;
        let (job, install) = self.job().map(|(job, install)| (job.clone(), install.clone()))?;
        let enough = install.health.consecutive_ok.max(1);
        if install.subject == Subject::Agent && sight.reached.is_none() {
            // Somebody at the command line looks on: the new agent must speak for itself.
            return Some((PatchStep::Probation, percent(watch.good, enough)));
        }
        let looked = match rules::look(&install.baseline, &sight.services) {
            Look::Good => self.what_runs(&install, sight),
            bad @ Look::Bad(_) => bad,
        };
        let now = self.time.monotonic();
        let late = now >= watch.deadline;
        match looked {
            Look::Good => {
                let reached = install.subject != Subject::Agent || sight.reached == Some(true);
                let good = watch.good.saturating_add(1);
                self.watch = Some(Watch { good, seen: Some((now, reached)), ..watch });
                if good >= enough && reached {
                    return Some((self.commit(&job, &install, ("", "")), 100));
                }
                if late {
                    return Some((self.judge_at_deadline(), 100));
                }
                Some((PatchStep::Probation, percent(good, enough)))
            }
            Look::Bad(why) if late => Some((self.give_up("unhealthy", &why), 100)),
            Look::Bad(why) => {
                tracing::warn!("probation: {why}");
                self.watch = Some(Watch { good: 0, seen: None, ..watch });
                Some((PatchStep::Probation, 0))
            }
        }
    }

    /// Judges when the deadline has passed, and takes up again what a fault has left in the journal. How long until there is something to
    /// do; none: nothing is under way.
    pub(super) fn tick(&mut self) -> Option<Duration> {
        if self.left().is_some_and(|left| left.is_zero()) {
            tracing::warn!("probation: the deadline has passed");
            self.judge_at_deadline();
        }
        self.left().or_else(|| self.take_up_in_time())
    }

    /// Until the deadline; none outside probation.
    pub(super) fn left(&self) -> Option<Duration> {
        self.watch.map(|watch| watch.deadline.saturating_sub(self.time.monotonic()))
    }

    /// Too few good answers go back. A new agent that serves, but has not reached the collector, goes back only if the old one reaches it:
    /// a line that is dead is not the new agent's fault.
    fn judge_at_deadline(&mut self) -> PatchStep {
        let Some((job, install)) = self.job().map(|(job, install)| (job.clone(), install.clone())) else {
            return PatchStep::Failed;
        };
        let (now, enough) = (self.time.monotonic(), install.health.consecutive_ok.max(1));
        let watch = self.watch.filter(|watch| {
            let spoke_lately = watch.seen.is_some_and(|(at, reached)| !reached && now.saturating_sub(at) <= SPOKE_LATELY);
            install.subject == Subject::Agent && watch.good >= enough && spoke_lately
        });
        let How::Tree { from_release: Some(old), .. } = &install.how else {
            return self.give_up("unhealthy", TOO_FEW);
        };
        match watch {
            None if install.subject == Subject::Agent => self.give_up("unhealthy", SILENT),
            None => self.give_up("unhealthy", TOO_FEW),
            Some(watch) if watch.old_reaches => self.give_up("cannot_reach", CANNOT_REACH),
            // The line may have come back at this very moment: the new agent gets the same chance.
            Some(watch) if self.old_agent_reaches(old) => {
                let deadline = self.time.monotonic() + SAME_CHANCE;
                self.watch = Some(Watch { deadline, old_reaches: true, ..watch });
                PatchStep::Probation
            }
            Some(_) => self.commit(&job, &install, ("not_reached", NOT_REACHED)),
        }
    }

    /// What was signed is what lies there and what runs.
    fn what_runs(&self, install: &Install, sight: &Sight) -> Look {
        let How::Tree { to_release, .. } = &install.how else { return self.packages_look(install) };
        match self.tree().current() {
            Ok(Some(current)) if current == *to_release => {}
            other => return Look::Bad(format!("current points to {other:?}, not to {to_release}")),
        }
        if install.subject == Subject::Agent {
            let new = self.agent_program(to_release);
            let new = std::fs::canonicalize(&new).unwrap_or(new);
            let speaks = sight.exe.as_ref() == Some(&new);
            return if speaks { Look::Good } else { Look::Bad(format!("{:?} speaks, not {}", sight.exe, new.display())) };
        }
        for name in &install.services {
            let exe = self.settings.services.get(name).and_then(|service| service.running_exe.as_ref());
            let Some(exe) = exe else { continue };
            match std::fs::canonicalize(exe) {
                Ok(real) if runs(&real) => {}
                Ok(real) => return Look::Bad(format!("{name}: {} does not run", real.display())),
                Err(error) => return Look::Bad(format!("{name}: {}: {error}", exe.display())),
            }
        }
        Look::Good
    }

    fn commit(&mut self, job: &Job, install: &Install, note: (&str, &str)) -> PatchStep {
        let now = self.now();
        let done = self.store.change(|state| {
            let output = state.job.take().map(|job| job.output).unwrap_or_default();
            state.seal(&job.seal);
            let line = state.line_mut(install.subject);
            line.version.clone_from(&install.to_version);
            line.previous = None;
            line.moving = install.proven_after(true);
            if let How::Tree { from_release, to_release, tree_sha256, .. } = &install.how {
                line.releases.insert(to_release.clone(), tree_sha256.clone());
                let back = from_release.clone().filter(|from| !install.one_way && from != to_release);
                line.previous = back.map(|release| Previous {
                    release,
                    version: install.from_version.clone(),
                    sha256: job.sha256.clone(),
                    services: install.services.clone(),
                });
                let kept = line.previous.as_ref().map(|previous| previous.release.clone());
                line.releases.retain(|name, _| name == to_release || Some(name) == kept.as_ref());
            }
            state.step(&job.sha256, PatchStep::Done, note, &output, now);
        });
        match done {
            Ok(()) => {
                self.watch = None;
                if let Err(error) = self.move_proven() {
                    tracing::error!("the agent's proven link can't be moved, the helper's next start tries again: {error}");
                }
                self.clean_up();
                if let How::Packages { packages, before } = &install.how {
                    self.clean_pool(&[packages, before]);
                }
                PatchStep::Done
            }
            Err(error) => {
                // Still in probation: the next look tries again, the deadline goes back.
                tracing::error!("the patch can't be recorded as done: {error}");
                PatchStep::Probation
            }
        }
    }
}

fn percent(good: u32, enough: u32) -> u8 {
    u8::try_from(u64::from(good) * 100 / u64::from(enough)).map_or(100, |percent| percent.min(100))
}

/// Whether a process runs this very file.
fn runs(real: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == real))
}
