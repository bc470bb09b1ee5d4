//! A private PostgreSQL: initdb and `postgres` in a temporary folder, on a free port of 127.0.0.1, as user `postgres` when the
//! test is root. One server serves a whole run (`with-postgres` puts its address into [`SHARED`]); without that each test that
//! needs one starts its own. It never touches an installed cluster.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use mainstay_shared::ids::random_hex_128;
use ring::rand::SystemRandom;
use tempfile::TempDir;

use crate::patience::{SOON, eventually};
use crate::process::{Daemon, tied_as};

/// The environment variable with the shared server's address: `postgres://postgres@127.0.0.1:PORT`.
pub const SHARED: &str = "MAINSTAY_TEST_POSTGRES";

/// A running private server; stopped and removed when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    daemon: Option<Daemon>,
    settings: &'static [&'static str],
    folder: TempDir,
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

    async fn start_with(settings: &'static [&'static str]) -> Result<Self> {
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
        let mut server = Self { port: free_port()?, daemon: None, settings, folder };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts the server on its cluster, which may have been left as a crash leaves it.
    ///
    /// # Errors
    /// When it does not accept connections in time.
    pub async fn start_again(&mut self) -> Result<()> {
        let port = self.port;
        self.daemon = None;
        // What the killed server's processes still hold (shared memory, the port) goes with them, a moment later.
        self.daemon =
            Some(eventually("PostgreSQL to accept connections", SOON, async || self.try_start(port).await.map(Some)).await?);
        Ok(())
    }

    async fn try_start(&self, port: u16) -> Result<Daemon> {
        let mut command = tied_as("postgres", binary("postgres")?);
        command.arg("-D").arg(self.folder.path().join("data")).current_dir("/");
        let port_is = format!("port={port}");
        for setting in [port_is.as_str(), "listen_addresses=127.0.0.1", "unix_socket_directories="].iter().chain(self.settings) {
            command.arg("-c").arg(setting);
        }
        let mut daemon = Daemon::start("postgres", command, &self.log_file())?;
        eventually("PostgreSQL to answer", SOON, async || match daemon.must_run() {
            Err(dead) => Ok(Some(Err(dead))),
            Ok(()) => Ok(psql(port, "select 1").is_ok().then_some(Ok(()))),
        })
        .await??;
        Ok(daemon)
    }

    /// SIGKILL to the postmaster; its backends go when they notice.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("PostgreSQL runs")?.kill()
    }

    /// What `pg_ctl stop -m immediate` does: every process ends at once, nothing is written out.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop_immediately(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("PostgreSQL runs")?;
        daemon.signal(rustix::process::Signal::QUIT)?;
        eventually("PostgreSQL to end", SOON, async || daemon.ended()).await.map(drop)
    }

    /// SIGKILL to one backend that serves a database of this name; the server then restarts all of them by itself.
    ///
    /// # Errors
    /// When none serves it.
    pub fn kill_a_backend(&self, database: &str) -> Result<()> {
        let found =
            psql(self.port, &format!("select pid from pg_stat_activity where datname = '{database}' order by state limit 1"))?;
        let pid = found.trim().parse().ok().and_then(rustix::process::Pid::from_raw).context("a backend of that database")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("killing a backend")
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged in all its lives.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
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

/// A port that was free a moment ago. It lies below those that the kernel hands out by itself, so that nobody is given it while the
/// program that listens there is killed and started again.
///
/// # Errors
/// When none of a thousand can be bound on 127.0.0.1.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let random = random_hex_128(&SystemRandom::new());
        let port = 20_000 + u16::from_str_radix(&random[..4], 16)? % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
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
