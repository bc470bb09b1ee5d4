//! A business service that a test can take down and bring back: a small HTTP server on a port of its own.
//! Down means that connections are refused, as when the real program has died.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The service, up from the start; it ends when dropped.
#[derive(Debug)]
pub struct BusinessService {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl BusinessService {
    /// Starts one on a free port, answering 200.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut service = Self {
            address: listener.local_addr()?,
            status: Arc::new(AtomicU16::new(200)),
            asked: Arc::default(),
            tasks: JoinSet::new(),
        };
        service.serve(listener);
        Ok(service)
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Requests that it has answered.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// From now on it answers with this status.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Takes it down: returns when its port refuses connections.
    pub async fn take_down(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Brings it back on the same port.
    ///
    /// # Errors
    /// When somebody else took the port.
    pub async fn bring_back(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await.with_context(|| format!("port {} again", self.address.port()))?;
        self.serve(listener);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let (status, asked) = (Arc::clone(&self.status), Arc::clone(&self.asked));
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
                connections.spawn(async move { answer(stream, &status, &asked).await.unwrap_or_default() });
            }
        });
    }
}

async fn answer(mut stream: TcpStream, status: &AtomicU16, asked: &AtomicU64) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 << 10 {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let status = status.load(Ordering::SeqCst);
    let body = format!("business as usual, {status}\n");
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
