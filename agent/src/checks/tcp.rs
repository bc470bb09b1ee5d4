//! A TCP connection: it must be accepted, and if something is expected, that must be heard.
//!
//! Refused and too late are down; a name without an address, or no way to send at all, is unknown.

use std::io;
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::resolve::resolve;
use super::{Checker, Found};
use crate::config::TcpCheck;

/// What is expected must come within so much.
const MAX_HEARD_BYTES: usize = 4 << 10;

pub(super) async fn ask(checker: &Checker, check: &TcpCheck, object: &str, limit: Duration) -> Found {
    tokio::time::timeout(limit, converse(checker, check, object)).await.unwrap_or_else(|_| Found::timeout(limit))
}

async fn converse(checker: &Checker, check: &TcpCheck, object: &str) -> Found {
    let Some((host, port)) = check.address.rsplit_once(':') else { return Found::cannot_run("no port") };
    let addresses = match resolve(&checker.aside, object, host, port.parse().unwrap_or(0)).await {
        Ok(addresses) => addresses,
        Err(error) => return Found::new(ServiceState::Unknown, "resolve", error.to_string()),
    };
    let mut stream = match TcpStream::connect(&addresses[..]).await {
        Ok(stream) => stream,
        Err(error) => return unconnected(&check.address, &error),
    };
    if let Some(send) = &check.send
        && let Err(error) = stream.write_all(send.as_bytes()).await
    {
        return Found::down("closed", format!("{} took nothing: {error}", check.address));
    }
    match &check.expect {
        None => Found::up(format!("{} accepts", check.address)),
        Some(expected) => listen(&mut stream, expected).await,
    }
}

async fn listen(stream: &mut TcpStream, expected: &str) -> Found {
    let mut heard = Vec::new();
    let mut buffer = [0u8; 1024];
    while heard.len() < MAX_HEARD_BYTES {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
        }
        if heard.windows(expected.len()).any(|part| part == expected.as_bytes()) {
            return Found::up(format!("it said {expected:?}"));
        }
    }
    Found::down("body", format!("expected {expected:?}, heard {:?}", String::from_utf8_lossy(&heard[..heard.len().min(200)])))
}

/// What a failed connection means.
pub(super) fn unconnected(address: &str, error: &io::Error) -> Found {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Found::down("refused", format!("{address} refused the connection")),
        io::ErrorKind::TimedOut => Found::down("timeout", format!("{address} did not answer")),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            Found::down("closed", format!("{address} broke the connection off"))
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Found::down("unreachable", format!("{address}: {error}"))
        }
        _ => Found::cannot_run(format!("{address}: {error}")),
    }
}
