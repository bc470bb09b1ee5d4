//! A door in front of PostgreSQL that understands enough of its protocol (version 3, frontend messages) to see a COMMIT go by, and
//! cuts the connection there: before the server hears it, after, or when the server's answer comes back. It can also hold it back, or
//! forget connections. What is cut leaves its sender without knowledge, which is the point.

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
    /// Nothing is cut: it waits at the door, with its connection and all older ones, until [`PostgresDoor::remember_connections`].
    HeldBack,
}

impl CutAt {
    /// Every place where it is cut.
    pub const ALL: [Self; 3] = [Self::BeforeTheServer, Self::AfterTheServer, Self::BeforeTheAnswer];
}

#[derive(Debug)]
struct Shared {
    /// The next cut, and how many COMMITs pass before it.
    order: Mutex<Option<(CutAt, u64)>>,
    cuts: AtomicU64,
    connections: AtomicU64,
    /// Connections numbered up to this one are silent.
    silent_up_to: watch::Sender<u64>,
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
        let shared = Arc::new(Shared {
            order: Mutex::default(),
            cuts: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            silent_up_to: watch::Sender::new(0),
        });
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

    /// On the connections that stand now, nothing passes any more and nothing closes. New ones pass.
    pub fn forget_connections(&self) {
        self.shared.silent_up_to.send_replace(self.shared.connections.load(Ordering::SeqCst));
    }

    /// What was silent passes again.
    pub fn remember_connections(&self) {
        self.shared.silent_up_to.send_replace(0);
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

    async fn passes(&self, number: u64) {
        // Its sender lives as long as `self`.
        self.silent_up_to.subscribe().wait_for(|up_to| number > *up_to).await.map(drop).unwrap_or_default();
    }
}

async fn carry(near: TcpStream, port: u16, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let swallow = AtomicBool::new(false);
    tokio::select! {
        _ = questions(near_in, far_out, number, &shared, &swallow) => {}
        _ = answers(far_in, near_out, number, &shared, &swallow) => {}
    }
    // The end of one that is silent is not heard either.
    shared.passes(number).await;
}

/// Message by message; the first ones (an SSL request, the start-up) have no type byte.
async fn questions(
    mut near: OwnedReadHalf,
    mut far: OwnedWriteHalf,
    number: u64,
    shared: &Shared,
    swallow: &AtomicBool,
) -> Result<()> {
    const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
    loop {
        let body = read_body(&mut near).await?;
        shared.passes(number).await;
        far.write_all(&framed(None, &body)).await?;
        if !body.starts_with(&SSL_REQUEST) {
            break;
        }
    }
    loop {
        let kind = near.read_u8().await?;
        let body = read_body(&mut near).await?;
        shared.passes(number).await;
        let cut = if is_commit(kind, &body) { shared.cuts_here() } else { None };
        if cut == Some(CutAt::HeldBack) {
            shared.silent_up_to.send_replace(number);
            shared.passes(number).await;
        }
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

async fn answers(
    mut far: OwnedReadHalf,
    mut near: OwnedWriteHalf,
    number: u64,
    shared: &Shared,
    swallow: &AtomicBool,
) -> Result<()> {
    let mut chunk = vec![0u8; 16 << 10];
    loop {
        let length = far.read(&mut chunk).await?;
        shared.passes(number).await;
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
