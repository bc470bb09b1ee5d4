//! Probation: the new version is in place and must serve before it is believed. Looks come from the reporter (or from root's command);
//! silence to the deadline goes back as well as a bad answer does.
//!
//! A part of `engine`. The commit is here: one write moves version, floors, roots and the file's step together. It must never extend a
//! deadline but after a restart, whose number is limited.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::PatchStep;

use super::engine::{Engine, Failure, Watch};
use super::rules::{self, Look};
use super::state::{How, Install, Job, Previous, Stage, Work};

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
        self.watch = Some(Watch { deadline: self.time.monotonic() + Duration::from_secs(deadline_s.into()), good: 0 });
        Ok(())
    }

    /// One look at the services; where it stands then, with the percentage of good looks.
    pub(super) fn look(&mut self, services: &BTreeMap<String, ServiceState>) -> Option<(PatchStep, u8)> {
        let watch = self.watch?;
        let (job, install) = self.job().map(|(job, install)| (job.clone(), install.clone()))?;
        let looked = match rules::look(&install.baseline, services) {
            Look::Good => self.what_runs(&install),
            bad @ Look::Bad(_) => bad,
        };
        let late = self.time.monotonic() >= watch.deadline;
        match looked {
            Look::Good if watch.good + 1 >= install.health.consecutive_ok.max(1) => Some((self.commit(&job, &install), 100)),
            Look::Good if late => Some((self.give_up("unhealthy", "too few good answers before the deadline"), 100)),
            Look::Bad(why) if late => Some((self.give_up("unhealthy", &why), 100)),
            Look::Good => {
                let good = watch.good + 1;
                self.watch = Some(Watch { good, ..watch });
                let percent = u8::try_from(u64::from(good) * 100 / u64::from(install.health.consecutive_ok.max(1)));
                Some((PatchStep::Probation, percent.unwrap_or(100)))
            }
            Look::Bad(why) => {
                tracing::warn!("probation: {why}");
                self.watch = Some(Watch { good: 0, ..watch });
                Some((PatchStep::Probation, 0))
            }
        }
    }

    /// Goes back when the deadline has passed. How long until then; none outside probation.
    pub(super) fn tick(&mut self) -> Option<Duration> {
        let watch = self.watch?;
        let left = watch.deadline.saturating_sub(self.time.monotonic());
        if left.is_zero() {
            tracing::error!("probation: the deadline passed without enough good answers");
            self.give_up("unhealthy", "too few good answers before the deadline");
            return None;
        }
        Some(left)
    }

    /// What was signed is what lies there and what runs.
    fn what_runs(&self, install: &Install) -> Look {
        let How::Tree { to_release, .. } = &install.how else { return self.packages_look(install) };
        match self.tree().current() {
            Ok(Some(current)) if current == *to_release => {}
            other => return Look::Bad(format!("current points to {other:?}, not to {to_release}")),
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

    fn commit(&mut self, job: &Job, install: &Install) -> PatchStep {
        let now = self.now();
        let done = self.store.change(|state| {
            let output = state.job.take().map(|job| job.output).unwrap_or_default();
            state.seal(&job.seal);
            state.version.clone_from(&install.to_version);
            state.previous = None;
            if let How::Tree { from_release, to_release, tree_sha256, .. } = &install.how {
                state.releases.insert(to_release.clone(), tree_sha256.clone());
                let back = from_release.clone().filter(|_| !install.one_way);
                state.previous = back.map(|release| Previous {
                    release,
                    version: install.from_version.clone(),
                    sha256: job.sha256.clone(),
                    services: install.services.clone(),
                });
                let kept = state.previous.as_ref().map(|previous| previous.release.clone());
                state.releases.retain(|name, _| name == to_release || Some(name) == kept.as_ref());
            }
            state.step(&job.sha256, PatchStep::Done, ("", ""), &output, now);
        });
        match done {
            Ok(()) => {
                self.watch = None;
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

/// Whether a process runs this very file.
fn runs(real: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == real))
}
