//! A network that can be broken: a TCP proxy on 127.0.0.1 that cuts, delays, half-closes and loses answers.
//! It carries bytes and understands none of them, so that TLS stays end to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the link is just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Bytes pass, each chunk late by so much.
    Passes { delay: Duration },
    /// Every connection is reset and none is made.
    Cut,
    /// Nothing passes and nothing closes: what a firewall that drops packets looks like.
    Silent,
    /// Connections numbered up to this one pass questions and lose their answers, and themselves with them.
    LosesAnswers { up_to: u64 },
    /// The far side hears the end of the stream after the next chunk; the near side hears nothing of it.
    HalfCloses,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    answers_lost: AtomicU64,
    bytes: AtomicU64,
}

/// A link to one address. Its connections end with it.
#[derive(Debug)]
pub struct LinkProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl LinkProxy {
    /// A link to `upstream`, passing everything.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the link")?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::Passes { delay: Duration::ZERO });
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream, seen, Arc::clone(&counts)));
        Ok(Self { address, weather, counts, _tasks: tasks })
    }

    /// Where the near side connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything passes again.
    pub fn restore(&self) {
        self.delay(Duration::ZERO);
    }

    /// Everything passes, each chunk late by `delay` in each direction.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_replace(Weather::Passes { delay });
    }

    /// Closes every connection and refuses new ones at once.
    pub fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }

    /// Nothing passes, nothing closes.
    pub fn fall_silent(&self) {
        self.weather.send_replace(Weather::Silent);
    }

    /// On the connections that stand now, the next question arrives and its answer is lost. New connections pass.
    pub fn lose_answers(&self) {
        self.weather.send_replace(Weather::LosesAnswers { up_to: self.connections() });
    }

    /// The next chunk of each connection arrives, then the far side hears the end of the stream.
    pub fn half_close(&self) {
        self.weather.send_replace(Weather::HalfCloses);
    }

    /// Connections that were made through it so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Bytes that it has carried so far, both ways.
    #[must_use]
    pub fn bytes_passed(&self) -> u64 {
        self.counts.bytes.load(Ordering::SeqCst)
    }

    /// Answers that [`LinkProxy::lose_answers`] has lost so far.
    #[must_use]
    pub fn answers_lost(&self) -> u64 {
        self.counts.answers_lost.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, weather: watch::Receiver<Weather>, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *weather.borrow() == Weather::Cut {
            continue;
        }
        let number = counts.connections.fetch_add(1, Ordering::SeqCst) + 1;
        connections.spawn(carry(near, upstream, number, weather.clone(), Arc::clone(&counts)));
    }
}

/// One connection, until either side ends it or the link is cut.
async fn carry(near: TcpStream, upstream: SocketAddr, number: u64, mut weather: watch::Receiver<Weather>, counts: Arc<Counts>) {
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let questions = pass(near_in, far_out, Way::Question, number, weather.clone(), Arc::clone(&counts));
    let answers = pass(far_in, near_out, Way::Answer, number, weather.clone(), counts);
    let both = async { tokio::join!(questions, answers) };
    tokio::select! {
        _ = both => {}
        _ = weather.wait_for(|w| *w == Weather::Cut) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Question,
    Answer,
}

/// One direction of one connection. Ends by dropping its halves, which the other side sees as the end of the stream.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    number: u64,
    mut weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    let mut chunk = vec![0u8; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if weather.wait_for(|w| *w != Weather::Silent).await.is_err() {
            return;
        }
        let now = *weather.borrow();
        match now {
            Weather::Passes { delay } if !delay.is_zero() => tokio::time::sleep(delay).await,
            Weather::LosesAnswers { up_to } if way == Way::Answer && number <= up_to => {
                counts.answers_lost.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Weather::Cut => return,
            Weather::Passes { .. } | Weather::LosesAnswers { .. } | Weather::HalfCloses | Weather::Silent => {}
        }
        counts.bytes.fetch_add(length as u64, Ordering::SeqCst);
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
        if now == Weather::HalfCloses && way == Way::Question {
            to.shutdown().await.ok();
        }
    }
    to.shutdown().await.ok();
}
