//! The product's tree: `releases/<version>-<hash8>/`, and `current`, a link to one of them, which is swapped as a whole.
//!
//! Under `releases/.staging` a new one is unpacked, made durable, read back and compared before it gets its name. It must never write
//! into a release that has its name, nor remove the one that runs or the one that can be gone back to.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mainstay_patchkit::archive::{self, Entries};
use mainstay_patchkit::manifest::Payload;
use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::AGENT;

use super::disk::{self, Disk, Kind, io_refusal};
use super::pipeline::{Ahead, Writing, read_ahead, write_behind};
use super::readback::hash;

/// The link to what runs.
pub(super) const CURRENT: &str = "current";
/// The agent's second link: to what was proved to run here.
pub(super) const PROVEN: &str = "proven";

/// A tree on a disk.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
}

impl Tree<'_> {
    /// The folder of a release.
    pub(super) fn path_of(&self, release: &str) -> PathBuf {
        self.releases().join(release)
    }

    fn releases(&self) -> PathBuf {
        self.dir.join("releases")
    }

    fn staging(&self) -> PathBuf {
        self.releases().join(".staging")
    }

    /// The release that `current` points to; none if there is no such link or it points elsewhere.
    pub(super) fn current(&self) -> io::Result<Option<String>> {
        self.target(CURRENT)
    }

    /// The same of the link of that name.
    pub(super) fn target(&self, name: &str) -> io::Result<Option<String>> {
        let link = self.dir.join(name);
        match self.disk.look(&link)? {
            None => Ok(None),
            Some(found) if found.kind == Kind::Link => {
                let target = self.disk.read_link(&link)?;
                let name = target.strip_prefix("releases/").filter(|name| !name.contains('/') && !name.starts_with('.'));
                name.map(|name| Some(name.to_owned()))
                    .ok_or_else(|| io::Error::other(format!("{}: points to {target:?}; expected releases/NAME", link.display())))
            }
            Some(_) => Err(io::Error::other(format!("{}: expected a symbolic link to releases/NAME", link.display()))),
        }
    }

    pub(super) fn has(&self, release: &str) -> io::Result<bool> {
        Ok(self.disk.look(&self.releases().join(release))?.is_some_and(|found| found.kind == Kind::Dir))
    }

    /// Unpacks `payload`, makes it durable, reads it back, and gives it its name. Nothing that runs is touched.
    ///
    /// # Errors
    /// What the archive, its hash or the disk said; what was unpacked is left in the staging folder, for [`Tree::clean`].
    pub(super) fn stage(
        &self,
        release: &str,
        tree_sha256: &str,
        payload: &mut (dyn Read + Send),
        facts: &Payload,
        tell: &mut dyn FnMut(u8),
    ) -> Result<(), Refusal> {
        let io = |error: io::Error| io_refusal(&error);
        for dir in [self.dir.to_owned(), self.releases()] {
            if self.disk.look(&dir).map_err(io)?.is_none() {
                self.disk.make_dir(&dir, 0o755).map_err(io)?;
            }
        }
        let staging = self.staging();
        disk::remove_tree(self.disk, &staging).map_err(io)?;
        disk::remove_tree(self.disk, &self.releases().join(release)).map_err(io)?;
        self.disk.make_dir(&staging, 0o755).map_err(io)?;
        unpack(self.disk, &staging, payload, facts, tell)?;
        // One syncfs instead of an fsync per file and folder; both must have ended well before it gets its name.
        let mut found = Ok(String::new());
        self.disk.sync_all_beside(&staging, &mut || found = hash(self.disk, &staging)).map_err(io)?;
        let found = found?;
        if found != tree_sha256 {
            return Err(Refusal::Content(format!("the tree hash is {found}, {tree_sha256} was signed")));
        }
        self.disk.rename(&staging, &self.releases().join(release)).map_err(io)?;
        self.disk.sync_dir(&self.releases()).map_err(io)
    }

    /// The tree hash of a release, as it lies there.
    pub(super) fn hash_of(&self, release: &str) -> Result<String, Refusal> {
        hash(self.disk, &self.releases().join(release))
    }

    /// Lets `current` point to `release` (none: to nothing), durably.
    pub(super) fn swap(&self, release: Option<&str>) -> io::Result<()> {
        self.point(CURRENT, release)
    }

    /// The same with the link of that name.
    pub(super) fn point(&self, name: &str, release: Option<&str>) -> io::Result<()> {
        let (link, new) = (self.dir.join(name), self.dir.join(format!(".{name}.new")));
        disk::remove_tree(self.disk, &new)?;
        match release {
            Some(release) => {
                self.disk.link(&format!("releases/{release}"), &new)?;
                self.disk.rename(&new, &link)?;
            }
            None if self.disk.look(&link)?.is_some() => self.disk.remove(&link)?,
            None => {}
        }
        self.disk.sync_dir(self.dir)
    }

    /// Removes every release but `keep` and the one that `current` points to, and whatever was being staged.
    pub(super) fn clean(&self, keep: &[&str]) -> io::Result<()> {
        let releases = self.releases();
        if self.disk.look(&releases)?.is_none() {
            return Ok(());
        }
        let current = self.current()?;
        for found in self.disk.list(&releases)? {
            if current.as_deref() != Some(&found.name) && !keep.contains(&found.name.as_str()) {
                disk::remove_tree(self.disk, &releases.join(&found.name))?;
            }
        }
        Ok(())
    }
}

