//! A database per test, on both engines: `both_databases!(name)` turns `async fn name(db: Db)` into two tests.
//!
//! PostgreSQL is the server that `MAINSTAY_TEST_POSTGRES` names (`make test` starts a private one); without it the PostgreSQL
//! half fails rather than passing unseen. Test code only.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Db;

/// A database that goes away with this value.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    /// To open it once more, as a restarted collector does.
    pub(crate) url: String,
    _dir: Option<tempfile::TempDir>,
}

impl TestDb {
    /// A fresh SQLite file.
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        Self { db: Db::open(&url).await.expect("a fresh SQLite database"), url, _dir: Some(dir) }
    }

    /// A fresh SQLite file in a folder of the caller's.
    pub(crate) async fn sqlite_in(dir: &std::path::Path) -> Self {
        let name = mainstay_shared::ids::random_hex_128(&ring::rand::SystemRandom::new());
        let url = format!("sqlite:{}", dir.join(format!("{name}.db")).display());
        Self { db: Db::open(&url).await.expect("a fresh SQLite database"), url, _dir: None }
    }

    /// A fresh database on the private PostgreSQL server. It is dropped with the server.
    pub(crate) async fn postgres() -> Self {
        let server = std::env::var("MAINSTAY_TEST_POSTGRES")
            .expect("MAINSTAY_TEST_POSTGRES: expected the URL of a private server, as `make test` starts one");
        let name = format!("t_{}", mainstay_shared::ids::random_hex_128(&ring::rand::SystemRandom::new()));
        sqlx::any::install_default_drivers();
        let admin = sqlx::AnyPool::connect(&format!("{server}/postgres")).await.expect("the private PostgreSQL server");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.expect("a fresh database");
        admin.close().await;
        let url = format!("{server}/{name}");
        Self { db: Db::open(&url).await.expect("a fresh PostgreSQL database"), url, _dir: None }
    }
}

/// The power of the machine on which a simulated collector runs. Planned to fail at a commit, just before it (nothing of the
/// transaction is there) or just after it (all of it is there, its caller never hears): a transaction knows no third outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct Power(Arc<AtomicI64>);

impl Power {
    const NEVER: i64 = 0;
    const OFF: i64 = i64::MIN;

    /// Plans the cut: 1 is before the next commit, 2 after it, 3 before the one that follows, and so on.
    pub(crate) fn fails_at(&self, half_commit: i64) {
        self.0.store(half_commit, Ordering::SeqCst);
    }

    /// Whether it has failed.
    pub(crate) fn is_off(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::OFF
    }

    pub(super) fn must_be_on(&self) -> Result<(), sqlx::Error> {
        if self.is_off() { Err(sqlx::Error::PoolClosed) } else { Ok(()) }
    }

    pub(super) fn before_commit<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let value = outcome?;
        self.step()?;
        Ok(value)
    }

    pub(super) fn after_commit(&self) -> Result<(), sqlx::Error> {
        self.step()
    }

    fn step(&self) -> Result<(), sqlx::Error> {
        self.must_be_on()?;
        match self.0.load(Ordering::SeqCst) {
            Self::NEVER => {}
            1 => self.0.store(Self::OFF, Ordering::SeqCst),
            left => self.0.store(left - 1, Ordering::SeqCst),
        }
        self.must_be_on()
    }
}

/// Two tests of one story, one a database.
macro_rules! both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { let t = $crate::db::testing::TestDb::sqlite().await; super::$name(t.db.clone()).await; }
        )+ }
        mod postgres { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { let t = $crate::db::testing::TestDb::postgres().await; super::$name(t.db.clone()).await; }
        )+ }
    };
}
pub(crate) use both_databases;
