//! An appliance that is set up for patches: the real helper as root, a product's tree with one service, and, once it is enrolled, the
//! agent without rights under the reporter's uid. Needs root: without it a test fails, it does not skip.
//!
//! `conversation` asks the helper on its socket, `service` is the product, `customer` is the agent and the administrator's commands.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use mainstay_patchkit::archive::tree_hash;
use mainstay_patchkit::sample::{self, Vendor};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::packing::lay_tree;
use crate::patience::{SOON, eventually};
use crate::process::{Daemon, program, tied};

mod conversation;
mod customer;
mod service;

pub use conversation::sha256_of;

/// The uid of the reporter in the box's settings, and of its agent.
pub const REPORTER: u32 = 54_321;

/// The box. What it keeps lies on `disk`, which may be one whose power is cut.
#[derive(Debug)]
pub struct PatchBox {
    helper: Option<Daemon>,
    agent: Option<Agent>,
    disk: PathBuf,
    old_tree: String,
    folder: TempDir,
}

impl PatchBox {
    /// Version 2.0.0 installed and its service running; the helper not yet. `more` is TOML behind the settings.
    ///
    /// # Errors
    /// Without root.
    pub fn set_up(disk: Option<&Path>, more: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the helper is proved as root: run this test as root");
        let folder = tempfile::Builder::new().prefix("mainstay-patches-").tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let disk = disk.unwrap_or(folder.path()).to_owned();
        let release = disk.join("tree/releases/2.0.0-shipped");
        lay_tree(&release, "/bin/sleep", b"old")?;
        std::os::unix::fs::symlink("releases/2.0.0-shipped", disk.join("tree/current"))?;
        let old_tree = tree_hash(&release)?;
        let made = Self { helper: None, agent: None, disk, old_tree, folder };
        made.ship_root(&Vendor::default().root_json()?)?;
        made.write_scripts()?;
        std::fs::write(made.file("helper.toml"), made.settings(more))?;
        File::open(&made.disk)?.sync_all()?;
        rustix::fs::syncfs(File::open(&made.disk)?)?;
        made.start_service()?;
        Ok(made)
    }

    /// Ships it with another first root than the sample vendor's.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn ship_root(&self, root: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.file("root.json"), root)?)
    }

    /// A path in the box's own folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, more: &str) -> String {
        let (top, disk) = (self.folder.path().display(), self.disk.display());
        format!(
            r#"product = "{product}"
hardware = "gw-2000"
serial = "S1"
version = "2.0.0"
root = "{top}/root.json"
state_dir = "{disk}/helper-state"
tree = "{disk}/tree"
socket = "{top}/helper.sock"
reporter = "{REPORTER}"
[[service]]
name = "web"
stop = ["{top}/web-stop"]
start = ["{top}/web-start"]
running_exe = "{disk}/tree/current/bin/web"
{more}"#,
            product = sample::PRODUCT,
        )
    }

    fn helper_command(&self) -> Result<Vec<PathBuf>> {
        Ok(vec![program("mainstay-agent")?, "helper".into(), "--helper-config".into(), self.file("helper.toml")])
    }

    /// Starts the helper and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead: with its log.
    pub async fn start(&mut self) -> Result<()> {
        let words = self.helper_command()?;
        self.start_by(&words).await
    }

    /// Starts the helper under strace with these arguments; it may be killed before it answers.
    ///
    /// # Errors
    /// When strace can't be started.
    pub async fn start_under(&mut self, strace: &[String]) -> Result<bool> {
        let mut words: Vec<PathBuf> =
            ["strace", "-D"].map(PathBuf::from).into_iter().chain(strace.iter().map(PathBuf::from)).collect();
        words.extend(self.helper_command()?);
        Ok(self.start_by(&words).await.is_ok())
    }

    async fn start_by(&mut self, words: &[PathBuf]) -> Result<()> {
        self.kill();
        drop(std::fs::remove_file(self.file("helper.sock")));
        let mut command = tied(&words[0]);
        command.args(&words[1..]);
        let mut helper = Daemon::start("mainstay-agent helper", command, &self.file("helper.log"))?;
        let socket = self.file("helper.sock");
        let answers = eventually("the helper to answer", SOON, async || {
            if helper.ended()?.is_some() {
                return Ok(Some(false));
            }
            Ok(UnixStream::connect(&socket).is_ok().then_some(true))
        })
        .await?;
        ensure!(answers, "the helper ended:\n{}", helper.log_text());
        self.helper = Some(helper);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.helper = None;
    }

    /// Whether the helper still runs.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn runs(&mut self) -> Result<bool> {
        match &mut self.helper {
            Some(helper) => Ok(helper.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// The running helper's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.helper.as_ref().map(Daemon::pid)
    }

    /// What the helper logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("helper.log")).unwrap_or_default()
    }

    /// The folder of the tree.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.disk.join("tree")
    }

    /// Where the helper keeps its memory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.disk.join("helper-state")
    }
}

impl Drop for PatchBox {
    fn drop(&mut self) {
        self.kill();
        drop(self.stop_service());
    }
}
