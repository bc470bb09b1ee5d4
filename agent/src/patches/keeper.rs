//! The file in which the reporter's book of offers is kept: `patches/book.json`, wholly old or wholly new.
//!
//! Changes go one after the other, are on the disk before they count, and are written aside, since the disk may hang. A damaged book is
//! begun anew: the collector offers again what is open, the helper knows what it has.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::state::{Book, Stage};
use crate::atomic_file;
use crate::probes::aside::Aside;

const LIMIT: Duration = Duration::from_secs(60);
/// A book has a few kilobytes.
const MAX_BOOK_BYTES: u64 = 1 << 20;

/// Keeps the book. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    dir: PathBuf,
    aside: Aside,
    book: Arc<Mutex<Book>>,
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Keeper {
    /// Opens the folder `patches` in `state_dir`; writes on a thread of `aside`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub(crate) fn open(state_dir: &Path, aside: Aside) -> anyhow::Result<Self> {
        let dir = state_dir.join("patches");
        atomic_file::private_dir(&dir)?;
        let book = read(&path_in(&dir)).unwrap_or_else(|error| {
            tracing::warn!("the book of offers is begun anew: {error:#}");
            Book::default()
        });
        Ok(Self { dir, aside, book: Arc::new(Mutex::new(book)), writing: Arc::default() })
    }

    /// The folder, in which the files lie too.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where an offer's file lies, whole or in part.
    pub(crate) fn file_of(&self, offer_id: &str) -> PathBuf {
        self.dir.join(format!("{offer_id}.mpatch"))
    }

    /// The book as it is on the disk.
    pub(crate) fn book(&self) -> Book {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the book; on return it is on the disk.
    ///
    /// # Errors
    /// When the disk refuses; the book is then as it was.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Book)) -> anyhow::Result<()> {
        let one_at_a_time = self.writing.lock().await;
        let before = self.book();
        let mut book = before.clone();
        change(&mut book);
        if book == before {
            return Ok(());
        }
        let (path, bytes) = (path_in(&self.dir), serde_json::to_vec(&book)?);
        let written = self.aside.run("patches/book.json", LIMIT, move || atomic_file::write_private(&path, &bytes)).await;
        written.context("the book of offers")??;
        *self.book.lock().unwrap_or_else(PoisonError::into_inner) = book;
        drop(one_at_a_time);
        Ok(())
    }

    /// What lies here of offers other than this one.
    pub(crate) fn others_bytes(&self, offer_id: &str) -> u64 {
        let own = self.file_of(offer_id);
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let others = files.filter(|file| file.path() != own && file.path().extension().is_some_and(|ending| ending == "mpatch"));
        others.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
    }

    /// Removes files that belong to no offer held, or that the helper has copied.
    pub(crate) fn tidy(&self) {
        let book = self.book();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".mpatch") else { continue };
            if book.held(id).is_none_or(|held| held.stage == Stage::Handed)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(%error, name, "a file that is not needed any more stays");
            }
        }
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("book.json")
}

fn read(path: &Path) -> anyhow::Result<Book> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    let mut text = String::new();
    file.take(MAX_BOOK_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}
