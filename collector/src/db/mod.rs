//! The one way to the database: SQLite inside the collector, or PostgreSQL, with the same SQL text (docs/database.md has the rules).
//!
//! Stories in `flow/` open a transaction with [`transact!`] and hand its connection to the stores, so the caller decides what
//! commits together. On SQLite there is one writer connection with two queues (intake never waits behind more than one console
//! write); on PostgreSQL every transaction is SERIALIZABLE and retried. Nothing here may know what the tables mean.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::any::{Any, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Connection as _, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub(crate) mod dump;
mod log_again;
pub(crate) mod multi_row;

/// What every store function takes: a connection inside somebody's transaction (or a reader's).
pub(crate) type Conn = AnyConnection;

/// How often a transaction is tried again after a serialisation failure before the caller is told.
const MAX_TRIES: u32 = 24;
/// The longest pause before another try.
const LONGEST_PAUSE_MS: u64 = 100;

/// The longest wait for a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// The longest wait for a turn at SQLite's writer.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait for a sign of life of a connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The longest that intake works in one transaction: a connection that the network forgot never says so.
pub(crate) const INTAKE_LIMIT: Duration = Duration::from_secs(30);

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A file beside the collector.
    Sqlite,
    /// A server, shared by several collectors.
    Postgres,
}

/// Whose turn at the writer: intake goes before people, and neither starves the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Reports and clocks.
    Intake,
    /// Pages, API, commands.
    Console,
}

/// A handle to the database; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    engine: Engine,
    writer: AnyPool,
    reader: AnyPool,
    writer_queue: Arc<Mutex<()>>,
    console_queue: Arc<Mutex<()>>,
    /// Cut in simulations, at a commit.
    #[cfg(test)]
    pub(crate) power: testing::Power,
}

impl Db {
    /// Connects and brings the schema up to date. `url` is `sqlite:PATH` or `postgres://...`.
    ///
    /// # Errors
    /// If the database can't be reached or its schema is newer than this program.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let engine = if url.starts_with("sqlite:") {
            Engine::Sqlite
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Engine::Postgres
        } else {
            anyhow::bail!("database.url: expected \"sqlite:PATH\" or \"postgres://USER@HOST/NAME\"");
        };
        // The URL may hold a password: errors name the engine, never the URL (R33).
        let writer = pool(engine, url, Access::Write).await.with_context(|| format!("opening the {engine:?} database"))?;
        sqlx::migrate!("./migrations").run(&writer).await.context("bringing the database's schema up to date")?;
        let reader = match engine {
            Engine::Sqlite => pool(engine, url, Access::Read).await.context("opening the database for reading")?,
            Engine::Postgres => writer.clone(),
        };
        Ok(Self {
            engine,
            writer,
            reader,
            writer_queue: Arc::default(),
            console_queue: Arc::default(),
            #[cfg(test)]
            power: testing::Power::default(),
        })
    }

    /// Which database it is.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// Makes durable what SQLite reads back from its log ([`log_again`]); once, before anything is acknowledged.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) async fn write_log_again(&self) -> anyhow::Result<()> {
        match self.engine {
            Engine::Sqlite => log_again::write_log_again(&self.writer).await.context("writing SQLite's log again"),
            Engine::Postgres => Ok(()),
        }
    }

    /// A connection for single reads.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Any>, sqlx::Error> {
        self.reader.acquire().await
    }

    /// A read-only transaction that sees one moment of the database.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self.engine {
            Engine::Sqlite => self.reader.begin_with("BEGIN").await,
            Engine::Postgres => self.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
        }
    }

    /// Begins a writing transaction; used through [`transact!`].
    pub(crate) async fn begin(&self, turn: Turn) -> Result<Writing, sqlx::Error> {
        #[cfg(test)]
        self.power.must_be_on()?;
        if self.engine == Engine::Postgres {
            return Ok(Writing { tx: self.writer.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?, _turn: None });
        }
        // Behind a locked or failing file each turn takes as long as the file makes it wait: nobody queues up for many of them.
        let turns = async {
            let waited = match turn {
                Turn::Intake => None,
                Turn::Console => Some(Arc::clone(&self.console_queue).lock_owned().await),
            };
            (Arc::clone(&self.writer_queue).lock_owned().await, waited)
        };
        let (writer, waited) = tokio::time::timeout(TURN_LIMIT, turns).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        Ok(Writing { tx: self.writer.begin_with("BEGIN IMMEDIATE").await?, _turn: Some((writer, waited)) })
    }

    /// Commits what went well. `None`: the transaction lost a race and is to be run again.
    pub(crate) async fn finish<T>(
        &self,
        writing: Writing,
        outcome: anyhow::Result<T>,
        tries: &mut u32,
    ) -> anyhow::Result<Option<T>> {
        let Writing { tx, _turn } = writing;
        // SQLite answers by itself, however long a large commit takes.
        let limit = if self.engine == Engine::Postgres { INTAKE_LIMIT } else { Duration::MAX };
        #[cfg(test)]
        let outcome = self.power.before_commit(outcome);
        let error = match outcome {
            Ok(value) => match tokio::time::timeout(limit, tx.commit()).await {
                Ok(Ok(())) => {
                    #[cfg(test)]
                    self.power.after_commit()?;
                    return Ok(Some(value));
                }
                Ok(Err(error)) => anyhow::Error::new(error).context("committing"),
                Err(_) => anyhow::Error::new(sqlx::Error::PoolTimedOut).context("committing: the database does not answer"),
            },
            Err(error) => {
                match tokio::time::timeout(ANSWER_LIMIT, tx.rollback()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(lost)) => tracing::debug!(%lost, "rolling back: the connection is gone, which undoes it as well"),
                    Err(_) => tracing::debug!("rolling back: no answer; the connection is closed"),
                }
                error
            }
        };
        *tries += 1;
        if lost_a_race(&error) && *tries < MAX_TRIES {
            drop(_turn);
            tokio::time::sleep(Duration::from_millis(u64::from(*tries * *tries).min(LONGEST_PAUSE_MS))).await;
            return Ok(None);
        }
        Err(error)
    }
}

