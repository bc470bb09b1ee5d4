//! A repository in a folder. Read only; it may be a slow or a far disk, so callers run what blocks aside.

use std::fs::File;
use std::io::{ErrorKind, Read as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use axum::body::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{Listed, MAX_METADATA_BYTES, MAX_NAMES, Shelf};

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What lies on a shelf, in any order.
pub(super) fn list(dir: &Path, shelf: Shelf) -> anyhow::Result<Vec<Listed>> {
    let folder = dir.join(shelf.as_str());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound && dir.is_dir() => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !shelf.fits(&name) {
            continue;
        }
        let about = entry.metadata()?;
        if about.is_file() {
            anyhow::ensure!(found.len() < MAX_NAMES, "{}: more than {MAX_NAMES} files", folder.display());
            found.push(Listed { name, mark: mark(&about)? });
        }
    }
    Ok(found)
}

/// Length and time of change.
fn mark(about: &std::fs::Metadata) -> std::io::Result<String> {
    let changed = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}:{}", about.len(), changed.as_nanos()))
}

/// A file of metadata.
pub(super) fn read_small(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let told = || path.display().to_string();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(told),
    };
    let mut bytes = Vec::new();
    file.take(MAX_METADATA_BYTES + 1).read_to_end(&mut bytes).with_context(told)?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_METADATA_BYTES, "{}: larger than {MAX_METADATA_BYTES} bytes", told());
    Ok(Some(bytes))
}

/// A file, if it has this mark still.
pub(super) fn open(dir: &Path, name: &str, expected: &str) -> anyhow::Result<File> {
    let path = dir.join(Shelf::Files.as_str()).join(name);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let found = mark(&file.metadata()?)?;
    anyhow::ensure!(found == expected, "{}: it was changed just now ({found}; {expected} was seen)", path.display());
    Ok(file)
}

/// Part of a file.
pub(crate) struct Pieces {
    file: tokio::fs::File,
    left: u64,
}

impl Pieces {
    pub(super) async fn new(file: File, first: u64, count: u64) -> std::io::Result<Self> {
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(first)).await?;
        Ok(Self { file, left: count })
    }

    pub(super) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(self.left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = vec![0; most];
        let read = self.file.read(&mut piece).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(read);
        self.left -= read as u64;
        Ok(Some(Bytes::from(piece)))
    }
}
