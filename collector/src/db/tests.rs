//! What the stores rely on, asked of both databases.

use super::testing::{TestDb, both_databases};
use super::{Db, Turn, next_number};

both_databases!(
    numbers_are_handed_out_once_under_contention,
    a_failed_story_leaves_nothing,
    blobs_and_nulls_come_back_as_they_went_in
);

async fn numbers_are_handed_out_once_under_contention(db: Db) {
    let mut tasks = tokio::task::JoinSet::new();
    for turn in [Turn::Intake, Turn::Console].repeat(10) {
        let db = db.clone();
        tasks.spawn(async move { anyhow::Ok(transact!(db, turn, |tx| { Ok(next_number(tx, "ticket").await?) })) });
    }
    let mut numbers: Vec<i64> = tasks.join_all().await.into_iter().map(|n| n.expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

async fn a_failed_story_leaves_nothing(db: Db) {
    async fn fail(db: &Db) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| {
            next_number(tx, "ticket").await?;
            Err::<(), _>(anyhow::anyhow!("no"))
        });
        Ok(())
    }
    assert!(fail(&db).await.is_err());
    let mut conn = db.read().await.expect("reads");
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM counters").fetch_one(&mut *conn).await.expect("counts");
    assert_eq!(left, 0);
}

async fn blobs_and_nulls_come_back_as_they_went_in(db: Db) {
    async fn go(db: &Db) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| {
            sqlx::query("INSERT INTO customers (tenant_id, name, language, created_at) VALUES ($1, $2, 'zh', $3)")
                .bind("t")
                .bind("某银行")
                .bind(5_i64)
                .execute(&mut *tx)
                .await?;
            sqlx::query("INSERT INTO samples (tenant_id, appliance_id, from_at, to_at, metrics) VALUES ('t', 'a', 1, 2, $1)")
                .bind(vec![0_u8, 255, 7])
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO contacts (tenant_id, contact_id, site_id, name, email, phone, language)
                 VALUES ('t', 'c', $1, 'n', 'e', 'p', 'en')",
            )
            .bind(None::<String>)
            .execute(&mut *tx)
            .await?;
            Ok(())
        });
        let mut conn = db.snapshot().await?;
        let blob: Vec<u8> = sqlx::query_scalar("SELECT metrics FROM samples").fetch_one(&mut *conn).await?;
        let site: Option<String> = sqlx::query_scalar("SELECT site_id FROM contacts").fetch_one(&mut *conn).await?;
        let name: String = sqlx::query_scalar("SELECT name FROM customers").fetch_one(&mut *conn).await?;
        assert_eq!((blob, site, name.as_str()), (vec![0, 255, 7], None, "某银行"));
        Ok(())
    }
    go(&db).await.expect("round trip");
}

#[tokio::test]
async fn the_log_that_is_written_again_is_the_log_that_it_was() {
    async fn go() -> anyhow::Result<()> {
        let test = TestDb::sqlite().await;
        let log = format!("{}-wal", test.url.trim_start_matches("sqlite:"));
        transact!(test.db, Turn::Intake, |tx| { Ok(next_number(tx, "ticket").await?) });
        let before = std::fs::read(&log)?;
        std::fs::File::options().write(true).open(&log)?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
        test.db.write_log_again().await?;
        assert!(!before.is_empty() && std::fs::read(&log)? == before);
        assert!(std::fs::metadata(&log)?.modified()? > std::time::SystemTime::UNIX_EPOCH, "it was written");
        let next = transact!(test.db, Turn::Intake, |tx| { Ok(next_number(tx, "ticket").await?) });
        assert_eq!(next, 2);
        Ok(())
    }
    go().await.expect("the log is written again");
}
