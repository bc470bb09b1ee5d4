//! The watch hears the collector while its database answers, and not a moment longer.

use std::sync::Arc;

use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::config::{self, Config, WatchConfig};
use crate::db::Db;
use crate::db::testing::both_databases;
use crate::notices::testing::fill;

both_databases!(a_watch_is_pinged_while_the_database_answers, a_watch_that_refuses_is_told_without_its_address);

async fn world(db: &Db, url: String) -> World {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "[agents]\naddresses = [\"https://a.example\"]\n[web]\npublic_url = \"https://b.example\"\n")
        .expect("writes");
    let config = config::load(&path).expect("good settings");
    drop(rustls::crypto::ring::default_provider().install_default());
    World {
        config: Arc::new(Config { watch: Some(WatchConfig { url, interval: Duration::from_secs(60) }), ..config }),
        db: db.clone(),
        time: TimeSource::manual(UnixMs(0)),
        rng: SystemRandom::new(),
        changes: watch::channel(0).1,
        look_now: Arc::default(),
        repository: None,
    }
}

/// Answers one request with `answer` and says what was asked.
async fn answer_once(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.expect("a ping");
    let mut asked = vec![0_u8; 4096];
    let read = stream.read(&mut asked).await.expect("a request");
    stream.write_all(answer.as_bytes()).await.expect("answers");
    String::from_utf8_lossy(&asked[..read]).into_owned()
}

async fn a_watch_is_pinged_while_the_database_answers(db: Db) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}/ping/token", listener.local_addr().expect("an address"));
    let (world, client) = (world(&db, url).await, client().expect("a client"));
    assert!(once(&world, &client).await.is_err(), "a database that was never set up is no working collector");
    fill(&db).await.expect("fills");
    let (asked, pinged) =
        tokio::join!(answer_once(&listener, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"), once(&world, &client));
    pinged.expect("pinged");
    assert!(asked.starts_with("GET /ping/token HTTP/1.1"), "{asked}");
}

async fn a_watch_that_refuses_is_told_without_its_address(db: Db) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}/ping/token", listener.local_addr().expect("an address"));
    fill(&db).await.expect("fills");
    let (world, client) = (world(&db, url).await, client().expect("a client"));
    let refusal = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (_, refused) = tokio::join!(answer_once(&listener, refusal), once(&world, &client));
    let refused = format!("{:#}", refused.expect_err("refused"));
    assert!(refused.contains("503") && !refused.contains("token"), "{refused}");
    drop(listener);
    let gone = format!("{:#}", once(&world, &client).await.expect_err("nobody there"));
    assert!(!gone.contains("token"), "{gone}");
}