/// A writing transaction and its place at the writer.
#[derive(Debug)]
pub(crate) struct Writing {
    tx: Transaction<'static, Any>,
    _turn: Option<(OwnedMutexGuard<()>, Option<OwnedMutexGuard<()>>)>,
}

impl Deref for Writing {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}

/// Runs a transaction's body; intake's within [`INTAKE_LIMIT`].
pub(crate) async fn in_time<T>(turn: Turn, body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match turn {
        Turn::Console => body.await,
        Turn::Intake => match tokio::time::timeout(INTAKE_LIMIT, body).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::Error::new(sqlx::Error::PoolTimedOut).context("the database does not answer")),
        },
    }
}

/// Runs a story in one transaction, again from its beginning if it lost a race: `transact!(db, Turn::Intake, |tx| { ..; Ok(value) })`.
/// `tx` is `&mut Conn`. The body may run several times: it must have no effect but through `tx`.
macro_rules! transact {
    ($db:expr, $turn:expr, |$tx:ident| $body:block) => {{
        let db: &$crate::db::Db = &$db;
        let mut tries = 0;
        loop {
            let mut writing = db.begin($turn).await?;
            let outcome: anyhow::Result<_> = {
                let $tx: &mut $crate::db::Conn = &mut writing;
                $crate::db::in_time($turn, async { $body }).await
            };
            if let Some(value) = db.finish(writing, outcome, &mut tries).await? {
                break value;
            }
        }
    }};
}
pub(crate) use transact;

/// The next number of a counter (`ticket`, `change`), within the caller's transaction.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn next_number(tx: &mut Conn, counter: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO counters (name, value) VALUES ($1, 1)
         ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value",
    )
    .bind(counter)
    .fetch_one(tx)
    .await
}

/// Tells every node that something shown on a page or waited for by a long poll has changed.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn mark_change(tx: &mut Conn) -> Result<(), sqlx::Error> {
    next_number(tx, "change").await.map(drop)
}

/// Whether the same transaction, run again, may succeed: serialisation failure, deadlock, busy file, or a unique key taken by
/// a transaction that this one could not see.
fn lost_a_race(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|cause| match cause {
        sqlx::Error::Database(database) => {
            database.is_unique_violation() || matches!(database.code().as_deref(), Some("40001" | "40P01" | "5" | "517" | "261"))
        }
        _ => false,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

async fn pool(engine: Engine, url: &str, access: Access) -> Result<AnyPool, sqlx::Error> {
    let options = AnyPoolOptions::new().acquire_timeout(ACQUIRE_LIMIT).after_release(|conn, _| {
        Box::pin(async move {
            // SQLite ends a transaction by itself when the disk fails it; a connection that still counts itself as within one, or
            // that no longer answers, would fail everyone after: it is closed.
            match tokio::time::timeout(ANSWER_LIMIT, conn.ping()).await {
                Ok(answered) => answered.map(|()| !conn.is_in_transaction()),
                Err(_) => Err(sqlx::Error::PoolTimedOut),
            }
        })
    });
    match engine {
        Engine::Postgres => {
            let options = options.max_connections(16).after_connect(|conn, _| {
                Box::pin(async move {
                    // A node that stands still within a transaction holds its locks: the others must not wait for it.
                    sqlx::raw_sql("SET idle_in_transaction_session_timeout = '10s'").execute(conn).await.map(drop)
                })
            });
            options.connect(url).await
        }
        Engine::Sqlite => {
            let url = if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") };
            let connections = if access == Access::Write { 1 } else { 4 };
            options
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .after_connect(move |conn, _| {
                    Box::pin(async move {
                        let pragmas = match access {
                            Access::Write => {
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                                 PRAGMA busy_timeout = 2000; PRAGMA journal_size_limit = 67108864;
                                 PRAGMA cache_size = -65536;"
                            }
                            Access::Read => "PRAGMA busy_timeout = 10000; PRAGMA query_only = ON;",
                        };
                        sqlx::raw_sql(pragmas).execute(conn).await.map(drop)
                    })
                })
                .connect(&url)
                .await
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
