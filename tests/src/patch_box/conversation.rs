//! Questions to the helper over its socket: under any uid, as the kernel sees it, with a file's descriptor beside; and what came of a file.
//! A refusal is an answer too; only the story judges it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mainstay_patchkit::archive::tree_hash;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use super::{PatchBox, REPORTER};
use crate::patience::{SOON, eventually};

impl PatchBox {
    /// Asks under a uid, with a file's descriptor beside; the last answer.
    ///
    /// # Errors
    /// When the helper goes away.
    pub async fn ask(&self, uid: u32, request: Value, file: Option<&[u8]>) -> Result<Value> {
        let file = file.map(|bytes| self.file_of(bytes)).transpose()?;
        self.ask_with(uid, request, file).await
    }

    /// [`PatchBox::ask`] with a descriptor of the story's own.
    ///
    /// # Errors
    /// When the helper goes away.
    pub async fn ask_with(&self, uid: u32, request: Value, file: Option<File>) -> Result<Value> {
        let socket = self.file("helper.sock");
        tokio::task::spawn_blocking(move || {
            // A thread of its own: the kernel tells the helper the uid of the thread that connects.
            std::thread::spawn(move || ask(uid, &socket, &request, file.as_ref()))
                .join()
                .map_err(|_| anyhow::anyhow!("it panicked"))?
        })
        .await?
    }

    /// Callers under a uid who say nothing.
    ///
    /// # Errors
    /// When the helper can't be reached.
    pub async fn silent_callers(&self, uid: u32, count: usize) -> Result<Vec<UnixStream>> {
        let socket = self.file("helper.sock");
        let calling = move || {
            std::thread::spawn(move || (0..count).map(|_| connected(uid, &socket)).collect())
                .join()
                .map_err(|_| anyhow::anyhow!("it panicked"))?
        };
        tokio::task::spawn_blocking(calling).await?
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
}

/// The hash that an answer names; a refusal is an error.
///
/// # Errors
/// The answer itself.
pub fn sha256_of(answer: &Value) -> Result<String> {
    Ok(answer["sha256"].as_str().with_context(|| format!("no file but {answer}"))?.to_owned())
}

fn connected(uid: u32, socket: &Path) -> Result<UnixStream> {
    if uid != 0 {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid))?;
    }
    UnixStream::connect(socket).context("the helper's socket")
}

fn ask(uid: u32, socket: &Path, request: &Value, file: Option<&File>) -> Result<Value> {
    let stream = connected(uid, socket)?;
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
