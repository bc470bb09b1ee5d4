//! An appliance that is set up for patches: the real helper as root, a product's tree with one service, signed files of a sample vendor.
//!
//! The service is a program of the tree, so that what runs is told by the kernel. Whoever asks the helper may do so under any uid, as the
//! kernel sees it. Needs root: without it a test fails, it does not skip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mainstay_patchkit::archive::{Packed, pack, tree_hash};
use mainstay_patchkit::manifest::Manifest;
use mainstay_patchkit::sample::{self, Vendor};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use semver::Version;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::patience::{SOON, eventually};
use crate::process::{Daemon, program, tied};

/// The uid of the reporter in the box's settings.
pub const REPORTER: u32 = 54_321;

/// The box. What it keeps lies on `disk`, which may be one whose power is cut.
#[derive(Debug)]
pub struct PatchBox {
    helper: Option<Daemon>,
    disk: PathBuf,
    old_tree: String,
    folder: TempDir,
}

/// A payload and what a manifest says of it.
#[derive(Debug, Clone)]
pub struct Packing {
    /// As signed.
    pub packed: Packed,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A tree whose service is a copy of `program` (`/bin/sleep` serves, `/bin/false` crashes), with a file of these contents.
///
/// # Errors
/// When it can't be packed.
pub fn packing(program: &str, content: &[u8]) -> Result<Packing> {
    let folder = tempfile::tempdir()?;
    lay_tree(folder.path(), program, content)?;
    let mut bytes = Vec::new();
    Ok(Packing { packed: pack(folder.path(), 1, &mut bytes)?, bytes })
}

/// A payload of Debian packages, each of a name and a version, made by `dpkg-deb`.
///
/// # Errors
/// Without `dpkg-deb`.
pub fn debs(packages: &[(&str, &str)]) -> Result<Packing> {
    let (built, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (name, version) in packages {
        let top = built.path().join(name);
        std::fs::create_dir_all(top.join("DEBIAN"))?;
        std::fs::create_dir_all(top.join("opt"))?;
        std::fs::write(top.join("opt").join(name), version)?;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Acme <acme@example.com>\nDescription: a part of the product\n"
        );
        std::fs::write(top.join("DEBIAN/control"), control)?;
        let deb = folder.path().join(format!("{name}_{version}_all.deb"));
        let made =
            Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&top).arg(&deb).output().context("dpkg-deb")?;
        ensure!(made.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&made.stderr));
    }
    let mut bytes = Vec::new();
    Ok(Packing { packed: pack(folder.path(), 1, &mut bytes)?, bytes })
}

