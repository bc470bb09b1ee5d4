//! Files that are wholly old or wholly new: temp file, fsync, rename, fsync of the directory.
//!
//! Used for the identity, the enrolment attempt and the remembered time. It must never leave a half-written file under the
//! final name, nor a secret readable by others. Root writing into another user's directory hands the file to that user,
//! so that `enroll` run by root serves an agent that has no rights.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;

/// Replaces `path` by `bytes`, readable by its owner only (0600).
///
/// # Errors
/// Names the path and the step that failed; the old file is then untouched.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temp = dir.join(name);
    let written =
        write_synced(&temp, bytes).and_then(|()| hand_to_owner_of(dir, &temp)).and_then(|()| std::fs::rename(&temp, path));
    if let Err(error) = written {
        drop(std::fs::remove_file(&temp));
        return Err(error).with_context(|| format!("{}: can't be written", path.display()));
    }
    sync_dir(dir).with_context(|| format!("{}: the directory can't be synced", dir.display()))
}

fn write_synced(temp: &Path, bytes: &[u8]) -> io::Result<()> {
    drop(std::fs::remove_file(temp));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives `path` to the owner of `dir` when the process is root and the two differ.
///
/// # Errors
/// What `stat` or `chown` said.
pub(crate) fn hand_to_owner_of(dir: &Path, path: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(dir)?;
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// [`hand_to_owner_of`] for all that lies in `dir`: root may have repaired what an agent without rights must go on with.
///
/// # Errors
/// What `readdir`, `stat` or `chown` said.
pub(crate) fn hand_contents_to_owner_of(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        hand_to_owner_of(dir, &entry.path())?;
        if entry.file_type()?.is_dir() {
            hand_contents_to_owner_of(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes a rename, creation or removal in `dir` durable.
///
/// # Errors
/// What `open` or `fsync` said.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` (and its parents) for its owner alone, if it is missing.
///
/// # Errors
/// Names the directory.
pub(crate) fn private_dir(dir: &Path) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).with_context(|| format!("{}: the directory can't be made", dir.display()))?;
    if let Some(parent) = dir.parent() {
        hand_to_owner_of(parent, dir).with_context(|| format!("{}: can't be given to its parent's owner", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_others_cannot_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        write_private(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_path_and_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_private(&dir.path().join("missing/x"), b"x").unwrap_err();
        assert!(format!("{error:#}").contains("missing/x"));
    }
}