/// Whether a release is one of the agent: its one program and nothing beside.
pub(super) fn is_an_agent(tree: Tree<'_>, release: &str) -> Result<(), Refusal> {
    let found = tree.disk.list(&tree.path_of(release)).map_err(|error| io_refusal(&error))?;
    match found.as_slice() {
        [one] if one.name == AGENT && one.kind == Kind::File && one.mode & 0o111 == 0o111 => Ok(()),
        _ => Err(Refusal::Archive(format!("expected one program, {AGENT}, and nothing beside it"))),
    }
}

/// Unpacks `payload`, whose hash must be the signed one, into the folder `into`, which is empty. It is read and hashed, unpacked, and written
/// by a thread each.
///
/// # Errors
/// What the archive, the disk or the hash said: nothing in `into` is to be believed then.
pub(super) fn unpack(
    disk: &dyn Disk,
    into: &Path,
    payload: &mut (dyn Read + Send),
    facts: &Payload,
    tell: &mut dyn FnMut(u8),
) -> Result<(), Refusal> {
    let sha256 = read_ahead(payload, |ahead| write_behind(disk, |writing| take_apart(ahead, into, facts, writing, tell)))?;
    if sha256 == facts.sha256 { Ok(()) } else { Err(Refusal::Content("the payload's SHA-256 differs".into())) }
}

/// The entries of the archive, checked, become orders to write.
fn take_apart(
    payload: &mut Ahead,
    into: &Path,
    facts: &Payload,
    writing: &Writing,
    tell: &mut dyn FnMut(u8),
) -> Result<(), Refusal> {
    let mut entries = Entries::buffered(payload, facts)?;
    let (mut unpacked, mut told) = (0u64, 0);
    while let Some(mut entry) = entries.next_entry()? {
        let path = into.join(&entry.path);
        if entry.kind == archive::Kind::Folder {
            writing.folder(path, entry.mode)?;
            continue;
        }
        writing.file(path, entry.mode)?;
        let mut left = entry.length;
        while left > 0 {
            let mut block = writing.block()?;
            let count = entry.read(&mut block).map_err(unreadable)?;
            writing.bytes(block, count)?;
            unpacked += count as u64;
            left -= count as u64;
            let percent = u8::try_from(unpacked.saturating_mul(90) / facts.unpacked_bytes.max(1)).unwrap_or(90).min(90);
            if percent != told {
                told = percent;
                tell(percent);
            }
        }
    }
    Ok(())
}

/// An archive that can't be unpacked is the archive's fault unless the machine says that it is its own.
fn unreadable(error: io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(_) => io_refusal(&error),
        None => Refusal::Archive(error.to_string()),
    }
}
