//! Signed actions: a program that runs once. The intent is journalled before it runs; if its end was not seen, it may have run, and it is
//! never repeated.
//!
//! A part of `engine`. It must never run twice for one order, nor more often than its signed interval allows.

use mainstay_patchkit::manifest::{Action, Run};
use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::PatchStep;

use super::disk::io_refusal;
use super::engine::Engine;
use super::executor::{End, Ended, Step};
use super::state::{Job, Seal, Work};

/// Its end was not seen.
const NOT_SEEN: &str = "end_not_seen";

impl Engine {
    /// Runs it and tells how it ended.
    ///
    /// # Errors
    /// Too soon after its last run, or the intent can't be written: then it did not run.
    pub(super) fn act(&mut self, sha256: &str, name: &str, action: &Action, seal: Seal) -> Result<PatchStep, Refusal> {
        let now = self.now();
        let interval_ms = i64::from(action.min_interval_s) * 1000;
        if self.state().ran.get(name).is_some_and(|last| (0..interval_ms).contains(&now.since_ms(*last))) {
            return Err(Refusal::Customer(format!("it ran less than {} s ago", action.min_interval_s)));
        }
        let work = Work::Action { run: action.run.clone(), timeout_s: action.timeout_s };
        let job = Job { sha256: sha256.to_owned(), work, seal: seal.clone(), why: Default::default(), output: String::new() };
        let intent = self.store.change(|state| {
            state.job = Some(job);
            state.ran.insert(name.to_owned(), now);
            if let Some(file) = state.file_mut(sha256) {
                file.attempts += 1;
            }
            state.step(sha256, PatchStep::Applying, ("", ""), "", now);
        });
        intent.map_err(|error| io_refusal(&error))?;
        let ended = self.run_action(action);
        let (step, code) = match &ended.end {
            End::Exited(0) => (PatchStep::Done, ""),
            End::Lost(_) => (PatchStep::Unknown, NOT_SEEN),
            End::Exited(_) | End::Signalled(_) | End::TimedOut | End::NotStarted(_) => (PatchStep::Failed, "action_failed"),
        };
        let detail = ended.trouble(name).unwrap_or_default();
        let now = self.now();
        let told = self.store.change(|state| {
            state.job = None;
            state.seal(&seal);
            state.step(sha256, step, (code, &detail), &ended.output, now);
        });
        // The intent stays in the journal then: the next start calls it unknown.
        told.map_err(|error| io_refusal(&error))?;
        Ok(step)
    }

    fn run_action(&mut self, action: &Action) -> Ended {
        match &action.run {
            Run::Program { argv } => {
                let step =
                    Step { argv: argv.clone(), dir: "/".into(), timeout_s: action.timeout_s, leaves_children: false, user: None };
                self.runner.run(&step)
            }
            Run::RestartService { service } => {
                let Some(known) = self.settings.services.get(service).cloned() else {
                    let end = End::NotStarted(format!("service {service:?}: not in helper.toml"));
                    return Ended { end, output: String::new() };
                };
                let step = |argv| Step { argv, dir: "/".into(), timeout_s: action.timeout_s, leaves_children: true, user: None };
                // A service that hangs or has crashed may not let itself be stopped: it is started all the same.
                let stopped = self.runner.run(&step(known.stop));
                let started = self.runner.run(&step(known.start));
                let output = [stopped.output, started.output].join("\n").trim().to_owned();
                Ended { end: started.end, output }
            }
        }
    }

    /// An action was found in the journal: it may have run.
    pub(super) fn lose_action(&mut self, sha256: &str, output: &str) -> std::io::Result<()> {
        let now = self.now();
        self.store.change(|state| {
            state.job = None;
            let detail = "the appliance stopped while it ran; it may have run and is not repeated";
            state.step(sha256, PatchStep::Unknown, (NOT_SEEN, detail), output, now);
        })
    }
}
