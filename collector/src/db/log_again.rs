//! SQLite's log, written again before a collector builds on it.
//!
//! A sync that failed before the last collector ended leaves frames in the page cache that are not on the disk and that nothing will ever
//! write there (R29). SQLite reads them back, believes them and builds on them; a power cut would then take away what was
//! acknowledged since. So they are made dirty and synced once more. Nothing here may change a byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use sqlx::AnyPool;

const PART_BYTES: usize = 1 << 20;

/// Writes the log of the database behind `writer` again, in place, and syncs it.
///
/// # Errors
/// If another process holds the database for longer than a writer waits, or the disk refuses.
pub(super) async fn write_log_again(writer: &AnyPool) -> anyhow::Result<()> {
    // Whoever else would write to the log waits meanwhile.
    let mut alone = writer.begin_with("BEGIN IMMEDIATE").await?;
    let database: String =
        sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'").fetch_one(&mut *alone).await?;
    let log = format!("{database}-wal");
    write_again(Path::new(&log)).context(log)?;
    Ok(alone.rollback().await?)
}

fn write_again(log: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut part, mut at) = (vec![0; PART_BYTES], 0);
    loop {
        let read = file.read_at(&mut part, at)?;
        if read == 0 {
            return file.sync_data();
        }
        file.write_all_at(&part[..read], at)?;
        at += read as u64;
    }
}