fn lay_tree(top: &Path, program: &str, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(top.join("bin"))?;
    std::fs::copy(program, top.join("bin/web")).with_context(|| program.to_owned())?;
    std::fs::set_permissions(top.join("bin/web"), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(top.join("content"), content)?;
    std::fs::set_permissions(top.join("content"), std::fs::Permissions::from_mode(0o644))?;
    for dir in [top, &top.join("bin")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
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
        let made = Self { helper: None, disk, old_tree, folder };
        std::fs::write(made.file("root.json"), Vendor::default().root_json()?)?;
        made.write_scripts()?;
        std::fs::write(made.file("helper.toml"), made.settings(more))?;
        File::open(&made.disk)?.sync_all()?;
        rustix::fs::syncfs(File::open(&made.disk)?)?;
        made.start_service()?;
        Ok(made)
    }

    fn file(&self, name: &str) -> PathBuf {
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

    fn write_scripts(&self) -> Result<()> {
        let (top, disk) = (self.folder.path().display(), self.disk.display());
        let start = format!(
            "#!/bin/sh\nif [ -f {top}/web.pid ] && readlink \"/proc/$(cat {top}/web.pid)/exe\" >/dev/null; then exit 0; fi\n\
             cd /\nsetsid {disk}/tree/current/bin/web 100000 >/dev/null 2>&1 </dev/null &\necho $! >{top}/web.pid\n"
        );
        let stop = format!(
            "#!/bin/sh\nif [ -f {top}/web.pid ]; then kill -9 \"$(cat {top}/web.pid)\" 2>/dev/null; fi\nrm -f {top}/web.pid\n"
        );
        for (name, text) in [("web-start", start), ("web-stop", stop)] {
            std::fs::write(self.file(name), text)?;
            std::fs::set_permissions(self.file(name), std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Starts the service as the machine's own start would.
    ///
    /// # Errors
    /// When its script can't be run.
    pub fn start_service(&self) -> Result<()> {
        Command::new(self.file("web-start")).status().context("web-start")?;
        Ok(())
    }

    /// Stops it, as a power cut would.
    ///
    /// # Errors
    /// When its script can't be run.
    pub fn stop_service(&self) -> Result<()> {
        Command::new(self.file("web-stop")).status().context("web-stop")?;
        // One whose start was cut before its number was written down.
        for process in std::fs::read_dir("/proc")?.flatten() {
            let exe = std::fs::read_link(process.path().join("exe")).unwrap_or_default();
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (exe.starts_with(self.tree()), pid) {
                drop(crate::process::send(pid, rustix::process::Signal::KILL));
            }
        }
        Ok(())
    }

    /// What the agent's check would say of the service.
    #[must_use]
    pub fn service_state(&self) -> &'static str {
        if self.running().is_some() { "up" } else { "down" }
    }

    /// The program that the service runs, if it does.
    #[must_use]
    pub fn running(&self) -> Option<PathBuf> {
        let pid = std::fs::read_to_string(self.file("web.pid")).ok()?;
        std::fs::read_link(format!("/proc/{}/exe", pid.trim())).ok()
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

    /// Asks under a uid, with a file's descriptor beside; the last answer.
    ///
    /// # Errors
    /// When the helper goes away.
    pub async fn ask(&self, uid: u32, request: Value, file: Option<&[u8]>) -> Result<Value> {
        let file = file.map(|bytes| self.file_of(bytes)).transpose()?;
        let socket = self.file("helper.sock");
        tokio::task::spawn_blocking(move || {
            // A thread of its own: the kernel tells the helper the uid of the thread that connects.
            std::thread::spawn(move || ask(uid, &socket, &request, file.as_ref()))
                .join()
                .map_err(|_| anyhow::anyhow!("it panicked"))?
        })
        .await?
    }

    fn file_of(&self, bytes: &[u8]) -> Result<File> {
        let path = tempfile::NamedTempFile::new_in(self.folder.path())?;
        std::fs::write(path.path(), bytes)?;
        Ok(File::open(path.path())?)
    }

    /// The services as the reporter tells them.
    #[must_use]
    pub fn services(&self) -> Value {
        json!({ "web": self.service_state() })
    }

    /// Takes, agrees as root, begins; looks until it is over or `looks` are spent. The file as it stands.
    ///
    /// # Errors
    /// A refusal, or the helper goes away.
    pub async fn apply(&self, file: &[u8]) -> Result<Value> {
        let taken = self.ask(0, json!({"verb": "take", "offer_id": null}), Some(file)).await?;
        let sha256 = sha256_of(&taken)?;
        if taken["step"] == "awaiting_consent" {
            self.ask(0, json!({"verb": "consent", "sha256": sha256, "code": null}), None).await?;
        }
        let order = json!({"verb": "proceed", "sha256": sha256, "now": true, "services": self.services()});
        let begun = self.ask(0, order, None).await?;
        sha256_of(&begun)?;
        self.follow(&sha256).await
    }

    /// Looks at the service as the reporter does, until the file is over.
    ///
    /// # Errors
    /// When it doesn't end.
    pub async fn follow(&self, sha256: &str) -> Result<Value> {
        eventually("the patch to end", SOON, async || {
            self.ask(REPORTER, json!({"verb": "health", "services": self.services()}), None).await?;
            let file = self.known(sha256).await?;
            let over = !matches!(file["step"].as_str(), Some("probation" | "applying"));
            Ok(over.then_some(file))
        })
        .await
    }

    /// A file as the helper lists it.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn known(&self, sha256: &str) -> Result<Value> {
        let list = self.ask(0, json!({"verb": "list"}), None).await?;
        let files = list.as_array().cloned().unwrap_or_default();
        files.into_iter().find(|file| file["sha256"] == sha256).with_context(|| format!("{sha256} is not listed: {list}"))
    }

    /// The version that the helper says to be installed.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn version(&self) -> Result<String> {
        let told = self.ask(0, json!({"verb": "installed"}), None).await?;
        Ok(told["version"].as_str().with_context(|| told.to_string())?.to_owned())
    }

    /// Wholly the old tree or wholly the one of `new` (version and tree hash), running, and told so.
    ///
    /// # Errors
    /// Says what is not so.
    pub async fn judge(&self, new: (&str, &str)) -> Result<&'static str> {
        let current = std::fs::canonicalize(self.disk.join("tree/current"))?;
        let found = tree_hash(&current)?;
        let version = self.version().await?;
        let runs = self.running();
        let which = match (version.as_str(), &found) {
            ("2.0.0", found) if *found == self.old_tree => "old",
            (version, found) if version == new.0 && *found == new.1 => "new",
            _ => bail!("{version} is told, {} lies there with the tree hash {found}", current.display()),
        };
        ensure!(runs.as_ref() == Some(&current.join("bin/web")), "{runs:?} runs, {} is current", current.display());
        Ok(which)
    }

    /// The bytes of the helper's memory.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn memory(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for slot in ["state.0", "state.1"] {
            let path = self.disk.join("helper-state").join(slot);
            if path.exists() {
                found.insert(path.clone(), std::fs::read(path)?);
            }
        }
        Ok(found)
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

/// The hash that an answer names; a refusal is an error.
///
/// # Errors
/// The answer itself.
pub fn sha256_of(answer: &Value) -> Result<String> {
    Ok(answer["sha256"].as_str().with_context(|| format!("no file but {answer}"))?.to_owned())
}

/// A signed patch to `version`; `bend` may change its manifest before it is signed.
///
/// # Errors
/// When it can't be signed.
pub fn signed_patch(version: &str, packing: &Packing, bend: impl FnOnce(&mut Manifest)) -> Result<Vec<u8>> {
    let mut manifest = sample::tree_patch(Version::parse(version)?, &packing.packed);
    bend(&mut manifest);
    Ok(Vendor::default().file(&manifest, &packing.bytes)?)
}

fn ask(uid: u32, socket: &Path, request: &Value, file: Option<&File>) -> Result<Value> {
    if uid != 0 {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid))?;
    }
    let stream = UnixStream::connect(socket).context("the helper's socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let line = format!("{request}\n");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = file.map(|file| [file.as_fd()]);
    if let Some(files) = &files {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    let sent = sendmsg(&stream, &[IoSlice::new(line.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
    ensure!(sent == line.len(), "a short line");
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the helper went away");
        let answer: Value = serde_json::from_str(&line)?;
        if answer["answer"] != "progress" {
            return Ok(flat(answer));
        }
    }
}

/// The content of an answer, with its kind under `answer` where it is an object.
fn flat(mut answer: Value) -> Value {
    let mut with = answer["with"].take();
    match &mut with {
        Value::Object(object) => {
            object.insert("answer".into(), answer["answer"].take());
            with
        }
        Value::Null => answer,
        _ => with,
    }
}
