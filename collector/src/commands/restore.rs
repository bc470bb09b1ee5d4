//! `restore`: a backup into an empty database, of the same engine or the other, and a new life for it.
//!
//! The file is read to its end before anything is touched. The collector gets a new epoch, so that agents send the state of
//! every open fault again; ticket numbers skip forward, since numbers may have been handed out after the backup.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use mainstay_shared::ids::CollectorEpoch;
use mainstay_shared::time_source::UnixMs;
use serde_json::Value;

use super::backup::{End, FORMAT, Head, KeyFile};
use super::exit::{Exit, Failure};
use super::{Room, local_actor, say, secret_input};
use crate::appliances::links;
use crate::audit::{self, Verdict};
use crate::customers::{CustomerEvent, VENDOR_TENANT, store};
use crate::db::dump::{self, Target};
use crate::db::{Conn, Db, Engine, Turn, transact};

/// How far ticket numbers skip: more than a day's tickets of any vendor.
const TICKETS_SKIPPED: i64 = 1_000;

/// How far the change counter skips, so that no page that waited on the old one misses a change.
const CHANGES_SKIPPED: i64 = 1_000_000_000;

/// How far the versions of what the online keys sign skip: a year of daily ones with room. An appliance never goes back.
const METADATA_SKIPPED: i64 = 10_000;

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Take the passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Runs `restore`.
pub(super) async fn run(room: &Room, restore: Restore) -> anyhow::Result<()> {
    secret_input::private_directory(&room.config.data_dir)?;
    let db = room.any_db().await?;
    let keys_dir = room.config.data_dir.join("keys");
    if !dump::is_empty(&db).await? {
        return Err(Failure::because(Exit::Exists, "the database is not empty: restore writes into an empty one only"));
    }
    if keys_dir.exists() {
        let told = format!("{}: exists already; move it away: restore brings the keys of the backup", keys_dir.display());
        return Err(Failure::because(Exit::Exists, told));
    }
    let passphrase = secret_input::passphrase(restore.passphrase_file.as_deref(), "备份口令 / passphrase of the backup", false)?;
    let epoch = CollectorEpoch::random(&room.rng);
    let rows = read_back(&db, &restore.from, &passphrase, &keys_dir, &epoch, room.time.now()).await?;
    say(&format!("已恢复 {rows} 行，正在核对事件记录 ..."), &format!("Restored {rows} rows; checking the record of events ..."));
    let customers = store::customers(&mut *db.read().await?).await?;
    for customer in customers {
        if let Verdict::Broken { seq, why } = audit::verify(&db, &customer.tenant_id).await? {
            return Err(Failure::because(
                Exit::Data,
                format!("the events of {:?} are broken at {seq}: {why}", customer.tenant_id),
            ));
        }
    }
    say("事件记录完整。现在可以启动收集端。", "The record of events is whole. The collector can be started.");
    if room.json {
        println!("{}", serde_json::json!({ "rows": rows, "epoch": epoch.as_str() }));
    }
    Ok(())
}

/// Checks the whole file, then writes keys and rows. The database's commit is the commit point.
pub(crate) async fn read_back(
    db: &Db,
    from: &Path,
    passphrase: &SecretString,
    keys_dir: &Path,
    epoch: &CollectorEpoch,
    now: UnixMs,
) -> anyhow::Result<u64> {
    let (head, keys) = check(from, passphrase)?;
    secret_input::private_directory(keys_dir)?;
    for key in &keys {
        let good_name = !key.file.is_empty() && !key.file.starts_with('.') && !key.file.contains('/');
        anyhow::ensure!(good_name, "key file {:?}: not a plain name", key.file);
        secret_input::write_private_file(&keys_dir.join(&key.file), &STANDARD.decode(&key.b64)?)?;
    }
    let rows = transact!(db, Turn::Console, |tx| {
        let rows = insert_all(tx, db.engine(), open(from, passphrase)?).await?;
        new_life(tx, &head, epoch, now).await?;
        Ok(rows)
    });
    Ok(rows)
}

type Lines = std::io::Lines<BufReader<zstd::Decoder<'static, BufReader<age::stream::StreamReader<std::fs::File>>>>>;

