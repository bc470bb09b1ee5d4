//! A load that real agents would make, sent as cheaply as can be: one thread, one kept-alive TLS connection per appliance, HTTP/1.1
//! written by hand. What stands on the wire is what the agent sends, byte for byte: its headers, its JSON, its compression.
//!
//! Closed loop: so many requests are under way at once, each worker going round its own appliances. `speaker` makes the messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mainstay_shared::time_source::TimeSource;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

pub mod enrol;
pub mod speaker;

use speaker::{Page, Speaker};

/// Every so many reports one opens or clears a fault.
const FAULT_EVERY: u64 = 100;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One appliance with its connection.
pub struct Peer {
    stream: Box<dyn Duplex>,
    speaker: Speaker,
}

/// What a load led to.
#[derive(Debug, Default)]
pub struct Figures {
    /// Requests answered with 200.
    pub taken: usize,
    /// Requests answered otherwise.
    pub refused: usize,
    /// How long it lasted.
    pub took: Duration,
    /// Of every taken request, in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    /// Of those among them that opened or cleared a fault, sorted.
    pub fault_latencies_us: Vec<u32>,
}

impl Peer {
    /// Connects an appliance, over TLS if `tls` is given.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(address: SocketAddr, tls: Option<ClientConfig>, speaker: Speaker) -> Result<Self> {
        let tcp = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Duplex> = match tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::IpAddress(address.ip().into());
                Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.context("the TLS handshake")?)
            }
        };
        Ok(Self { stream, speaker })
    }

    /// Sends one message and reads its answer whole; answers the status.
    async fn ask(&mut self, page: &mut Page, inward: &mut Vec<u8>, with_fault: bool) -> Result<u16> {
        self.speaker.write(page, with_fault)?;
        self.stream.write_all(&page.out).await?;
        self.stream.flush().await?;
        inward.clear();
        let (status, body_at, length) = loop {
            if self.stream.read_buf(inward).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some(head) = head_of(inward)? {
                break head;
            }
        };
        while inward.len() < body_at + length {
            if self.stream.read_buf(inward).await? == 0 {
                bail!("the answer was cut off");
            }
        }
        if status == 200 {
            self.speaker.heard(&inward[body_at..body_at + length])?;
        }
        Ok(status)
    }
}

/// Status, begin and length of the body, once the head is whole.
fn head_of(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("the answer's head")?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).with_context(|| format!("an answer: {head}"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok(Some((status, end + 4, length.unwrap_or(0))))
}

/// Drives all peers, `at_once` requests under way, for `lasting`. Gives the peers back.
///
/// # Errors
/// When a connection breaks.
pub async fn drive(peers: Vec<Peer>, at_once: usize, lasting: Duration, all_faults: bool) -> Result<(Figures, Vec<Peer>)> {
    let clock = TimeSource::system();
    let mut hands: Vec<Vec<Peer>> = (0..at_once.min(peers.len())).map(|_| Vec::new()).collect();
    let count = hands.len();
    for (n, peer) in peers.into_iter().enumerate() {
        hands[n % count].push(peer);
    }
    let mut workers = JoinSet::new();
    for (n, hand) in hands.into_iter().enumerate() {
        let first = FAULT_EVERY * n as u64 / count as u64;
        let every = if all_faults { 1 } else { FAULT_EVERY };
        workers.spawn(work(hand, clock.clone(), lasting, (first, every)));
    }
    let (mut figures, mut back) = (Figures::default(), Vec::new());
    while let Some(done) = workers.join_next().await {
        let (one, hand) = done??;
        figures.taken += one.taken;
        figures.refused += one.refused;
        figures.latencies_us.extend(one.latencies_us);
        figures.fault_latencies_us.extend(one.fault_latencies_us);
        back.extend(hand);
    }
    figures.took = clock.monotonic();
    figures.latencies_us.sort_unstable();
    figures.fault_latencies_us.sort_unstable();
    Ok((figures, back))
}

async fn work(
    mut hand: Vec<Peer>,
    clock: TimeSource,
    lasting: Duration,
    (mut n, every): (u64, u64),
) -> Result<(Figures, Vec<Peer>)> {
    let (mut figures, mut page) = (Figures::default(), Page::new()?);
    let mut inward = Vec::new();
    'all: loop {
        for peer in &mut hand {
            if clock.monotonic() >= lasting {
                break 'all;
            }
            n += 1;
            let with_fault = n % every == 0;
            let began = clock.monotonic();
            if peer.ask(&mut page, &mut inward, with_fault).await? != 200 {
                figures.refused += 1;
                continue;
            }
            let took_us = u32::try_from((clock.monotonic() - began).as_micros()).unwrap_or(u32::MAX);
            figures.taken += 1;
            figures.latencies_us.push(took_us);
            if with_fault {
                figures.fault_latencies_us.push(took_us);
            }
        }
    }
    Ok((figures, hand))
}

/// The value below which `percent` of the sorted values lie, in milliseconds.
#[must_use]
pub fn percentile_ms(sorted_us: &[u32], percent: usize) -> f64 {
    let index = (sorted_us.len() * percent / 100).min(sorted_us.len().saturating_sub(1));
    sorted_us.get(index).map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
}
