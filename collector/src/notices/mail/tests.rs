//! A real mail server (the private postfix of `scripts/mail-server.sh`) over STARTTLS with a private CA.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_shared::time_source::UnixMs;

use super::*;

/// A private postfix; it ends with this value.
struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
    master: Child,
}

impl Drop for Postfix {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.master.id().to_string()).status());
        drop(self.master.wait());
    }
}

impl Postfix {
    fn start() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port();
        let master = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/mail-server.sh"))
            .arg(dir.path())
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the mail server's script starts");
        Self { dir, port, master }
    }

    fn config(&self, ca_file: Option<PathBuf>) -> MailConfig {
        MailConfig {
            server: "localhost".into(),
            port: self.port,
            security: MailSecurity::StartTls,
            ca_file,
            username: None,
            password_file: None,
            from: "值守 <support@vendor.example>".into(),
        }
    }

    fn mails(&self) -> Vec<String> {
        let Ok(folder) = std::fs::read_dir(self.dir.path().join("vmail/all/new")) else { return Vec::new() };
        folder.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok()).collect()
    }
}

fn notice(recipient: &str) -> Notice {
    Notice {
        tenant_id: "bank".into(),
        notice_id: "n1".into(),
        subject_id: "T-000042".into(),
        kind: "opened".into(),
        recipient: recipient.into(),
        message_id: "<n1@vendor.example>".into(),
        title: "【严重故障】工单 T-000042 已开立".into(),
        body: "业务中断\n.\nFrom here\n".into(),
        in_reply_to: "<n0@vendor.example>".into(),
        state: "waiting".into(),
        tries: 1,
        last_error: String::new(),
        created_at: UnixMs(1_800_000_000_000),
        next_try_at: None,
        sent_at: None,
    }
}

async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test]
async fn a_real_server_takes_the_mail_over_starttls_with_a_private_ca_and_without_the_ca_nothing_is_sent() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let postfix = Postfix::start();
    let ca_file = postfix.dir.path().join("ca.pem");
    let way = until("the server's CA", async || Way::open(&postfix.config(Some(ca_file.clone()))).ok()).await;
    until("postfix", async || (way.send(&notice("ops@test.invalid")).await == Outcome::Acknowledged).then_some(())).await;
    let mail = until("the mail", async || postfix.mails().pop()).await;
    for part in ["Message-ID: <n1@vendor.example>", "In-Reply-To: <n0@vendor.example>", "Auto-Submitted: auto-generated", "utf-8"]
    {
        assert!(mail.contains(part), "{part} is missing in {mail}");
    }
    let refused = way.send(&notice("nobody@elsewhere.invalid")).await;
    assert!(matches!(&refused, Outcome::Refused(error) if error.contains("550")), "{refused:?}");
    let stranger = Way::open(&postfix.config(None)).expect("a way");
    assert!(matches!(stranger.send(&notice("ops@test.invalid")).await, Outcome::NotNow(_)));
    assert_eq!(postfix.mails().len(), 1);
}

#[tokio::test]
async fn the_same_notice_makes_the_same_mail_byte_for_byte() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let way = Way::open(&nowhere()).expect("a way");
    let first = way.message(&notice("ops@test.invalid")).expect("a mail").formatted();
    assert_eq!(first, way.message(&notice("ops@test.invalid")).expect("a mail").formatted());
}

#[tokio::test]
async fn a_recipient_that_is_no_address_is_refused_not_tried_again() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let way = Way::open(&nowhere()).expect("a way");
    assert!(matches!(way.send(&notice("a@b.example\r\nBcc: c@d.example")).await, Outcome::Refused(_)));
}

fn nowhere() -> MailConfig {
    MailConfig {
        server: "127.0.0.1".into(),
        port: 25,
        security: MailSecurity::None,
        ca_file: None,
        username: None,
        password_file: None,
        from: "support@vendor.example".into(),
    }
}