fn open(from: &Path, passphrase: &SecretString) -> anyhow::Result<Lines> {
    let refused = |told: String| Failure::because(Exit::Data, format!("{}: {told}", from.display()));
    let file = std::fs::File::open(from).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let sealed = age::Decryptor::new(file).map_err(|error| refused(format!("is no backup: {error}")))?;
    let mut identity = age::scrypt::Identity::new(passphrase.clone());
    identity.set_max_work_factor(22);
    let clear = sealed
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|error| refused(format!("the passphrase does not fit: {error}")))?;
    let text = zstd::Decoder::new(clear).map_err(|error| refused(format!("is no backup: {error}")))?;
    Ok(BufReader::new(text).lines())
}

/// Reads to the end: head, keys, and whether as many rows are there as the end line says.
fn check(from: &Path, passphrase: &SecretString) -> anyhow::Result<(Head, Vec<KeyFile>)> {
    let damaged = |told: &str| Failure::because(Exit::Data, format!("{}: {told}; nothing was changed", from.display()));
    let mut lines = open(from, passphrase)?;
    let mut next = || lines.next().transpose().map_err(|error| damaged(&format!("is damaged or cut short ({error})")));
    let head = next()?.ok_or_else(|| damaged("is empty"))?;
    let head: Head = serde_json::from_str(&head).map_err(|_| damaged("is not a backup of a collector"))?;
    if head.mainstay_backup != FORMAT {
        return Err(damaged(&format!("has form {}; this program reads form {FORMAT}", head.mainstay_backup)));
    }
    let (mut keys, mut rows) = (Vec::new(), 0_u64);
    while let Some(line) = next()? {
        if line.starts_with('[') {
            rows += 1;
        } else if let Ok(key) = serde_json::from_str::<KeyFile>(&line) {
            keys.push(key);
        } else if let Ok(end) = serde_json::from_str::<End>(&line) {
            return if end.end == rows { Ok((head, keys)) } else { Err(damaged("has lost rows")) };
        }
    }
    Err(damaged("is cut short"))
}

async fn insert_all(tx: &mut Conn, engine: Engine, lines: Lines) -> anyhow::Result<u64> {
    let (mut target, mut rows) = (None, 0);
    for line in lines.skip(1) {
        let line = line.context("reading the backup")?;
        match serde_json::from_str(&line).context("reading the backup")? {
            Value::Array(values) => {
                let target: &Target = target.as_ref().context("a row before its table")?;
                target.insert(tx, &values).await?;
                rows += 1;
            }
            Value::Object(told) => {
                if let (Some(table), Some(columns)) = (told.get("table").and_then(Value::as_str), told.get("columns")) {
                    let names: Vec<String> = serde_json::from_value(columns.clone()).context("a table's columns")?;
                    target = Some(Target::open(tx, engine, table, &names).await?);
                }
            }
            _ => anyhow::bail!("a line that is neither table nor row"),
        }
    }
    Ok(rows)
}

/// What differs from the day of the backup: epoch, numbers, nonces, sign-ins.
async fn new_life(tx: &mut Conn, head: &Head, epoch: &CollectorEpoch, now: UnixMs) -> anyhow::Result<()> {
    sqlx::query("UPDATE collector SET epoch = $1").bind(epoch.as_str()).execute(&mut *tx).await?;
    let skips = [
        ("ticket", TICKETS_SKIPPED),
        ("change", CHANGES_SKIPPED),
        ("tuf_snapshot", METADATA_SKIPPED),
        ("tuf_timestamp", METADATA_SKIPPED),
    ];
    for (counter, skipped) in skips {
        sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value",
        )
        .bind(counter)
        .bind(skipped)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("DELETE FROM sessions").execute(&mut *tx).await?;
    links::forget_nonces(tx).await?;
    let restored = CustomerEvent::CollectorRestored {
        epoch: epoch.to_string(),
        epoch_before: head.epoch.clone(),
        backup_made_at: head.made_at,
        ticket_numbers_skipped: TICKETS_SKIPPED,
    };
    audit::append(tx, VENDOR_TENANT, now, &local_actor(), "collector", &restored).await.map(drop)
}
