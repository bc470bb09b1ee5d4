//! The agent's update of itself: two links instead of one. `current` is what the reporter runs and is swapped as any tree is; `proven` is
//! what helper, executor and commands run and moves only with "done", so that whoever judges the new agent is the old one.
//!
//! A part of `engine`. "Done" and the release that `proven` must point to are one write; the move follows, and is made up for at the next
//! start. It must never let both links point to what was not believed, nor believe that the line is dead on the new agent's word alone.

use std::io;
use std::path::PathBuf;

use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::AGENT;
use semver::Version;

use super::disk::io_refusal;
use super::engine::{Engine, Failure};
use super::executor::{Ended, Step};
use super::settings::AgentPlace;
use super::state::{How, Subject, this_version};
use super::tree::PROVEN;

/// Seconds that a question to another release of the agent gets.
const QUESTION_LIMIT_S: u32 = 60;

impl Engine {
    fn agent_place(&self) -> Result<&AgentPlace, Refusal> {
        let none = || Refusal::NotSetUp("helper.toml has no table [agent], which says where the agent lies".into());
        self.settings.agent.as_ref().ok_or_else(none)
    }

    /// Whether an update of the agent can be taken at all.
    pub(super) fn takes_agents(&self) -> Result<(), Refusal> {
        self.agent_place().map(drop)
    }

    /// The release of the agent that runs, if the agent lies as it must.
    ///
    /// # Errors
    /// [`Refusal::NotSetUp`] with what is wrong and what is expected.
    pub(super) fn agent_release(&self) -> Result<String, Refusal> {
        let place = self.agent_place()?;
        let dir = place.tree.display();
        let wrong = |error: io::Error| Refusal::NotSetUp(error.to_string());
        let (tree, none) = (self.tree_of(Subject::Agent), "nothing".to_owned());
        let current = tree.current().map_err(wrong)?.unwrap_or_else(|| none.clone());
        let proven = tree.target(PROVEN).map_err(wrong)?.unwrap_or(none);
        if current != proven || !tree.has(&proven).map_err(|error| io_refusal(&error))? {
            let told =
                format!("{dir}/current points to {current}, {dir}/proven to {proven}; expected both to one of {dir}/releases");
            return Err(Refusal::NotSetUp(told));
        }
        let own = std::env::current_exe().map_err(wrong)?;
        let program = self.agent_program(&proven);
        let missing = |error: io::Error| Refusal::NotSetUp(format!("{}: {error}", program.display()));
        let proven_program = std::fs::canonicalize(&program).map_err(missing)?;
        if own != proven_program {
            let told =
                format!("this helper is {}; expected {dir}/proven/{AGENT} to be what helper and executor run", own.display());
            return Err(Refusal::NotSetUp(told));
        }
        Ok(proven)
    }

    /// The program of a release.
    pub(super) fn agent_program(&self, release: &str) -> PathBuf {
        self.tree_of(Subject::Agent).path_of(release).join(AGENT)
    }

    /// Asks the program of a release; as root, or as the reporter.
    fn ask_agent(&self, release: &str, words: &[&str], as_reporter: bool) -> Ended {
        let (settings, config) =
            (&self.settings, self.settings.agent.as_ref().map(|agent| agent.config.clone()).unwrap_or_default());
        let words = words.iter().map(|word| (*word).to_owned());
        let files = ["--helper-config".into(), settings.path.clone(), "--config".into(), config];
        let files = files.iter().map(|path| path.display().to_string());
        let argv = std::iter::once(self.agent_program(release).display().to_string()).chain(words).chain(files).collect();
        let user = as_reporter.then_some((settings.reporter, settings.reporter_group));
        self.runner.run(&Step { argv, dir: "/".into(), timeout_s: QUESTION_LIMIT_S, leaves_children: false, user })
    }

    /// The agent that is to come must run here, and read this box's settings and the helper's memory, before anything is stopped for it.
    pub(super) fn check_new_agent(&mut self) -> Result<(), Failure> {
        let Some((_, install)) = self.job().filter(|(_, install)| install.subject == Subject::Agent) else { return Ok(()) };
        let How::Tree { to_release, .. } = &install.how else { return Ok(()) };
        let ended = self.ask_agent(&to_release.clone(), &["helper", "--check"], false);
        let Some(detail) = ended.trouble("the new agent's check of this box") else { return Ok(()) };
        self.keep_output(&ended.output)?;
        Err(Failure { code: "new_agent_unfit", detail })
    }

    /// The agent of before must still be able to read what the newer one has written.
    pub(super) fn check_old_agent(&self, release: &str) -> Result<(), Refusal> {
        match self.ask_agent(release, &["helper", "--check"], false).trouble("the check by the version before") {
            None => Ok(()),
            Some(detail) => Err(Refusal::Content(detail)),
        }
    }

    /// Whether the old agent, tried at this moment, reaches the collector. One that can't be asked does not.
    pub(super) fn old_agent_reaches(&self, release: &str) -> bool {
        let ended = self.ask_agent(release, &["test", "reach"], true);
        match ended.trouble("the old agent's test") {
            None => true,
            Some(detail) => {
                tracing::warn!(output = ended.output, "probation: the old agent does not reach the collector either: {detail}");
                false
            }
        }
    }

    /// Lets `proven` point to what is believed. What is cut before it is done is done by the next start.
    ///
    /// # Errors
    /// What the disk said.
    pub(super) fn move_proven(&mut self) -> io::Result<()> {
        let Some(release) = self.state().agent.moving.clone() else { return Ok(()) };
        let tree = self.tree_of(Subject::Agent);
        if tree.target(PROVEN)?.as_ref() != Some(&release) {
            tree.point(PROVEN, Some(&release))?;
            tracing::info!(release, "this helper ends soon: the next one is the agent's release that is proven now");
            self.renewed = true;
        }
        self.store.change(|state| state.agent.moving = None)
    }

    /// What lies there by another hand than ours (the packages', root's) is what is installed.
    pub(super) fn know_agent(&mut self) -> io::Result<()> {
        if self.settings.agent.is_none() || self.state().job.is_some() {
            return Ok(());
        }
        let Ok(Some(release)) = self.tree_of(Subject::Agent).target(PROVEN) else { return Ok(()) };
        if self.state().agent.releases.contains_key(&release) {
            return Ok(());
        }
        let named = release.rsplit_once('-').and_then(|(version, _)| Version::parse(version).ok());
        let version = named.unwrap_or_else(this_version);
        if self.state().agent.version == version {
            return Ok(());
        }
        self.store.change(|state| state.agent.version = version)
    }
}
