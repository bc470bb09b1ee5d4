//! A real mail server: a private postfix with its queue, configuration and mailboxes in a temporary folder, offering STARTTLS,
//! taking mail for `test.invalid` into one Maildir and relaying nothing. It needs root, as postfix changes users.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::certificate::ServerCertificate;
use crate::mailbox::Mail;
use crate::patience::{SOON, eventually};
use crate::postgres::free_port;
use crate::process::{Daemon, tied};

/// The user and group that own the mailboxes (`nobody`).
const NOBODY: u32 = 65534;

/// The services of Debian's `master.cf` that delivery needs: name, type, wake-up, process limit, command.
const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// A running postfix; stopped and removed when dropped.
#[derive(Debug)]
pub struct Postfix {
    port: u16,
    certificate: ServerCertificate,
    _daemon: Daemon,
    folder: TempDir,
}

impl Postfix {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When the test is not root, postfix is not installed, or does not start: says what it logged.
    pub async fn start() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the private mail server needs root (postfix changes users): run the tests as root");
        }
        let folder = tempfile::Builder::new().prefix("mainstay-mail-").tempdir()?;
        let certificate = ServerCertificate::new()?;
        let port = free_port()?;
        prepare(folder.path(), port, &certificate)?;
        let configuration = folder.path().join("etc");
        let check = Command::new("/usr/sbin/postfix").arg("-c").arg(&configuration).arg("check").output();
        let check = check.context("postfix is not installed (scripts/setup.sh mail)")?;
        if !check.status.success() {
            bail!("postfix check: {}", String::from_utf8_lossy(&check.stderr));
        }
        let mut command = tied("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(&configuration).arg("-d").current_dir("/");
        let mut daemon = Daemon::start("postfix", command, &folder.path().join("master.log"))?;
        eventually("postfix to greet", SOON, async || {
            daemon.must_run()?;
            Ok(greets(port).await.then_some(()))
        })
        .await?;
        Ok(Self { port, certificate, _daemon: daemon, folder })
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

    /// The same, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.certificate.ca_pem
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

fn prepare(folder: &Path, port: u16, certificate: &ServerCertificate) -> Result<()> {
    for part in ["etc/postfix-files.d", "etc/dynamicmaps.cf.d", "spool", "data", "vmail", "logs"] {
        fs::create_dir_all(folder.join(part))?;
    }
    // postfix's own users must be able to walk in.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    certificate.write_to(folder)?;
    fs::copy("/etc/postfix/postfix-files", folder.join("etc/postfix-files")).context("postfix is not installed")?;
    fs::write(folder.join("etc/dynamicmaps.cf"), "")?;
    let owned = Command::new("chown").arg("postfix").arg(folder.join("data")).status()?;
    if !owned.success() {
        bail!("there is no user postfix: install postfix (scripts/setup.sh mail)");
    }
    chown(folder.join("vmail"), Some(NOBODY), Some(NOBODY))?;
    let d = folder.display();
    let main = format!(
        "compatibility_level=3.6\nqueue_directory={d}/spool\ndata_directory={d}/data\ncommand_directory=/usr/sbin\n\
         daemon_directory=/usr/lib/postfix/sbin\nmail_owner=postfix\nsetgid_group=postdrop\nmyhostname=mx.test.invalid\n\
         mydestination=\ninet_interfaces=127.0.0.1\ninet_protocols=ipv4\nmynetworks=127.0.0.0/8\n\
         virtual_mailbox_domains=test.invalid\nvirtual_mailbox_base={d}/vmail\nvirtual_mailbox_maps=static:all/\n\
         virtual_uid_maps=static:{NOBODY}\nvirtual_gid_maps=static:{NOBODY}\nvirtual_minimum_uid=100\nalias_maps=\n\
         alias_database=\nlocal_recipient_maps=\nmaillog_file={d}/logs/mail.log\nmaillog_file_prefixes={d}/logs\n\
         default_transport=error:no outbound\nrelay_transport=error:no outbound\n\
         smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination\nsmtpd_tls_security_level=may\n\
         smtpd_tls_cert_file={d}/cert.pem\nsmtpd_tls_key_file={d}/key.pem\n"
    );
    fs::write(folder.join("etc/main.cf"), main)?;
    fs::write(folder.join("etc/master.cf"), format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}"))?;
    Ok(())
}
