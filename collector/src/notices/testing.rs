//! A mail server that follows a script, and a customer with people, for tests. Test code only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mainstay_shared::severity::{Attribution, BusinessImpact};
use mainstay_shared::time_source::UnixMs;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{MailConfig, MailSecurity};
use crate::customers::{Contact, Customer, Language, Role, Site, Staff, store};
use crate::db::{Db, Turn, transact};
use crate::tickets::{Ticket, TicketState};

/// What the server does with the next mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Takes it.
    Take,
    /// Answers RCPT with this line.
    AnswerRcpt(&'static str),
    /// Takes the whole mail and hangs up before it answers.
    DropAfterData,
    /// Never answers the greeting.
    Hang,
}

/// A mail server on a free port; without a script it takes everything.
#[derive(Clone)]
pub(crate) struct ScriptedServer {
    pub(crate) port: u16,
    script: Arc<Mutex<VecDeque<Act>>>,
    received: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    /// Starts it.
    #[expect(clippy::disallowed_methods, reason = "a test double that ends with its test")]
    pub(crate) async fn start(script: &[Act]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            received: Arc::default(),
        };
        let inner = server.clone();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = inner.clone();
                drop(tokio::spawn(async move { drop(inner.talk(stream).await) }));
            }
        }));
        server
    }

    /// The mails whose data came whole, in order, acknowledged or not.
    pub(crate) fn received(&self) -> Vec<String> {
        self.received.lock().expect("no panic inside").clone()
    }

    /// How it is reached.
    pub(crate) fn config(&self) -> MailConfig {
        MailConfig {
            server: "127.0.0.1".into(),
            port: self.port,
            security: MailSecurity::None,
            ca_file: None,
            username: None,
            password_file: None,
            from: "Mainstay <support@vendor.example>".into(),
        }
    }

    fn next(&self) -> Act {
        self.script.lock().expect("no panic inside").pop_front().unwrap_or(Act::Take)
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut act = self.next();
        if act == Act::Hang {
            std::future::pending::<()>().await;
        }
        writer.write_all(b"220 mx\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let answer = match line.get(..4).unwrap_or(&line).to_ascii_uppercase().as_str() {
                "EHLO" => "250-mx\r\n250 8BITMIME",
                "RCPT" => match act {
                    Act::AnswerRcpt(answer) => {
                        act = self.next();
                        answer
                    }
                    _ => "250 ok",
                },
                "DATA" => {
                    writer.write_all(b"354 go on\r\n").await?;
                    let mut mail = String::new();
                    while let Some(line) = lines.next_line().await? {
                        if line == "." {
                            break;
                        }
                        mail.push_str(&line);
                        mail.push('\n');
                    }
                    self.received.lock().expect("no panic inside").push(mail);
                    if act == Act::DropAfterData {
                        return Ok(());
                    }
                    act = self.next();
                    "250 taken"
                }
                "QUIT" => return writer.write_all(b"221 bye\r\n").await,
                _ => "250 ok",
            };
            writer.write_all(answer.as_bytes()).await?;
            writer.write_all(b"\r\n").await?;
        }
        Ok(())
    }
}

/// A mail's header, unfolded.
pub(crate) fn header(mail: &str, name: &str) -> Option<String> {
    let start = mail.lines().position(|line| line.to_lowercase().starts_with(&format!("{}:", name.to_lowercase())))?;
    let mut lines = mail.lines().skip(start);
    let mut value = lines.next()?.split_once(':')?.1.trim().to_owned();
    for folded in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push(' ');
        value.push_str(folded.trim());
    }
    Some(value)
}

/// An account.
pub(crate) fn staff(username: &str, role: Role, language: Language) -> Staff {
    Staff {
        staff_id: format!("id-{username}"),
        username: username.into(),
        name: username.into(),
        email: format!("{username}@vendor.example"),
        phone: String::new(),
        role,
        language,
        created_at: UnixMs(0),
        disabled_at: None,
    }
}

/// A contact of customer `bank`.
pub(crate) fn contact(name: &str, site_id: Option<&str>) -> Contact {
    Contact {
        tenant_id: "bank".into(),
        contact_id: format!("c-{name}"),
        site_id: site_id.map(str::to_owned),
        name: name.into(),
        email: format!("{name}@bank.example"),
        phone: String::new(),
        language: Language::Zh,
    }
}

/// A service that refused three times, ten seconds apart.
fn grounds() -> serde_json::Value {
    let check = |attempt: i64| {
        serde_json::json!({ "check": "http", "kind": "http", "state": "down", "reason": "refused",
            "text": "127.0.0.1:8080 refused\nthe connection", "took_ms": 3, "attempt": attempt,
            "at": 1_799_999_970_000_i64 + (attempt - 1) * 10_000 })
    };
    serde_json::json!({ "about": "service", "seen": { "checks": [check(1), check(2), check(3)] } })
}

/// A ticket of customer `bank`.
pub(crate) fn ticket(number: i64, impact: BusinessImpact) -> Ticket {
    Ticket {
        tenant_id: "bank".into(),
        ticket_id: format!("T-{number:06}"),
        number,
        source: "agent".into(),
        state: TicketState::Open,
        cause: "service:web".into(),
        site_id: "main".into(),
        appliance_id: "0123456789abcdef0123456789abcdef".into(),
        component: "service:web".into(),
        code: "service_down".into(),
        summary: "service web is down: http (refused) 127.0.0.1:8080 refused the connection".into(),
        impact,
        severity: impact.severity(),
        presumed: false,
        reason: "service_down".into(),
        grounds: grounds().to_string(),
        attribution: Attribution::Unknown,
        assigned_to: None,
        taken_by: None,
        responded_by: None,
        opened_at: UnixMs(1_800_000_000_000),
        fault_at: UnixMs(1_799_999_970_000),
        responded_at: None,
        recovered_at: None,
        closed_at: None,
        changed_at: UnixMs(1_800_000_000_000),
    }
}

/// Writes the customer `bank`, its site `main`, one contact, one engineer who serves it and an operator.
pub(crate) async fn fill(db: &Db) -> anyhow::Result<()> {
    let secrets = store::Secrets {
        password_hash: String::new(),
        totp_secret: String::new(),
        totp_last_step: 0,
        failed_count: 0,
        locked_until_at: None,
    };
    transact!(db, Turn::Console, |tx| {
        for (tenant_id, name) in [("bank", "某银行"), (crate::customers::VENDOR_TENANT, "Mainstay")] {
            let customer =
                Customer { tenant_id: tenant_id.into(), name: name.into(), language: Language::Zh, created_at: UnixMs(0) };
            store::add_customer(tx, &customer).await?;
        }
        let site = Site {
            tenant_id: "bank".into(),
            site_id: "main".into(),
            name: "主机房".into(),
            city: "重庆".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        store::add_site(tx, &site).await?;
        store::add_contact(tx, &contact("wang", None)).await?;
        store::add_staff(tx, &staff("li", Role::SystemEngineer, Language::En), &secrets).await?;
        store::add_staff(tx, &staff("op", Role::Operator, Language::Zh), &secrets).await?;
        store::serve(tx, "bank", "id-li", Role::SystemEngineer).await?;
        sqlx::query("INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, $1, 0, 0)")
            .bind("0".repeat(32))
            .execute(&mut *tx)
            .await?;
        Ok(())
    });
    Ok(())
}
