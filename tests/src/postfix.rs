//! A real mail server: the private postfix of `scripts/mail-server.sh` in a temporary folder, offering STARTTLS, taking mail for
//! `test.invalid` into one Maildir and relaying nothing. It needs root, as postfix changes users.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::mailbox::Mail;
use crate::patience::{SOON, eventually};
use crate::postgres::free_port;
use crate::process::{Daemon, tied};

/// A running postfix; stopped and removed when dropped.
#[derive(Debug)]
pub struct Postfix {
    port: u16,
    _daemon: Daemon,
    folder: TempDir,
}

impl Postfix {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When the test is not root, postfix is not installed, or does not start: says what it logged.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-mail-").tempdir()?;
        let port = free_port()?;
        let mut command = tied(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/mail-server.sh"));
        command.arg(folder.path()).arg(port.to_string());
        let mut daemon = Daemon::start("postfix", command, &folder.path().join("master.log"))?;
        eventually("postfix to greet", SOON, async || {
            daemon.must_run()?;
            Ok(greets(port).await.then_some(()))
        })
        .await?;
        Ok(Self { port, _daemon: daemon, folder })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client must trust to speak TLS with it; a file in the server's folder.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Everything in the mailbox, in the order of arrival.
    ///
    /// # Errors
    /// When a message can't be read.
    pub fn mails(&self) -> Result<Vec<Mail>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for part in ["new", "cur"] {
            let Ok(entries) = fs::read_dir(self.folder.path().join("vmail/all").join(part)) else { continue };
            files.extend(entries.flatten().map(|e| e.path()));
        }
        files.sort();
        files.iter().map(|file| Mail::parse(&fs::read(file)?)).collect()
    }

    /// What it logged.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("logs/mail.log")).unwrap_or_default()
    }
}

async fn greets(port: u16) -> bool {
    use tokio::io::AsyncReadExt as _;
    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut word = [0u8; 3];
    stream.read_exact(&mut word).await.is_ok() && &word == b"220"
}
