//! The Unix socket between a command and the running agent: one JSON line asks, one JSON line answers.
//!
//! Only the agent's own user and root can open it. It answers `status`, `look` and `test`, and is told of patch news; nothing can be changed
//! through it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::check::ServiceState;
use mainstay_shared::ids::{RecordId, random_hex_128};
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::receipt::Receipt;
use mainstay_shared::record::{Payload, TestMessage};
use mainstay_shared::time_source::UnixMs;
use ring::rand::SystemRandom;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::status::{Facts, StatusReport};
use crate::checks::look;
use crate::lifecycle::StopSignal;

const MAX_LINE_BYTES: u64 = 64 << 10;
/// A command that asks nothing is let go after this.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Every check has a time limit of its own, and whoever asks waits no longer than this.
const LOOK_TIMEOUT: Duration = Duration::from_secs(65);
/// How long a test message waits for its receipt.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a command may ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Request {
    /// How it is.
    Status,
    /// Ask every business service now.
    Look,
    /// The administrator had the helper do something: the vendor shall hear of it now.
    PatchNews,
    /// Send a test message.
    Test {
        /// Who asks.
        note: String,
        /// Answer once it is accepted, without waiting for its receipt.
        #[serde(default)]
        no_wait: bool,
    },
}

/// What came of a test message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TestAnswer {
    /// Its mark, shown on both ends.
    pub(super) mark: String,
    /// Its record.
    pub(super) record: RecordId,
    /// The receipt that names it and when it was received; none if none came in time.
    pub(super) receipt: Option<(Receipt, UnixMs)>,
    /// The trouble with the contact, if there is any.
    pub(super) trouble: Option<String>,
}

/// Why a question has no answer.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    refused: String,
}

/// What the answering side needs.
pub(crate) struct Answering {
    /// Where the socket is made.
    pub(crate) state_dir: PathBuf,
    /// What `status` shows.
    pub(crate) facts: Facts,
    /// Has the story of patches look at the helper; none on a box without patches.
    pub(crate) patch_news: Option<Arc<Notify>>,
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// Answers until `stop`.
///
/// # Errors
/// When the socket can't be made.
pub(crate) async fn answer_requests(answering: Answering, stop: StopSignal) -> anyhow::Result<()> {
    let path = path_in(&answering.state_dir);
    // The spool's lock says that no other agent runs here: what lies there is left over.
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).with_context(|| format!("{}: the socket can't be made", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let mut asked = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if asked.len() < 8 => {
                    let (facts, news) = (answering.facts.clone(), answering.patch_news.clone());
                    asked.spawn_local(async move { answer(stream, &facts, news.as_deref()).await });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a local request can't be accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(ended) = asked.join_next() => {
                if let Err(error) = ended.context("a local request crashed")? {
                    tracing::debug!("a local request was not answered: {error:#}");
                }
            }
            () = stop.clone().requested() => {
                drop(std::fs::remove_file(&path));
                return Ok(());
            }
        }
    }
}

async fn answer(stream: UnixStream, facts: &Facts, patch_news: Option<&Notify>) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::time::timeout(ASK_TIMEOUT, BufReader::new(read.take(MAX_LINE_BYTES)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line)? {
        Request::Status => serde_json::to_string(&facts.report())?,
        Request::Look => serde_json::to_string(&look(&facts.checker, &facts.services).await)?,
        Request::PatchNews => {
            if let Some(news) = patch_news {
                news.notify_one();
            }
            serde_json::to_string(&())?
        }
        Request::Test { note, no_wait } => match send_test(facts, &note, no_wait).await {
            Ok(answer) => serde_json::to_string(&answer)?,
            Err(error) => serde_json::to_string(&Refusal { refused: format!("{error:#}") })?,
        },
    };
    write.write_all(answer.as_bytes()).await?;
    write.write_all(b"\n").await?;
    Ok(())
}

async fn send_test(facts: &Facts, note: &str, no_wait: bool) -> anyhow::Result<TestAnswer> {
    let mut receipts = facts.contact.receipts();
    let mark = random_hex_128(&SystemRandom::new())[..8].to_owned();
    let message = TestMessage { mark: mark.clone(), note: clean_text(note, MAX_TEXT_CHARS) };
    let record = facts.spool.push(Payload::Test(message)).await?;
    facts.contact.report_now.notify_one();
    if no_wait {
        return Ok(TestAnswer { mark, record, receipt: None, trouble: None });
    }
    let ours = async {
        loop {
            match receipts.recv().await {
                Ok(verified) if verified.names(&record) => return Some((verified.receipt, verified.body.received_at)),
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    let receipt = tokio::time::timeout(RECEIPT_TIMEOUT, ours).await.ok().flatten();
    Ok(TestAnswer { mark, record, receipt, trouble: facts.contact.facts().trouble })
}

/// What the running agent says of itself.
///
/// # Errors
/// When none runs, or this user may not ask it.
pub(super) async fn ask_status(state_dir: &Path) -> std::io::Result<StatusReport> {
    ask(state_dir, &Request::Status, ASK_TIMEOUT).await
}

/// What the business services answer at this moment, asked by the running agent: what it knew before may be of the version before.
///
/// # Errors
/// When none runs, or this user may not ask it.
pub(super) async fn ask_look(state_dir: &Path) -> std::io::Result<BTreeMap<String, ServiceState>> {
    ask(state_dir, &Request::Look, LOOK_TIMEOUT).await
}

/// Has the running agent tell the vendor what the helper has done.
///
/// # Errors
/// When none runs, or this user may not ask it: then it tells when it looks by itself.
pub(super) async fn tell_patch_news(state_dir: &Path) -> std::io::Result<()> {
    ask(state_dir, &Request::PatchNews, ASK_TIMEOUT).await
}

/// Has the running agent send a test message.
///
/// # Errors
/// When none runs, or this user may not ask it.
pub(super) async fn ask_test(state_dir: &Path, note: String, no_wait: bool) -> std::io::Result<TestAnswer> {
    ask(state_dir, &Request::Test { note, no_wait }, RECEIPT_TIMEOUT + ASK_TIMEOUT).await
}

async fn ask<A: DeserializeOwned>(state_dir: &Path, request: &Request, timeout: Duration) -> std::io::Result<A> {
    let exchange = async {
        let mut stream = UnixStream::connect(path_in(state_dir)).await?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match serde_json::from_str::<Refusal>(&answer) {
            Ok(refusal) => Err(std::io::Error::other(refusal.refused)),
            Err(_) => Ok(serde_json::from_str(&answer)?),
        }
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}
