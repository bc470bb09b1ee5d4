//! `patch apply LINK`: root has the file behind a mail's link fetched by a child that becomes the agent's user, and opens what it fetched.
//!
//! Root itself speaks to no network. The link goes to the child on its standard input, never among arguments (R33); the child's answer is
//! one line. What it fetched is a file like any other: whether it is believed, the helper decides.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, openat, unlinkat};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::words::Lang;
use super::{Exit, Failure, Output};
use crate::uplink::Link;

/// The word by which the program is started as the child.
pub(crate) const FETCH_LINK: &str = "fetch-link";

/// The folder in the agent's state in which downloads lie.
pub(super) const FOLDER: &str = "link";

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fetched {
    /// All of it lies in [`FOLDER`].
    Whole,
    /// Why not.
    Not {
        /// The exit code.
        exit: Exit,
        /// For a person.
        why: String,
    },
}

/// A file that was fetched.
#[derive(Debug)]
pub(super) struct FetchedFile {
    pub(super) file: File,
    dir: OwnedFd,
    name: String,
}

impl FetchedFile {
    /// Not needed any more: the helper has it, or does not want it.
    pub(super) fn remove(self) {
        unlinkat(&self.dir, self.name, AtFlags::empty()).ok();
    }
}

/// Fetches the file behind `link`.
///
/// # Errors
/// A text that is no link ([`Exit::Usage`]), and what the child says.
pub(super) fn fetch(link: &str, config: &Path, state_dir: &Path, output: Output) -> Result<FetchedFile, Failure> {
    let link = Link::parse(link).map_err(|why| Failure::new(Exit::Usage, anyhow!(why)))?;
    let told = by_child(&link, config, output).context("the download could not be run")?;
    match told {
        Fetched::Whole => Ok(open(&link, state_dir).context("what was downloaded can't be opened")?),
        Fetched::Not { exit, why } => Err(Failure::new(exit, anyhow!(why))),
    }
}

/// The folder is the agent's: whatever it puts there, root follows no link, waits for no pipe and removes nothing elsewhere.
fn open(link: &Link, state_dir: &Path) -> anyhow::Result<FetchedFile> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let dir = openat(CWD, state_dir.join(FOLDER), flags | OFlags::DIRECTORY, Mode::empty())?;
    let name = file_name(link);
    let file = openat(&dir, &name, flags, Mode::empty())?;
    Ok(FetchedFile { file: file.into(), dir, name })
}

/// The name of the link's file in [`FOLDER`].
pub(super) fn file_name(link: &Link) -> String {
    format!("{}.mpatch", link.file_stem())
}

/// The child's first step, while it has one thread: it leaves root's terminal and becomes the owner of the agent's state. Who lives as
/// that user, a captured agent, can't look into it nor type at root's terminal through it. It ends with its parent.
///
/// # Errors
/// When the state has no owner to be told, or the kernel refuses a step.
pub(crate) fn leave_root(state_dir: &Path) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        let owner = std::fs::metadata(state_dir).with_context(|| state_dir.display().to_string())?;
        let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        setsid().context("its own session")?;
        set_thread_groups(&[group]).context("root's groups")?;
        set_thread_res_gid(group, group, group).context("its group")?;
        set_thread_res_uid(user, user, user).context("its user")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("its memory")?;
    }
    set_parent_process_death_signal(Some(Signal::TERM)).context("its end")
}

fn by_child(link: &Link, config: &Path, output: Output) -> anyhow::Result<Fetched> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(FETCH_LINK).arg("--config").arg(config).arg("--lang").arg(match output.lang {
        Lang::Zh => "zh",
        Lang::En => "en",
    });
    if output.json {
        command.arg("--json");
    }
    let mut child = command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(link.to_secret_text().as_bytes())?;
    }
    let ended = child.wait_with_output()?;
    serde_json::from_slice(&ended.stdout).with_context(|| format!("it ended ({}) without a word", ended.status))
}
