//! A private PostgreSQL: initdb and `postgres` in a temporary folder, on a free port of 127.0.0.1, as user `postgres` when the
//! test is root. One server serves a whole run (`with-postgres` puts its address into [`SHARED`]); without that each test that
//! needs one starts its own. It never touches an installed cluster.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::patience::{SOON, eventually};
use crate::process::{Daemon, tied_as};

/// The environment variable with the shared server's address: `postgres://postgres@127.0.0.1:PORT`.
pub const SHARED: &str = "MAINSTAY_TEST_POSTGRES";

/// A running private server; stopped and removed when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    _daemon: Daemon,
    _folder: TempDir,
}

impl PostgresServer {
    /// Makes a cluster and starts a server on it.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start; says what it printed.
    pub async fn start() -> Result<Self> {
        // A test's data need not outlive a power cut; everything else stays as PostgreSQL ships it.
        Self::start_with(&["fsync=off", "shared_buffers=32MB", "max_connections=200"]).await
    }

    /// The same, as PostgreSQL ships it: what is committed is on the disk. For measuring.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub async fn start_durable() -> Result<Self> {
        Self::start_with(&["max_connections=200"]).await
    }

    async fn start_with(settings: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-pg-").tempdir()?;
        let data = folder.path().join("data");
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").arg("postgres:").arg(folder.path()).status()?;
            if !owned.success() {
                bail!("there is no user postgres: install PostgreSQL (scripts/setup.sh database)");
            }
        }
        let init = tied_as("postgres", binary("initdb")?)
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()?;
        if !init.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&init.stderr));
        }
        let port = free_port()?;
        let mut command = tied_as("postgres", binary("postgres")?);
        command.arg("-D").arg(&data).current_dir("/");
        let port_is = format!("port={port}");
        for setting in [port_is.as_str(), "listen_addresses=127.0.0.1", "unix_socket_directories="].iter().chain(settings) {
            command.arg("-c").arg(setting);
        }
        let log = folder.path().join("postgres.log");
        let mut daemon = Daemon::start("postgres", command, &log)?;
        eventually("PostgreSQL to accept connections", SOON, async || {
            daemon.must_run()?;
            Ok(psql(port, "select 1").is_ok().then_some(()))
        })
        .await?;
        Ok(Self { port, _daemon: daemon, _folder: folder })
    }

    /// Its address without a database name.
    #[must_use]
    pub fn address(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port)
    }
}

/// Runs one statement in the maintenance database of the server on `port`, and gives what it printed.
///
/// # Errors
/// What psql complained.
pub fn psql(port: u16, statement: &str) -> Result<String> {
    let output = Command::new(binary("psql")?)
        .args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", statement, "-p"])
        .arg(port.to_string())
        .env("PGCONNECT_TIMEOUT", "10")
        .output()?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port that was free a moment ago.
///
/// # Errors
/// When 127.0.0.1 can't be bound.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn binary(name: &str) -> Result<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin").join(name)).filter(|p| p.is_file()).collect())
        .unwrap_or_default();
    versions.sort_by_key(|path| version_of(path));
    versions
        .pop()
        .or_else(|| on_path(name))
        .with_context(|| format!("{name} of PostgreSQL is not installed (scripts/setup.sh database)"))
}

fn version_of(path: &Path) -> u32 {
    path.iter().find_map(|part| part.to_str()?.parse().ok()).unwrap_or(0)
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|p| p.is_file())
}
