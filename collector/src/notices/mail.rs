//! The one way out for mail: SMTP with TLS, a private CA where one is named, time limits. It hands over one mail and says what
//! the server answered.
//!
//! Only the server's acknowledgement counts as sent. Errors never repeat a password (R33).

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::outbox::{Notice, Outcome};
use crate::config::{MailConfig, MailSecurity};

/// The longest a mail may take, connection included; shorter than the lease of its row.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(90);

/// The longest single answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The longest error kept with a notice, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// A ready way to the mail server.
pub(crate) struct Way {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    time_limit: Duration,
}

impl Way {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// If a file can't be read or holds no certificate.
    pub(crate) fn open(config: &MailConfig) -> anyhow::Result<Self> {
        let from: Mailbox = config.from.parse().context("mail.from")?;
        let tls = match config.security {
            MailSecurity::None => Tls::None,
            MailSecurity::StartTls => Tls::Required(tls_parameters(config)?),
            MailSecurity::Tls => Tls::Wrapper(tls_parameters(config)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.server)
            .port(config.port)
            .tls(tls)
            .timeout(Some(ANSWER_LIMIT))
            .hello_name(ClientId::Domain(from.email.domain().to_owned()));
        if let (Some(username), Some(file)) = (&config.username, &config.password_file) {
            let password = std::fs::read_to_string(file).with_context(|| format!("mail.password_file: {}", file.display()))?;
            let password = password.lines().next().unwrap_or_default().to_owned();
            builder = builder.credentials(Credentials::new(username.clone(), password));
        }
        Ok(Self { transport: builder.build(), from, time_limit: TIME_LIMIT })
    }

    /// Shortens the time that a mail may take.
    #[cfg(test)]
    pub(crate) fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Hands a notice over.
    pub(crate) async fn send(&self, notice: &Notice) -> Outcome {
        let message = match self.message(notice) {
            Ok(message) => message,
            Err(error) => return Outcome::Refused(short(&format!("it cannot be written as a mail: {error:#}"))),
        };
        match tokio::time::timeout(self.time_limit, self.transport.send(message)).await {
            Ok(Ok(_)) => Outcome::Acknowledged,
            Ok(Err(error)) => outcome_of(&error),
            Err(_) => Outcome::NotNow(format!("no answer within {} s", self.time_limit.as_secs())),
        }
    }

    /// The same notice makes the same mail, byte for byte, however often it is sent.
    fn message(&self, notice: &Notice) -> anyhow::Result<Message> {
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(notice.created_at.0).unwrap_or(0));
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, notice.recipient.parse().context("the recipient's address")?))
            .subject(&notice.title)
            .date(written_at)
            .message_id(Some(notice.message_id.clone()))
            .header(AutoSubmitted);
        if !notice.in_reply_to.is_empty() && notice.in_reply_to != notice.message_id {
            builder = builder.in_reply_to(notice.in_reply_to.clone()).references(notice.in_reply_to.clone());
        }
        Ok(builder.singlepart(SinglePart::plain(notice.body.clone()))?)
    }
}

fn tls_parameters(config: &MailConfig) -> anyhow::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(config.server.clone());
    if let Some(file) = &config.ca_file {
        let pem = std::fs::read(file).with_context(|| format!("mail.ca_file: {}", file.display()))?;
        let certificate = Certificate::from_pem(&pem).with_context(|| format!("mail.ca_file: {}", file.display()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().context("preparing TLS to the mail server")
}

/// A permanent answer refuses the mail; one about our own access (RFC 4954: 530, 534, 535, 538) or none at all does not.
fn outcome_of(error: &lettre::transport::smtp::Error) -> Outcome {
    let told = error.to_string();
    let access = error.status().map(u16::from).is_some_and(|code| matches!(code, 530 | 534 | 535 | 538));
    if error.is_permanent() && !access { Outcome::Refused(short(&told)) } else { Outcome::NotNow(short(&told)) }
}

fn short(error: &str) -> String {
    super::facts::one_line(error).chars().take(MAX_ERROR_CHARS).collect()
}

/// RFC 3834: no machine shall answer this mail.
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests;
