//! The link does what its verbs say, seen from a client behind it.

use std::time::Duration;

use anyhow::Result;
use e2e::link::LinkProxy;
use e2e::patience::{SOON, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that sends back what it hears, and "end" when the stream ends.
async fn echo() -> Result<(std::net::SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut talks = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            talks.spawn(async move {
                let mut heard = [0u8; 64];
                while let Ok(length @ 1..) = stream.read(&mut heard).await {
                    stream.write_all(&heard[..length]).await.ok();
                }
                stream.write_all(b"end").await.ok();
            });
        }
    });
    Ok((address, tasks))
}

/// Says a word and gives what comes back; empty when the connection ended.
async fn say(stream: &mut TcpStream, word: &str) -> String {
    let mut heard = [0u8; 64];
    if stream.write_all(word.as_bytes()).await.is_err() {
        return String::new();
    }
    match tokio::time::timeout(SOON, stream.read(&mut heard)).await {
        Ok(Ok(length)) => String::from_utf8_lossy(&heard[..length]).into_owned(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn a_cut_link_ends_connections_and_makes_none_until_it_is_restored() -> Result<()> {
    let (server, _tasks) = echo().await?;
    let link = LinkProxy::to(server).await?;
    let mut stream = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut stream, "one").await, "one");
    link.cut();
    assert_eq!(say(&mut stream, "two").await, "");
    let mut during = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut during, "three").await, "");
    link.restore();
    let mut after = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut after, "four").await, "four");
    assert_eq!(link.connections(), 2);
    Ok(())
}

#[tokio::test]
async fn a_lost_answer_was_heard_by_the_server_and_new_connections_pass() -> Result<()> {
    let (server, _tasks) = echo().await?;
    let link = LinkProxy::to(server).await?;
    let mut old = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut old, "one").await, "one");
    link.lose_answers();
    assert_eq!(say(&mut old, "two").await, "");
    assert_eq!(link.answers_lost(), 1);
    let mut new = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut new, "three").await, "three");
    Ok(())
}

#[tokio::test]
async fn a_half_closed_link_still_carries_the_answer() -> Result<()> {
    let (server, _tasks) = echo().await?;
    let link = LinkProxy::to(server).await?;
    let mut stream = TcpStream::connect(link.address()).await?;
    link.half_close();
    stream.write_all(b"one").await?;
    let mut all = String::new();
    stream.read_to_string(&mut all).await?;
    assert_eq!(all, "oneend");
    Ok(())
}

#[tokio::test]
async fn a_silent_link_holds_everything_and_lets_it_go_when_restored() -> Result<()> {
    let (server, _tasks) = echo().await?;
    let link = LinkProxy::to(server).await?;
    let mut stream = TcpStream::connect(link.address()).await?;
    assert_eq!(say(&mut stream, "one").await, "one");
    link.fall_silent();
    stream.write_all(b"two").await?;
    let mut heard = [0u8; 3];
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut heard)).await.is_err());
    link.delay(Duration::from_millis(10));
    eventually("the held word", SOON, async || Ok(stream.read_exact(&mut heard).await.ok())).await?;
    assert_eq!(&heard, b"two");
    Ok(())
}
