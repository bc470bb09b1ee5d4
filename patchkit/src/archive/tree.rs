//! The hash of a tree of files: names, rights, contents, in the order of the archive. What was signed, unpacked and runs is compared by it.
//!
//! SHA-256 over `mainstay-tree-1\n` and, per entry, `d` or `f`, mode (u32), length of the path (u32), path and, of files, length (u64) and
//! SHA-256; numbers big-endian. The top folder itself isn't in it; owners and times aren't.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ring::digest;

use super::names;
use crate::crypto::array;

/// Hashes a tree that is being written or read; the caller keeps the order of the archive.
pub struct TreeHash(digest::Context);

impl Default for TreeHash {
    fn default() -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"mainstay-tree-1\n");
        Self(context)
    }
}

impl TreeHash {
    /// The next entry is a folder.
    pub fn add_dir(&mut self, path: &str, mode: u32) {
        self.start(b'd', path, mode);
    }

    /// The next entry is a file of these bytes.
    pub fn add_file(&mut self, path: &str, mode: u32, length: u64, sha256: &[u8; 32]) {
        self.start(b'f', path, mode);
        self.0.update(&length.to_be_bytes());
        self.0.update(sha256);
    }

    /// The hash, hex.
    #[must_use]
    pub fn finish(self) -> String {
        hex::encode(array(&self.0.finish()))
    }

    fn start(&mut self, kind: u8, path: &str, mode: u32) {
        self.0.update(&[kind]);
        self.0.update(&mode.to_be_bytes());
        self.0.update(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.update(path.as_bytes());
    }
}

/// The hash of the tree that stands below `top`.
///
/// # Errors
/// What can't be read, and links, devices and names that no archive could have brought.
pub fn tree_hash(top: &Path) -> io::Result<String> {
    let mut hash = TreeHash::default();
    walk(top, &mut |found| {
        match &found.kind {
            Found::Folder => hash.add_dir(&found.path, found.mode),
            Found::File(file) => {
                let (length, sha256) = hash_file(file)?;
                hash.add_file(&found.path, found.mode, length, &sha256);
            }
        }
        Ok(())
    })?;
    Ok(hash.finish())
}

/// What stands at a place of a tree.
pub(super) enum Found {
    /// A folder.
    Folder,
    /// A file, open.
    File(File),
}

/// A place of a tree.
pub(super) struct Place {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) kind: Found,
}

/// Tells every entry below `top` in the order of archives.
pub(super) fn walk(top: &Path, tell: &mut dyn FnMut(&Place) -> io::Result<()>) -> io::Result<()> {
    below(top, "", tell)
}

fn below(folder: &Path, prefix: &str, tell: &mut dyn FnMut(&Place) -> io::Result<()>) -> io::Result<()> {
    let mut found: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    found.sort_by_key(fs::DirEntry::file_name);
    for entry in found {
        let refuse = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| refuse(format!("{}: expected a name in UTF-8", path.display())))?;
        let relative = format!("{prefix}{name}");
        names::check(&relative).map_err(refuse)?;
        let metadata = fs::symlink_metadata(&path)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            tell(&Place { path: relative.clone(), mode, kind: Found::Folder })?;
            below(&path, &format!("{relative}/"), tell)?;
        } else if metadata.is_file() {
            tell(&Place { path: relative, mode, kind: Found::File(File::open(&path)?) })?;
        } else {
            return Err(refuse(format!("{}: expected regular files and folders only", path.display())));
        }
    }
    Ok(())
}

/// Length and SHA-256 of a file's bytes.
fn hash_file(mut file: &File) -> io::Result<(u64, [u8; 32])> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok((length, array(&context.finish())));
        }
        context.update(&buffer[..got]);
        length += got as u64;
    }
}
