//! A real mail server (a private postfix) over STARTTLS with a private CA.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_shared::time_source::UnixMs;

use super::*;

const MAIN_CF: &str = "compatibility_level=3.6
queue_directory=$D/spool
data_directory=$D/data
command_directory=/usr/sbin
daemon_directory=/usr/lib/postfix/sbin
mail_owner=postfix
setgid_group=postdrop
myhostname=mx.test.invalid
mydestination=
inet_interfaces=127.0.0.1
inet_protocols=ipv4
mynetworks=127.0.0.0/8
virtual_mailbox_domains=test.invalid
virtual_mailbox_base=$D/vmail
virtual_mailbox_maps=static:all/
virtual_uid_maps=static:65534
virtual_gid_maps=static:65534
virtual_minimum_uid=100
alias_maps=
alias_database=
local_recipient_maps=
maillog_file=$D/logs/mail.log
maillog_file_prefixes=$D/logs
default_transport=error:no outbound
relay_transport=error:no outbound
smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination
smtpd_tls_security_level=encrypt
smtpd_tls_cert_file=$D/cert.pem
smtpd_tls_key_file=$D/key.pem
";

const MASTER_CF: &str = "127.0.0.1:$PORT inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

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
        let d = dir.path();
        std::fs::set_permissions(d, std::fs::Permissions::from_mode(0o755)).expect("may be entered");
        for folder in ["etc/postfix-files.d", "etc/dynamicmaps.cf.d", "spool", "data", "vmail", "logs"] {
            std::fs::create_dir_all(d.join(folder)).expect("a folder");
        }
        std::fs::copy("/etc/postfix/postfix-files", d.join("etc/postfix-files")).expect("postfix is installed");
        std::fs::write(d.join("etc/dynamicmaps.cf"), "").expect("writes");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port();
        let place = d.display().to_string();
        std::fs::write(d.join("etc/main.cf"), MAIN_CF.replace("$D", &place)).expect("writes");
        std::fs::write(d.join("etc/master.cf"), MASTER_CF.replace("$PORT", &port.to_string())).expect("writes");
        Self::certificates(d);
        run(Command::new("chown").arg("postfix").arg(d.join("data")));
        run(Command::new("chown").arg("65534:65534").arg(d.join("vmail")));
        run(Command::new("postfix").arg("-c").arg(d.join("etc")).arg("check").stderr(Stdio::null()));
        let master = Command::new("/usr/lib/postfix/sbin/master")
            .arg("-c")
            .arg(d.join("etc"))
            .arg("-d")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postfix starts");
        Self { dir, port, master }
    }

    fn certificates(dir: &Path) {
        let (ca_key, key) = (rcgen::KeyPair::generate().expect("a key"), rcgen::KeyPair::generate().expect("a key"));
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "private mail CA");
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("parameters");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        for (name, pem) in [("ca.pem", ca_certificate.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(dir.join(name), pem).expect("writes");
        }
        std::fs::set_permissions(dir.join("key.pem"), std::fs::Permissions::from_mode(0o600)).expect("private");
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

fn run(command: &mut Command) {
    assert!(command.status().expect("runs").success(), "{command:?}");
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
    let way = Way::open(&postfix.config(Some(postfix.dir.path().join("ca.pem")))).expect("a way");
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
