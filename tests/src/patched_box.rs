//! A whole appliance: the agent without rights, the helper as root, a product whose one service answers or not, by what lies in its tree.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use mainstay_shared::enrolment::JoinString;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::patience::{A_WHILE, SOON, eventually};
use crate::process::{Daemon, Output, program, run, tied};

/// The user that the agent lives as.
pub const REPORTER: u32 = 64_001;

/// What the customer chose, as keys of `helper.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Say {
    /// `local` or `automatic`, for patches.
    pub patch: &'static str,
    /// The same for actions.
    pub action: &'static str,
    /// Install windows; none: any time.
    pub windows: &'static [&'static str],
    /// What the agent may take of the line; 0: no limit.
    pub max_kib_per_s: u32,
}

impl Default for Say {
    fn default() -> Self {
        Self { patch: "local", action: "local", windows: &[], max_kib_per_s: 0 }
    }
}

/// The appliance.
#[derive(Debug)]
pub struct PatchedBox {
    /// Its agent.
    pub agent: Agent,
    helper: Option<Daemon>,
    folder: TempDir,
}

impl PatchedBox {
    /// Set up as the vendor ships it (version 2.0.0, well), enrolled, with helper and agent running.
    ///
    /// # Errors
    /// Without root, or when a program does not start.
    pub async fn running(join: &JoinString, root: &[u8], say: Say) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "stories of patches need root: the helper changes the machine");
        let folder = tempfile::Builder::new().prefix("mainstay-box-").tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let shipped = folder.path().join("product/releases/2.0.0-shipped0");
        std::fs::create_dir_all(&shipped)?;
        std::fs::write(shipped.join("state"), "good")?;
        symlink("releases/2.0.0-shipped0", folder.path().join("product/current"))?;
        std::fs::write(folder.path().join("root.json"), root)?;
        let mut agent = Agent::fresh(&services(folder.path(), say.max_kib_per_s))?;
        agent.live_as(REPORTER)?;
        let mut this = Self { agent, helper: None, folder };
        std::fs::write(this.path("helper.toml"), this.helper_settings(say))?;
        this.start_helper().await?;
        this.agent.enrol(join).await?.good().context("enroll")?;
        this.agent.start()?;
        this.agent.answers().await?;
        Ok(this)
    }

    fn helper_settings(&self, say: Say) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "product = \"acme-gateway\"\nhardware = \"gw-2000\"\nserial = \"GW-1\"\nversion = \"2.0.0\"\nroot = {:?}\n\
             state_dir = {:?}\ntree = {:?}\nsocket = {:?}\nreporter = \"{REPORTER}\"\n\
             [consent]\npatch = {:?}\naction = {:?}\n[install_window]\ntimes = {:?}\n\
             [[service]]\nname = \"web\"\nstop = [\"/bin/true\"]\nstart = [\"/bin/true\"]\n",
            path("root.json"),
            path("helper"),
            path("product"),
            path("helper.sock"),
            say.patch,
            say.action,
            say.windows,
        )
    }

    /// Starts the helper and waits for it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start_helper(&mut self) -> Result<()> {
        let mut command = tied(program("mainstay-agent")?);
        command.arg("--helper-config").arg(self.path("helper.toml")).arg("helper");
        self.helper = Some(Daemon::start("mainstay-agent helper", command, &self.path("helper.log"))?);
        let socket = self.path("helper.sock");
        eventually("the helper to listen", SOON, async || Ok(socket.exists().then_some(()))).await
    }

    /// A path in the box's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the version that runs.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn runs(&self, file: &str) -> Result<String> {
        let bytes = std::fs::read(self.path("product/current").join(file))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A command of root's on the box.
    ///
    /// # Errors
    /// When it can't be run; a refusal is an [`Output`].
    pub async fn administrator(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tied(program("mainstay-agent")?);
        command.arg("--config").arg(self.agent.path("agent.toml")).arg("--helper-config").arg(self.path("helper.toml"));
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

    /// The code that the box shows for what waits, once it is there.
    ///
    /// # Errors
    /// When nothing comes.
    pub async fn code(&self, what: &str) -> Result<String> {
        let told = format!("a code on the box\n{}", self.agent.log_text());
        eventually(&told, A_WHILE, async || {
            Ok(self.waiting(what).await?.first().and_then(|file| file["code"].as_str()).map(str::to_owned))
        })
        .await
        .with_context(|| format!("agent:\n{}\nhelper:\n{}", self.agent.log_text(), self.helper_log()))
    }

    /// What the helper logged.
    #[must_use]
    pub fn helper_log(&self) -> String {
        std::fs::read_to_string(self.path("helper.log")).unwrap_or_default()
    }
}

fn services(folder: &Path, max_kib_per_s: u32) -> String {
    let (socket, root) = (folder.join("helper.sock"), folder.join("root.json"));
    let question = format!("test \"$(cat {}/product/current/state)\" = good || exit 2", folder.display());
    format!(
        "[patches]\nhelper_socket = {socket:?}\nroot = {root:?}\nmax_kib_per_s = {max_kib_per_s}\n\
         [[service]]\nname = \"web\"\ninterval = \"1s\"\nretry_after = \"1s\"\n\
         [[service.check]]\nname = \"answers\"\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"-c\", {question:?}]\n"
    )
}
