//! `backup`: database, issuing CA and online keys at one point, encrypted, while the collector serves.
//!
//! The file is age (passphrase) over zstd over lines of JSON: a head, the key files, the tables, an end line that counts them, so
//! that a cut file is found. The root CA's key is never in it: it is not on this machine.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use age::scrypt::Recipient;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

use super::exit::{Exit, Failure};
use super::{Room, say, secret_input};
use crate::db::{Db, dump};

/// Version of the file's form.
pub(super) const FORMAT: u32 = 1;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Take the passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) mainstay_backup: u32,
    pub(super) made_at: UnixMs,
    pub(super) epoch: String,
    pub(super) program: String,
}

/// A key file, by its name in `keys`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyFile {
    pub(super) file: String,
    pub(super) b64: String,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) end: u64,
}

/// Runs `backup`.
pub(super) async fn run(room: &Room, backup: Backup) -> anyhow::Result<()> {
    let passphrase = secret_input::passphrase(backup.passphrase_file.as_deref(), "备份口令 / passphrase of the backup", true)?;
    if backup.out.exists() {
        return Err(Failure::because(Exit::Exists, format!("{}: exists already; nothing was written", backup.out.display())));
    }
    let db = room.db().await?;
    let partial = partial_name(&backup.out);
    let outcome = write(&db, &room.config.data_dir.join("keys"), &partial, &Recipient::new(passphrase), room.time.now()).await;
    let rows = match outcome {
        Ok(rows) => rows,
        Err(error) => {
            // What can't be removed is at worst an encrypted, incomplete file under a name that says so.
            drop(std::fs::remove_file(&partial));
            return Err(error);
        }
    };
    std::fs::rename(&partial, &backup.out).with_context(|| format!("naming {}", backup.out.display()))?;
    secret_input::sync_directory_of(&backup.out)?;
    if room.json {
        println!("{}", serde_json::json!({ "file": backup.out, "rows": rows }));
    }
    say(
        &format!("已备份 {rows} 行到 {}。请把口令与文件分开保存。", backup.out.display()),
        &format!("Backed up {rows} rows to {}. Keep the passphrase apart from the file.", backup.out.display()),
    );
    Ok(())
}

fn partial_name(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes the whole file; answers how many rows. One snapshot, so that tables agree.
pub(crate) async fn write(db: &Db, keys_dir: &Path, path: &Path, reader: &Recipient, now: UnixMs) -> anyhow::Result<u64> {
    let file = secret_input::new_private_file(path)?;
    let sealed = age::Encryptor::with_recipients(std::iter::once(reader as &dyn age::Recipient))
        .and_then(|encryptor| Ok(encryptor.wrap_output(file)?))
        .context("beginning the encryption")?;
    let mut out = BufWriter::new(zstd::Encoder::new(sealed, 3).context("beginning the compression")?);
    let mut snapshot = db.snapshot().await?;
    let epoch = sqlx::query_scalar("SELECT epoch FROM collector").fetch_one(&mut *snapshot).await?;
    let head = Head { mainstay_backup: FORMAT, made_at: now, epoch, program: env!("CARGO_PKG_VERSION").to_owned() };
    line(&mut out, &head)?;
    for (file, bytes) in key_files(keys_dir)? {
        line(&mut out, &KeyFile { file, b64: STANDARD.encode(bytes) })?;
    }
    let mut rows = 0;
    for table in dump::TABLES {
        let count = dump::write_table(&mut snapshot, db.engine(), table, &mut out).await?;
        eprintln!("{table}: {count}");
        rows += count;
    }
    snapshot.rollback().await?;
    line(&mut out, &End { end: rows })?;
    let compressed = out.into_inner().map_err(|error| anyhow::anyhow!("writing the backup: {}", error.error()))?;
    let file = compressed.finish().and_then(age::stream::StreamWriter::finish).context("ending the backup")?;
    file.sync_all().context("syncing the backup")?;
    Ok(rows)
}

fn line(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?).context("writing the backup")
}

fn key_files(keys_dir: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(keys_dir).with_context(|| keys_dir.display().to_string())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) else { continue };
        files.push((name.to_owned(), std::fs::read(&path).with_context(|| path.display().to_string())?));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
