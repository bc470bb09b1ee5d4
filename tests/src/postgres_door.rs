//! A door in front of PostgreSQL that understands enough of its protocol (version 3, frontend messages) to see a COMMIT go by, and
//! cuts the connection there: before the server hears it, after, or when the server's answer comes back. It can also fall silent.
//! What is cut leaves its sender without knowledge, which is the point.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where the connection of a COMMIT is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutAt {
    /// The server never hears it: nothing was committed.
    BeforeTheServer,
    /// The server has it on its socket, and nobody waits for the answer.
    AfterTheServer,
    /// The server has done it and answered; the answer is thrown away.
    BeforeTheAnswer,
}

impl CutAt {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::BeforeTheServer, Self::AfterTheServer, Self::BeforeTheAnswer];
}

#[derive(Debug)]
struct Shared {
    /// The next cut, and how many COMMITs pass before it.
    order: Mutex<Option<(CutAt, u64)>>,
    cuts: AtomicU64,
    silent: watch::Sender<bool>,
}

/// The door; its connections end with it.
#[derive(Debug)]
pub struct PostgresDoor {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl PostgresDoor {
    /// A door to the server on `port` of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the door")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { order: Mutex::default(), cuts: AtomicU64::new(0), silent: watch::Sender::new(false) });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(near, port, Arc::clone(&serving)));
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Its own port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts at the first COMMIT after `passing` more have passed.
    pub fn cut(&self, at: CutAt, passing: u64) {
        *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, passing));
    }

    /// Cuts made so far.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// From now on nothing passes and nothing closes (`true`), or everything passes again.
    pub fn fall_silent(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }
}

impl Shared {
    /// Whether this COMMIT is the one to cut at.
    fn cuts_here(&self) -> Option<CutAt> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match order.as_mut() {
            Some((at, 0)) => {
                let at = *at;
                *order = None;
                self.cuts.fetch_add(1, Ordering::SeqCst);
                Some(at)
            }
            Some((_, passing)) => {
                *passing -= 1;
                None
            }
            None => None,
        }
    }

    async fn passes(&self) {
        // Its sender lives as long as `self`.
        self.silent.subscribe().wait_for(|silent| !silent).await.map(drop).unwrap_or_default();
    }
}

async fn carry(near: TcpStream, port: u16, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let swallow = AtomicBool::new(false);
    tokio::select! {
        _ = questions(near_in, far_out, &shared, &swallow) => {}
        _ = answers(far_in, near_out, &shared, &swallow) => {}
    }
}

/// Message by message; the first ones (an SSL request, the start-up) have no type byte.
async fn questions(mut near: OwnedReadHalf, mut far: OwnedWriteHalf, shared: &Shared, swallow: &AtomicBool) -> Result<()> {
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    loop {
        let body = read_body(&mut near).await?;
        shared.passes().await;
        far.write_all(&framed(None, &body)).await?;
        if !body.starts_with(&SSL_REQUEST) {
            break;
        }
    }
    loop {
        let kind = near.read_u8().await?;
        let body = read_body(&mut near).await?;
        shared.passes().await;
        let cut = if is_commit(kind, &body) { shared.cuts_here() } else { None };
        if cut == Some(CutAt::BeforeTheServer) {
            return Ok(());
        }
        swallow.store(cut == Some(CutAt::BeforeTheAnswer), Ordering::SeqCst);
        far.write_all(&framed(Some(kind), &body)).await?;
        if cut == Some(CutAt::AfterTheServer) {
            return Ok(());
        }
    }
}

async fn answers(mut far: OwnedReadHalf, mut near: OwnedWriteHalf, shared: &Shared, swallow: &AtomicBool) -> Result<()> {
    let mut chunk = vec![0u8; 16 << 10];
    loop {
        let length = far.read(&mut chunk).await?;
        shared.passes().await;
        if length == 0 || swallow.load(Ordering::SeqCst) {
            return Ok(());
        }
        near.write_all(&chunk[..length]).await?;
    }
}

/// A message's length counts itself.
async fn read_body(near: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    let length = near.read_u32().await?;
    let mut body = vec![0u8; usize::try_from(length)?.checked_sub(4).context("a message's length")?];
    near.read_exact(&mut body).await?;
    Ok(body)
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A simple query, or a statement to be prepared, that commits.
fn is_commit(kind: u8, body: &[u8]) -> bool {
    let text = match kind {
        b'Q' => body,
        // The statement's name stands before its text.
        b'P' => body.split(|byte| *byte == 0).nth(1).unwrap_or_default(),
        _ => return false,
    };
    text.trim_ascii_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"commit"))
}
