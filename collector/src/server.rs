//! The two listeners: the agents' (TLS, asks for a client certificate) and the browsers' (asks for none; plain only on loopback).
//!
//! One accept loop for both: limits on connections, on the time of handshake and headers, on the life of strangers; a soft stop
//! lets what is under way end. What is said over a connection is decided in `agent_api` and the web router, never here.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::agent_api::{self, Door, Peer};
use crate::appliances::authority::Authority;
use crate::flow::World;
use crate::flow::directives_wait::Board;
use crate::flow::intake_worker;
use crate::intake::counts::Counts;
use crate::lifecycle::{Lifecycle, Stop};

mod tls;

/// Agents hold a connection each while they poll.
const AGENT_CONNECTIONS: usize = 20_000;
/// Of these, connections without a client certificate: strangers can't take the places of appliances.
const STRANGERS: usize = 500;
const WEB_CONNECTIONS: usize = 2_000;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HEADERS_WITHIN: Duration = Duration::from_secs(20);
/// A connection without a client certificate enrols or renews and goes.
const STRANGER_STAYS: Duration = Duration::from_secs(180);
/// What is under way at a soft stop may take this long to end.
const DRAINS_WITHIN: Duration = Duration::from_secs(10);
const PAUSE_WHEN_FULL: Duration = Duration::from_millis(100);

/// A listener that serves.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// Where, the port known.
    pub(crate) address: SocketAddr,
    /// Intake's figures, for `/metrics`.
    pub(crate) counts: Counts,
}

/// Binds the agents' listener and starts everything behind it: intake, the board of long polls, the accept loop.
///
/// # Errors
/// If the address can't be bound, the database was never initialised, or an address of the config names no host.
pub(crate) async fn serve_agents(world: &World, authority: Arc<Authority>, lifecycle: &Lifecycle) -> anyhow::Result<Serving> {
    let acceptor = tls::agents(&authority, world)?;
    raise_descriptors();
    let listener = bind(world.config.agents_listen, "agents.listen").await?;
    let address = listener.local_addr()?;
    let (intake, worker) = intake_worker::open(world).await?;
    let (board, counts) = (Board::default(), intake.counts.clone());
    lifecycle.spawn("intake", worker.run());
    lifecycle.spawn("directives", board.clone().run(world.clone(), lifecycle.stop()));
    let door = Arc::new(Door::new(world.clone(), authority, intake, board, lifecycle.stop()));
    let (stop, strangers) = (lifecycle.stop(), Arc::new(Semaphore::new(STRANGERS)));
    lifecycle.spawn("agents' listener", async move {
        let most = AGENT_CONNECTIONS;
        accept(listener, most, stop.clone(), move |stream, address| {
            agent_connection(Arc::clone(&door), Arc::clone(&strangers), acceptor.clone(), (stream, address), stop.clone())
        })
        .await
    });
    Ok(Serving { address, counts })
}

/// Binds the browsers' listener and serves `router` there. The peer's address reaches handlers as `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// If the address can't be bound or the TLS files can't be read.
pub(crate) async fn serve_web(world: &World, router: axum::Router, lifecycle: &Lifecycle) -> anyhow::Result<SocketAddr> {
    let acceptor = world.config.web_tls.as_ref().map(tls::web).transpose()?;
    let listener = bind(world.config.web_listen, "web.listen").await?;
    let address = listener.local_addr()?;
    let stop = lifecycle.stop();
    lifecycle.spawn("browsers' listener", async move {
        accept(listener, WEB_CONNECTIONS, stop.clone(), move |stream, peer| {
            web_connection(router.clone(), acceptor.clone(), stream, peer, stop.clone())
        })
        .await
    });
    Ok(address)
}

/// Every connection is a descriptor, and the usual soft limit of 1024 is far below what polls need.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, now = ?limit.current, "the limit of open files could not be raised");
    }
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{what}: listening on {address}"))
}

