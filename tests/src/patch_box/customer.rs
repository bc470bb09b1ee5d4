//! The box in its customer's hands: enrolled, its agent without rights under the reporter's uid, the administrator's commands as root.
//! Only what a person on the box can type is asked here.

use anyhow::{Context as _, Result};
use mainstay_shared::enrolment::JoinString;
use serde_json::Value;

use super::{PatchBox, REPORTER};
use crate::agent::Agent;
use crate::patience::{A_WHILE, eventually};
use crate::process::{Output, program, run, tied};

impl PatchBox {
    /// Set up as the vendor ships it with this first root, its helper running, enrolled, its agent running. `helper` is TOML behind the
    /// helper's settings, `patches` behind the agent's `[patches]`.
    ///
    /// # Errors
    /// Without root, or when a program does not start.
    pub async fn enrolled(join: &JoinString, root: &[u8], helper: &str, patches: &str) -> Result<Self> {
        let mut this = Self::set_up(None, helper)?;
        this.ship_root(root)?;
        this.start().await?;
        let mut agent = Agent::fresh(&this.agent_settings(patches))?;
        agent.live_as(REPORTER)?;
        agent.enrol(join).await?.good().context("enroll")?;
        agent.start()?;
        agent.answers().await?;
        this.agent = Some(agent);
        Ok(this)
    }

    fn agent_settings(&self, patches: &str) -> String {
        let (socket, root, check) = (self.file("helper.sock"), self.file("root.json"), self.file("web-check"));
        format!(
            "[patches]\nhelper_socket = {socket:?}\nroot = {root:?}\n{patches}\n\
             [[service]]\nname = \"web\"\ninterval = \"1s\"\nretry_after = \"1s\"\n\
             [[service.check]]\nname = \"answers\"\nkind = \"plugin\"\ncommand = [{check:?}]\n"
        )
    }

    /// Its agent.
    ///
    /// # Errors
    /// Before it is enrolled.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("an enrolled box")
    }

    /// What its agent and its helper logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let agent = self.agent.as_ref().map(Agent::log_text).unwrap_or_default();
        format!("agent:\n{agent}\nhelper:\n{}", self.log())
    }

    /// The `content` of the version that is current.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn content(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.tree().join("current/content"))?).into_owned())
    }

    /// A command of root's on the box.
    ///
    /// # Errors
    /// When it can't be run; a refusal is an [`Output`].
    pub async fn administrator(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tied(program("mainstay-agent")?);
        if let Some(agent) = &self.agent {
            command.arg("--config").arg(agent.path("agent.toml"));
        }
        command.arg("--helper-config").arg(self.file("helper.toml"));
        command.args(arguments).env("LANG", "en_US.UTF-8");
        run(command, "", A_WHILE).await
    }

    /// What waits or runs, as `patch list --json` tells.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn waiting(&self, what: &str) -> Result<Vec<Value>> {
        let listed = self.administrator(&[what, "list", "--json"]).await?.good()?;
        serde_json::from_str(&listed.stdout).context(listed.stdout)
    }

    /// What waits on the box, once it is there.
    ///
    /// # Errors
    /// When nothing comes.
    pub async fn waits(&self, what: &str) -> Result<Value> {
        eventually(&format!("a {what} to wait on the box"), A_WHILE, async || Ok(self.waiting(what).await?.pop()))
            .await
            .with_context(|| self.logs())
    }

    /// The code that the box shows for what waits, once it is there.
    ///
    /// # Errors
    /// When nothing comes, or without a code.
    pub async fn code(&self, what: &str) -> Result<String> {
        let waiting = self.waits(what).await?;
        Ok(waiting["code"].as_str().with_context(|| format!("no code: {waiting}"))?.to_owned())
    }
}
