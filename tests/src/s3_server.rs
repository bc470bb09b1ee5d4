//! A real S3-compatible server (s3s-fs, installed by `scripts/setup.sh s3`) over a folder: buckets are its sub-folders, objects are
//! files, signatures are checked. A story can end it, start it again, and change an object behind its back.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::patience::{SOON, eventually};
use crate::postgres::free_port;
use crate::process::{Daemon, tied};

const ACCESS_KEY: &str = "mainstay-reader";
const SECRET: &str = "kept-from-logs-and-errors";

/// A store, and the key for it.
#[derive(Debug, Clone)]
pub struct StoreWay {
    /// Where it listens.
    pub endpoint: String,
    /// The key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_key_file: PathBuf,
}

/// The server, running or not.
#[derive(Debug)]
pub struct S3Server {
    daemon: Option<Daemon>,
    port: u16,
    folder: TempDir,
}

impl S3Server {
    /// A port and a secret for it; it does not run yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new() -> Result<Self> {
        let made = Self { daemon: None, port: free_port()?, folder: tempfile::tempdir()? };
        made.set_secret(SECRET)?;
        Ok(made)
    }

    /// The way to it.
    #[must_use]
    pub fn way(&self) -> StoreWay {
        StoreWay {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            access_key_id: ACCESS_KEY.to_owned(),
            secret_key_file: self.secret_file(),
        }
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// Writes another secret for the reader; the server keeps its own.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_secret(&self, secret: &str) -> Result<()> {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.secret_file())?;
        Ok(writeln!(file, "{secret}")?)
    }

    /// The secret is the right one again.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn right_secret(&self) -> Result<()> {
        self.set_secret(SECRET)
    }

    /// Whether `text` holds the secret.
    #[must_use]
    pub fn is_told_in(text: &str) -> bool {
        text.contains(SECRET)
    }

    /// Serves the buckets in `root`.
    ///
    /// # Errors
    /// When the tool is missing (`scripts/setup.sh s3`) or does not answer.
    pub async fn start(&mut self, root: &Path) -> Result<()> {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/s3s-fs");
        let tool = tool.canonicalize().with_context(|| format!("{}: run scripts/setup.sh s3", tool.display()))?;
        let mut command = tied(tool);
        let port = self.port.to_string();
        command.args(["--host", "127.0.0.1", "--port", &port, "--access-key", ACCESS_KEY, "--secret-key", SECRET]).arg(root);
        self.daemon = Some(Daemon::start("s3s-fs", command, &self.folder.path().join("log"))?);
        eventually("the store to answer", SOON, async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok().then_some(()))
        })
        .await
    }

    /// It is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the store runs")?.kill()
    }
}
