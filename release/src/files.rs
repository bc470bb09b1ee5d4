//! Reading and writing files whole: a file is new and complete, or as it was before.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::exit::{Exit, Failure};

/// Reads a file of a few megabytes at most.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::because(Exit::Config, format!("{}: cannot be read: {error}", path.display())))
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> anyhow::Result<T> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| Failure::because(Exit::Data, format!("{}: expected {what}: {error}", path.display())))
}

/// Writes a new file; one that is there already is never replaced.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    if path.exists() {
        return Err(Failure::because(Exit::Exists, format!("{}: exists already; nothing was changed", path.display())));
    }
    replace(path, mode, |file| Ok(file.write_all(bytes)?))
}

/// Writes a file beside, syncs it and puts it in its place.
pub(crate) fn replace(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot =
        |error: std::io::Error| Failure::because(Exit::Config, format!("{}: cannot be written: {error}", path.display()));
    fs::create_dir_all(folder).map_err(cannot)?;
    let beside = beside(path);
    let mut file =
        OpenOptions::new().write(true).read(true).create(true).truncate(true).mode(mode).open(&beside).map_err(cannot)?;
    let outcome = write(&mut file).and_then(|()| {
        file.sync_all().map_err(cannot)?;
        fs::rename(&beside, path).map_err(cannot)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)
    });
    if outcome.is_err() && beside.exists() {
        fs::remove_file(&beside)?;
    }
    outcome
}

/// The name of an unfinished file.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unfinished"))
}

/// Copies with progress told every tenth, on standard error.
pub(crate) fn copy(from: &Path, to: &mut impl Write, what: &str) -> anyhow::Result<()> {
    let cannot = |error: std::io::Error| Failure::because(Exit::Config, format!("{}: cannot be read: {error}", from.display()));
    let file = File::open(from).map_err(cannot)?;
    let whole = file.metadata().map_err(cannot)?.len().max(1);
    let mut file = BufReader::new(file);
    let mut buffer = vec![0; 256 << 10];
    let (mut done, mut told) = (0, 0);
    loop {
        let got = file.read(&mut buffer).map_err(cannot)?;
        if got == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..got])?;
        done += got as u64;
        let tenth = done * 10 / whole;
        if tenth > told && whole > 8 << 20 {
            eprintln!("{what}: {} %", tenth * 10);
            told = tenth;
        }
    }
}
