//! A customer's way out: an HTTP proxy on 127.0.0.1 that knows CONNECT and basic authentication (RFC 9110, 9.3.6 and 11.7), nothing else.
//! It carries bytes and understands none of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The proxy; it stops when dropped.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// One that lets `username` with `password` pass.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(username: &str, password: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let wanted: Arc<str> = format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))).into();
        let (tunnels, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (Arc::clone(&tunnels), Arc::clone(&refused));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (wanted, (tunnels, refused)) = (Arc::clone(&wanted), counts.clone());
                connections.spawn(async move { carry(stream, &wanted, &tunnels, &refused).await.unwrap_or_default() });
            }
        });
        Ok(Self { address, tunnels, refused, _tasks: tasks })
    }

    /// Its address for a configuration.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tunnels that it opened.
    #[must_use]
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(Ordering::SeqCst)
    }

    /// Requests that it refused with 407.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

async fn carry(stream: TcpStream, wanted: &str, tunnels: &AtomicU64, refused: &AtomicU64) -> Result<()> {
    let mut near = BufReader::new(stream);
    let (mut target, mut shown) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if near.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("CONNECT ") {
            target = rest.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("proxy-authorization")
        {
            shown = value.trim().to_owned();
        }
    }
    if shown != wanted {
        refused.fetch_add(1, Ordering::SeqCst);
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"way out\"\r\nContent-Length: 0\r\n\r\n";
        return near.write_all(answer).await.context("refusing");
    }
    let mut far = TcpStream::connect(&target).await?;
    tunnels.fetch_add(1, Ordering::SeqCst);
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
