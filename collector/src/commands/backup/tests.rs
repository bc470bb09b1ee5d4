//! A backup taken while rows are written comes back whole, on either engine and across them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use age::secrecy::SecretString;
use mainstay_shared::ids::CollectorEpoch;
use ring::rand::SystemRandom;

use super::*;
use crate::audit::{self, Verdict};
use crate::commands::restore::read_back;
use crate::db::testing::TestDb;
use crate::db::{Turn, next_number, transact};
use crate::notices::testing::fill;

fn passphrase() -> SecretString {
    SecretString::from("correct horse battery".to_owned())
}

/// The passphrase as the one who may read, stretched little: tests need no strength.
fn reader() -> Recipient {
    let mut reader = Recipient::new(passphrase());
    reader.set_work_factor(4);
    reader
}

fn keys(dir: &Path) -> PathBuf {
    let keys = dir.join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    std::fs::write(keys.join("issuing-ca.key"), "secret key").expect("writes");
    keys
}

/// One more event of customer `bank`, and a counter that must agree with the chain.
async fn write_one(db: &Db, n: i64) -> anyhow::Result<()> {
    transact!(db, Turn::Intake, |tx| {
        let noted = serde_json::json!({ "type": "noted", "text": n });
        audit::append(tx, "bank", UnixMs(n), audit::SYSTEM, "ticket:T-1", &noted).await?;
        next_number(tx, "ticket").await?;
        if n % 10 == 0 {
            sqlx::query("INSERT INTO samples VALUES ('bank', 'a', $1, $1, $2)")
                .bind(n)
                .bind(vec![0_u8, 255, 1])
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    });
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "load beside the backup, joined before the test ends")]
async fn comes_back(from: TestDb, to: TestDb) {
    let dir = tempfile::tempdir().expect("a folder");
    let (db, file) = (from.db.clone(), dir.path().join("b.age"));
    fill(&db).await.expect("fills");
    for n in 0..50 {
        write_one(&db, n).await.expect("writes");
    }
    let (done, loaded) = (Arc::new(AtomicBool::new(false)), db.clone());
    let until = Arc::clone(&done);
    let load = tokio::spawn(async move {
        let mut n = 50;
        while !until.load(Ordering::SeqCst) {
            write_one(&loaded, n).await.expect("writes under the backup");
            n += 1;
        }
        n
    });
    let rows = write(&db, &keys(dir.path()), &file, &reader(), UnixMs(7)).await.expect("backs up");
    done.store(true, Ordering::SeqCst);
    let written = load.await.expect("the load ends");

    let (epoch, restored_keys) = (CollectorEpoch::random(&SystemRandom::new()), dir.path().join("restored-keys"));
    let back = read_back(&to.db, &file, &passphrase(), &restored_keys, &epoch, UnixMs(8)).await.expect("restores");
    assert_eq!(back, rows);
    assert_eq!(std::fs::read_to_string(restored_keys.join("issuing-ca.key")).expect("a key"), "secret key");
    let Verdict::Whole { count, .. } = audit::verify(&to.db, "bank").await.expect("verifies") else { panic!("broken") };
    assert!((50..=written).contains(&count), "{count} of {written}");
    let mut conn = to.db.read().await.expect("reads");
    let tickets: i64 =
        sqlx::query_scalar("SELECT value FROM counters WHERE name = 'ticket'").fetch_one(&mut *conn).await.expect("a counter");
    assert_eq!(tickets, count + 1_000, "one moment of the database, and numbers skipped forward");
    let stored: String = sqlx::query_scalar("SELECT epoch FROM collector").fetch_one(&mut *conn).await.expect("an epoch");
    assert_eq!(stored, epoch.as_str());
    let blob: Vec<u8> = sqlx::query_scalar("SELECT metrics FROM samples LIMIT 1").fetch_one(&mut *conn).await.expect("a blob");
    assert_eq!(blob, [0, 255, 1]);
    let events = audit::of_subject(&mut conn, "vendor", "collector").await.expect("events");
    assert_eq!(events.last().map(|event| event.kind.as_str()), Some("collector_restored"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_comes_back_on_sqlite() {
    comes_back(TestDb::sqlite().await, TestDb::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_comes_back_on_postgres() {
    comes_back(TestDb::postgres().await, TestDb::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_sqlite_comes_back_on_postgres() {
    comes_back(TestDb::sqlite().await, TestDb::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_postgres_comes_back_on_sqlite() {
    comes_back(TestDb::postgres().await, TestDb::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_or_damaged_file_and_a_wrong_passphrase_change_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to, file) = (TestDb::sqlite().await, TestDb::sqlite().await, dir.path().join("b.age"));
    fill(&from.db).await.expect("fills");
    write(&from.db, &keys(dir.path()), &file, &reader(), UnixMs(7)).await.expect("backs up");
    let whole = std::fs::read(&file).expect("the backup");
    let mut damaged = whole.clone();
    let middle = whole.len() / 2;
    damaged[middle] ^= 1;
    let wrong = SecretString::from("another passphrase".to_owned());
    for (bytes, passphrase) in [(&whole[..whole.len() - 9], passphrase()), (&damaged[..], passphrase()), (&whole[..], wrong)] {
        let bad = dir.path().join("bad.age");
        std::fs::write(&bad, bytes).expect("writes");
        let (epoch, keys) = (CollectorEpoch::random(&SystemRandom::new()), dir.path().join("k"));
        let error = read_back(&to.db, &bad, &passphrase, &keys, &epoch, UnixMs(8)).await.expect_err("refused");
        assert_eq!(crate::commands::exit::of(&error), Exit::Data, "{error:#}");
        assert!(!keys.exists() && dump::is_empty(&to.db).await.expect("asks"), "nothing was changed");
    }
}
