//! A database per test, on both engines: `both_databases!(name)` turns `async fn name(db: Db)` into two tests.
//!
//! PostgreSQL is the server that `MAINSTAY_TEST_POSTGRES` names (`make test` starts a private one); without it the PostgreSQL
//! half fails rather than passing unseen. Test code only.

use super::Db;

/// A database that goes away with this value.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    _dir: Option<tempfile::TempDir>,
}

impl TestDb {
    /// A fresh SQLite file.
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        Self { db: Db::open(&url).await.expect("a fresh SQLite database"), _dir: Some(dir) }
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
        Self { db: Db::open(&format!("{server}/{name}")).await.expect("a fresh PostgreSQL database"), _dir: None }
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
