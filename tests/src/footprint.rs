//! What lies below a folder, to be compared with what lies there later: names, kinds, rights, contents. A file that was touched in any
//! of these shows; times don't.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mainstay_patchkit::crypto::sha256;

/// Everything below some folders, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeMap<PathBuf, String>);

impl Footprint {
    /// Of everything below `tops`.
    ///
    /// # Errors
    /// When something can't be read.
    pub fn of(tops: &[&Path]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for top in tops {
            walk(top, &mut found)?;
        }
        Ok(Self(found))
    }

    /// What is otherwise in `later`: one line each, empty when nothing is.
    #[must_use]
    pub fn changes(&self, later: &Self) -> String {
        let mut lines = Vec::new();
        for (path, was) in &self.0 {
            match later.0.get(path) {
                None => lines.push(format!("{} is gone", path.display())),
                Some(is) if is != was => lines.push(format!("{}: {was}, now {is}", path.display())),
                Some(_) => {}
            }
        }
        lines.extend(later.0.keys().filter(|path| !self.0.contains_key(*path)).map(|path| format!("{} is new", path.display())));
        lines.join("\n")
    }
}

fn walk(path: &Path, found: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let about = std::fs::symlink_metadata(path)?;
    let rights = about.permissions().mode();
    let told = if about.is_symlink() {
        format!("a link to {}", std::fs::read_link(path)?.display())
    } else if about.is_dir() {
        format!("a folder {rights:o}")
    } else if about.is_file() {
        format!("a file {rights:o} {}", hex::encode(sha256(&std::fs::read(path)?)))
    } else {
        format!("something {rights:o}")
    };
    found.insert(path.to_owned(), told);
    if about.is_dir() {
        for inside in std::fs::read_dir(path)? {
            walk(&inside?.path(), found)?;
        }
    }
    Ok(())
}