/// Accepts until the soft stop, then lets connections end.
async fn accept<C, F>(listener: TcpListener, most: usize, stop: Stop, connection: C) -> anyhow::Result<()>
where
    C: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.stopping() => break,
            place = Arc::clone(&places).acquire_owned() => place?,
        };
        let (stream, address) = tokio::select! {
            () = stop.stopping() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(PAUSE_WHEN_FULL).await;
                    continue;
                }
            },
        };
        let served = connection(stream, address);
        connections.spawn(async move {
            served.await;
            drop(place);
        });
        while let Some(ended) = connections.try_join_next() {
            ended.context("a connection crashed")?;
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAINS_WITHIN, drained).await.is_err() {
        tracing::info!("connections that did not end in time are cut");
    }
    Ok(())
}

async fn agent_connection(
    door: Arc<Door>,
    strangers: Arc<Semaphore>,
    acceptor: TlsAcceptor,
    (stream, address): (TcpStream, SocketAddr),
    stop: Stop,
) {
    // In boxes, each gone when it is over: a connection lives long, its handshake does not.
    let Some((stream, protocol)) = Box::pin(handshake(&acceptor, stream, address)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let fingerprint = certificate.map(|leaf| crate::appliances::authority::fingerprint(leaf));
    let stranger = fingerprint.is_none();
    let place = if stranger { strangers.try_acquire().ok() } else { None };
    if stranger && place.is_none() {
        tracing::debug!(peer = %address, "too many connections without a client certificate");
        return;
    }
    let peer = Peer { address, fingerprint };
    let service = service_fn(move |request| {
        let (door, peer) = (Arc::clone(&door), peer.clone());
        async move { Ok::<_, Infallible>(agent_api::answer(&door, &peer, request).await) }
    });
    let serving = Box::pin(converse(stream, protocol, service, stop));
    if stranger {
        drop(tokio::time::timeout(STRANGER_STAYS, serving).await);
    } else {
        serving.await;
    }
    drop(place);
}

async fn web_connection(router: axum::Router, acceptor: Option<TlsAcceptor>, stream: TcpStream, address: SocketAddr, stop: Stop) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        router.clone().oneshot(request)
    });
    match acceptor {
        None => converse(stream, Protocol::Http1, service, stop).await,
        Some(acceptor) => {
            if let Some((stream, protocol)) = handshake(&acceptor, stream, address).await {
                converse(stream, protocol, service, stop).await;
            }
        }
    }
}

/// What the handshake agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(Box<tokio_rustls::server::TlsStream<TcpStream>>, Protocol)> {
    match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            Some((Box::new(stream), protocol))
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %address, %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(peer = %address, "a TLS handshake took too long");
            None
        }
    }
}

/// Speaks HTTP until the other end goes, a limit is met, or the soft stop has let the present request end.
async fn converse<IO, S, B>(stream: IO, protocol: Protocol, service: S, stop: Stop)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = axum::http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (io, ended) = (TokioIo::new(stream), |error: Option<hyper::Error>| {
        if let Some(error) = error {
            tracing::debug!(%error, "a connection ended early");
        }
    });
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_headers(64).max_buf_size(64 << 10);
            let connection = pin!(builder.serve_connection(io, service));
            ended(until_stopped(connection, http1::Connection::graceful_shutdown, stop).await.err());
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(32)
                .max_header_list_size(32 << 10)
                .keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(20));
            let connection = pin!(builder.serve_connection(io, service));
            ended(until_stopped(connection, http2::Connection::graceful_shutdown, stop).await.err());
        }
    }
}

/// Drives a connection to its end; after the soft stop, to the end of what is under way.
async fn until_stopped<C, E>(mut connection: Pin<&mut C>, shut: fn(Pin<&mut C>), stop: Stop) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.stopping() => {
            shut(connection.as_mut());
            connection.await
        }
    }
}

#[cfg(test)]
mod tests;
