//! One empty database per test, SQLite or PostgreSQL, and the macro that runs a story on both.
//! A story never knows which one it is told on.

use anyhow::{Context as _, Result};
use mainstay_shared::ids::random_hex_128;
use ring::rand::SystemRandom;

use crate::postgres::{PostgresServer, SHARED, psql};

/// Which store the collector uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The default: a file in the collector's own folder.
    Sqlite,
    /// A database of its own on a private server.
    Postgres,
}

/// An empty database; a PostgreSQL one is dropped with it.
#[derive(Debug)]
pub enum Database {
    /// Nothing to prepare: the collector makes its file.
    Sqlite,
    /// A fresh database on a server.
    Postgres {
        /// The server's port on 127.0.0.1.
        port: u16,
        /// The database's name.
        name: String,
        /// The server, when this test started its own.
        server: Option<PostgresServer>,
    },
}

impl Database {
    /// A new empty one.
    ///
    /// # Errors
    /// When PostgreSQL can't be started or asked.
    pub async fn fresh(engine: Engine) -> Result<Self> {
        if engine == Engine::Sqlite {
            return Ok(Self::Sqlite);
        }
        let (address, server) = match std::env::var(SHARED) {
            Ok(address) => (address, None),
            Err(_) => {
                let server = PostgresServer::start().await?;
                (server.address(), Some(server))
            }
        };
        let port = address
            .rsplit(':')
            .next()
            .and_then(|p| p.parse().ok())
            .with_context(|| format!("{SHARED} = {address:?}: expected postgres://postgres@127.0.0.1:PORT"))?;
        let name = format!("t_{}", random_hex_128(&SystemRandom::new()));
        psql(port, &format!("create database {name}"))?;
        Ok(Self::Postgres { port, name, server })
    }

    /// A database on a server of the test's own, reached through `door` (a port in front of it) where one is named.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub fn on(server: &PostgresServer, door: Option<u16>) -> Result<Self> {
        let name = format!("t_{}", random_hex_128(&SystemRandom::new()));
        psql(server.port(), &format!("create database {name}"))?;
        Ok(Self::Postgres { port: door.unwrap_or(server.port()), name, server: None })
    }

    /// A PostgreSQL database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Sqlite => "",
            Self::Postgres { name, .. } => name,
        }
    }

    /// The address for the collector's configuration; `None` for the default store.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.url_through(None)
    }

    /// The same, by another port in front of it.
    #[must_use]
    pub fn url_through(&self, door: Option<u16>) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres { port, name, .. } => Some(format!("postgres://postgres@127.0.0.1:{}/{name}", door.unwrap_or(*port))),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server of the test's own goes as a whole.
        if let Self::Postgres { port, name, server: None } = self {
            psql(*port, &format!("drop database if exists {name} with (force)")).ok();
        }
    }
}

/// Makes `sqlite::STORY` and `postgres::STORY` of each `async fn STORY(engine: Engine) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! both_databases {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() -> anyhow::Result<()> {
                super::$story($crate::database::Engine::Sqlite).await
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() -> anyhow::Result<()> {
                super::$story($crate::database::Engine::Postgres).await
            })+
        }
    };
}
