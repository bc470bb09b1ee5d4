//! Mail as its reader sees it: who it is for, its subject and text decoded, its Message-ID, the raw bytes beside them.

use anyhow::{Context as _, Result};
use mail_parser::{Address, MessageParser};

/// One message that has arrived.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its bytes.
    pub raw: Vec<u8>,
    /// `To` addresses.
    pub to: Vec<String>,
    /// `From` address.
    pub from: String,
    /// Decoded subject.
    pub subject: String,
    /// Decoded text body.
    pub text: String,
    /// Without the angle brackets.
    pub message_id: String,
}

impl Mail {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is no message or has no Message-ID.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let message = MessageParser::default().parse(raw).context("a mail that can be read")?;
        let addresses = |a: Option<&Address<'_>>| -> Vec<String> {
            a.into_iter().flat_map(Address::iter).filter_map(|one| one.address().map(str::to_owned)).collect()
        };
        Ok(Self {
            raw: raw.to_vec(),
            to: addresses(message.to()),
            from: addresses(message.from()).pop().unwrap_or_default(),
            subject: message.subject().unwrap_or_default().to_owned(),
            text: message.body_text(0).map(|text| text.into_owned()).unwrap_or_default(),
            message_id: message.message_id().context("a mail with a Message-ID")?.to_owned(),
        })
    }

    /// A header as it stands, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        MessageParser::default().parse(&self.raw)?.header_raw(name).map(|value| value.trim().to_owned())
    }
}
