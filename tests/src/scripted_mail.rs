//! A mail server that fails as it is told: refuses, is slow, dies before or after it took the message. It remembers every message
//! that it took and whether the sender was told so. Plain SMTP, for what the real server can't be made to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::mailbox::Mail;

/// How it treats the connections that come from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Accepts,
    /// Answers every recipient with 452 (try later).
    RefusesForNow,
    /// Answers every recipient with 550 (never).
    RefusesForGood,
    /// Takes everything, each answer so late.
    Slow(Duration),
    /// Closes the connection when the message begins, before it took it.
    DiesBeforeTaking,
    /// Takes the message, then dies before saying so.
    DiesAfterTaking,
    /// Closes the connection at once.
    Dead,
}

/// A message that it took.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The message.
    pub mail: Mail,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// Whether the sender was told that it was taken.
    pub acknowledged: bool,
}

#[derive(Debug)]
struct Shared {
    mood: Mutex<Mood>,
    taken: Mutex<Vec<Taken>>,
    attempts: Mutex<u64>,
    conversations: AtomicUsize,
    handing_over: AtomicUsize,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct ScriptedMailServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl ScriptedMailServer {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mood: Mutex::new(mood),
            taken: Mutex::default(),
            attempts: Mutex::default(),
            conversations: AtomicUsize::new(0),
            handing_over: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                *lock(&serving.attempts) += 1;
                let shared = Arc::clone(&serving);
                shared.conversations.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    converse(stream, &shared).await.unwrap_or_default();
                    shared.conversations.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How it treats connections from now on.
    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// The messages that it took so far.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.shared.taken).clone()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn conversations(&self) -> usize {
        self.shared.conversations.load(Ordering::SeqCst)
    }

    /// Mails that are being handed over now: begun, and not yet answered.
    #[must_use]
    pub fn handing_over(&self) -> usize {
        self.shared.handing_over.load(Ordering::SeqCst)
    }

    /// Connections so far.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        *lock(&self.shared.attempts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One SMTP conversation (RFC 5321, the part that a sender of notices uses).
async fn converse(stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut mood = *lock(&shared.mood);
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    let mut recipients = Vec::new();
    let mut under_way = None;
    if mood == Mood::Dead {
        return Ok(());
    }
    output.write_all(b"220 scripted.test.invalid ESMTP\r\n").await?;
    let mut line = String::new();
    while input.read_line(&mut line).await? > 0 {
        let command = line.trim_end().to_ascii_uppercase();
        // A kept-alive connection must feel a change of mood too.
        mood = *lock(&shared.mood);
        if let Mood::Slow(delay) = mood {
            tokio::time::sleep(delay).await;
        }
        let answer = match command.split([' ', ':']).next().unwrap_or_default() {
            _ if mood == Mood::Dead => return Ok(()),
            "EHLO" | "HELO" => "250-scripted.test.invalid\r\n250-8BITMIME\r\n250 SMTPUTF8",
            "RCPT" if mood == Mood::RefusesForNow => "452 4.2.2 mailbox full",
            "RCPT" if mood == Mood::RefusesForGood => "550 5.1.1 no such mailbox",
            "RCPT" => {
                recipients.push(between(&line, '<', '>').to_owned());
                "250 2.1.5 ok"
            }
            "DATA" if recipients.is_empty() => "503 5.5.1 no recipients",
            "DATA" if mood == Mood::DiesBeforeTaking => return Ok(()),
            "DATA" => {
                output.write_all(b"354 go on\r\n").await?;
                let raw = read_message(&mut input).await?;
                let acknowledged = mood != Mood::DiesAfterTaking;
                let taken = Taken { mail: Mail::parse(&raw)?, recipients: std::mem::take(&mut recipients), acknowledged };
                lock(&shared.taken).push(taken);
                if !acknowledged {
                    return Ok(());
                }
                "250 2.0.0 taken"
            }
            "QUIT" => {
                output.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            "RSET" => {
                recipients.clear();
                "250 2.0.0 ok"
            }
            "MAIL" => {
                under_way = Some(UnderWay::begins(shared));
                "250 2.1.0 ok"
            }
            "NOOP" => "250 2.1.0 ok",
            _ => "502 5.5.2 not here",
        };
        output.write_all(answer.as_bytes()).await?;
        output.write_all(b"\r\n").await?;
        if command == "DATA" || command == "RSET" {
            drop(under_way.take());
        }
        line.clear();
    }
    Ok(())
}

/// A mail between its first word and its answer.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begins(shared: &'a Shared) -> Self {
        shared.handing_over.fetch_add(1, Ordering::SeqCst);
        Self(&shared.handing_over)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn read_message(input: &mut BufReader<tokio::net::tcp::OwnedReadHalf>) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).await? == 0 {
            anyhow::bail!("the sender went away within the message");
        }
        if line == b".\r\n" {
            return Ok(raw);
        }
        // Dot-stuffing, RFC 5321 section 4.5.2.
        raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn between(line: &str, open: char, close: char) -> &str {
    line.split(open).nth(1).and_then(|rest| rest.split(close).next()).unwrap_or_default()
}
