//! Where the repository lies: a folder, or a bucket of an S3-compatible store. Both are read only, from here, and read in the same way.
//!
//! `metadata/N.root.json, N.targets.json, N.<role>.json` and `files/<name>.mpatch`, as `mainstay-release publish` writes them. Nothing
//! that comes from there is believed before `patchkit` has verified it; names are checked before they lead anywhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;

use self::bucket::Bucket;
use super::ReleaseFile;
use crate::config::{ReleasesConfig, ReleasesFrom};

mod bucket;
mod folder;

/// Metadata larger than this is not read.
pub(crate) const MAX_METADATA_BYTES: u64 = 4 << 20;
/// More than so many names on a shelf are an error, not a part of them.
pub(crate) const MAX_NAMES: usize = 10_000;

/// The two folders that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    Metadata,
    Files,
}

impl Shelf {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Files => "files",
        }
    }

    /// Whether a file of that name can lie there: no separators, no leading dot, at most 160 characters.
    pub(crate) fn fits(self, name: &str) -> bool {
        let suffix = match self {
            Self::Metadata => ".json",
            Self::Files => ".mpatch",
        };
        is_plain_name(name) && name.ends_with(suffix)
    }
}

/// Whether `name` can be a file's name in the repository.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=160).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

/// A name on a shelf, and the mark of what lies there: with other content it has another mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) mark: String,
}

/// Where it lies.
#[derive(Debug)]
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

impl Place {
    /// The place that the settings name; nothing is asked of it yet.
    ///
    /// # Errors
    /// If the secret key can't be read.
    pub(crate) fn open(settings: &ReleasesConfig, data_dir: &Path) -> anyhow::Result<Self> {
        Ok(match &settings.from {
            ReleasesFrom::Dir(dir) => Self::Folder(dir.clone()),
            ReleasesFrom::Bucket(settings) => Self::Bucket(Box::new(Bucket::open(settings, data_dir)?)),
        })
    }

    /// How often it is looked at. A look at a bucket is two requests that its owner pays for.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Folder(_) => 5,
            Self::Bucket(_) => 10,
        })
    }

    /// How long a look may last. A folder that hangs can't be left: each further look would hang as well, on a thread of its own.
    pub(crate) fn look_lasts(&self) -> Option<Duration> {
        match self {
            Self::Folder(_) => None,
            Self::Bucket(_) => Some(Duration::from_secs(300)),
        }
    }

    /// What lies on a shelf, by name.
    ///
    /// # Errors
    /// If it can't be read; a shelf that is not there yet is empty: whether something was there, the caller knows.
    pub(crate) async fn list(&self, shelf: Shelf) -> anyhow::Result<Vec<Listed>> {
        let mut found = match self {
            Self::Folder(dir) => {
                let dir = dir.clone();
                tokio::task::spawn_blocking(move || folder::list(&dir, shelf)).await??
            }
            Self::Bucket(bucket) => bucket.list(shelf).await?,
        };
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// One file of the metadata; `None`: there is none of that name.
    ///
    /// # Errors
    /// If it can't be read, or is too large.
    pub(crate) async fn metadata(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        if !Shelf::Metadata.fits(name) {
            return Ok(None);
        }
        match self {
            Self::Folder(dir) => {
                let path = dir.join(Shelf::Metadata.as_str()).join(name);
                tokio::task::spawn_blocking(move || folder::read_small(&path)).await?
            }
            Self::Bucket(bucket) => bucket.metadata(name).await,
        }
    }

    /// A listed file as a whole, to be verified: the file itself, or a copy without a name that goes when it is closed.
    ///
    /// # Errors
    /// If it can't be read, or is another one by now.
    pub(crate) async fn whole(&self, found: &Listed) -> anyhow::Result<std::fs::File> {
        anyhow::ensure!(Shelf::Files.fits(&found.name), "{:?}: no file's name", found.name);
        match self {
            Self::Folder(dir) => {
                let (dir, found) = (dir.clone(), found.clone());
                tokio::task::spawn_blocking(move || folder::open(&dir, &found.name, &found.mark)).await?
            }
            Self::Bucket(bucket) => bucket.copy(found).await,
        }
    }

    /// `count` bytes of a verified file from `first` on.
    ///
    /// # Errors
    /// If it can't be read, or is another one than was verified.
    pub(crate) async fn part(&self, file: &ReleaseFile, first: u64, count: u64) -> anyhow::Result<Pieces> {
        anyhow::ensure!(Shelf::Files.fits(&file.file), "{:?}: no file's name", file.file);
        Ok(match self {
            Self::Folder(dir) => {
                let (dir, name, mark) = (dir.clone(), file.file.clone(), file.mark.clone());
                let open = tokio::task::spawn_blocking(move || folder::open(&dir, &name, &mark)).await??;
                Pieces::Folder(folder::Pieces::new(open, first, count).await?)
            }
            Self::Bucket(bucket) => Pieces::Bucket(bucket.part(file, first, count).await?),
        })
    }
}

/// The bytes of a part, one piece after the other: never the whole in memory.
pub(crate) enum Pieces {
    Folder(folder::Pieces),
    Bucket(bucket::Pieces),
}

impl Pieces {
    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    /// If it can't be read, or ends too early.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        match self {
            Self::Folder(pieces) => pieces.next().await,
            Self::Bucket(pieces) => pieces.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_lead_to_a_file() {
        for bad in ["../x.mpatch", "a/b.mpatch", ".x.mpatch", "", "x.tar", "x\0.mpatch", "a b.mpatch"] {
            assert!(!Shelf::Files.fits(bad), "{bad:?}");
        }
        assert!(Shelf::Files.fits("acme-2.1.0.mpatch") && !Shelf::Metadata.fits("acme-2.1.0.mpatch"));
        assert!(Shelf::Metadata.fits("2.acme-offline.json"));
    }
}
