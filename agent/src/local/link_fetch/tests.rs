//! Downloads by a link from a page that says what the real one would never, or cuts the line: what a person is told, and what stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mainstay_shared::time_source::TimeSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::words::Lang;
use super::super::{Exit, Output};
use super::LinkFetch;
use crate::config::PatchSettings;
use crate::local::link::{FOLDER, file_name};
use crate::uplink::{Link, LinkWay, TrustedClock};

/// A page that gives these answers one after the other, and hangs up after each; what it was asked.
async fn page(answers: Vec<Vec<u8>>) -> (Link, Arc<Mutex<Vec<String>>>, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::parse(&format!("http://{}/p/{}", listener.local_addr().unwrap(), "a".repeat(64))).unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, mut serving) = (Arc::clone(&asked), tokio::task::JoinSet::new());
    serving.spawn(async move {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            log.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
            stream.write_all(&answer).await.ok();
            stream.shutdown().await.ok();
        }
    });
    (link, asked, serving)
}

fn file(status: &str, length: usize, more: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n{more}\r\n");
    [head.as_bytes(), bytes].concat()
}

async fn fetched(link: &Link, max_bytes: u64, state_dir: &std::path::Path) -> Result<(), (Exit, String)> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let time = TimeSource::system();
    let way = LinkWay::to(link, Vec::new(), None, &TrustedClock::new(time.clone(), state_dir)).unwrap();
    let settings =
        PatchSettings { enabled: true, helper_socket: PathBuf::new(), root: PathBuf::new(), max_kib_per_s: 0, max_bytes };
    let output = Output { json: true, lang: Lang::En };
    let fetch = LinkFetch { way: &way, settings: &settings, state_dir, time: &time, output };
    fetch.run(link).await.map_err(|failure| (failure.exit, format!("{:#}", failure.error)))
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_and_a_whole_one_is_not_fetched_again() {
    let state = tempfile::tempdir().unwrap();
    let whole = [b"MPATCH01".as_slice(), &[7; 5000]].concat();
    let sha256 = hex::encode(ring::digest::digest(&ring::digest::SHA256, &whole).as_ref());
    let tag = format!("etag: \"{sha256}\"\r\n");
    let rest = format!("{tag}content-range: bytes 1000-{}/{}\r\n", whole.len() - 1, whole.len());
    let answers = vec![
        file("200 OK", whole.len(), &tag, &whole[..1000]),
        file("206 Partial Content", whole.len() - 1000, &rest, &whole[1000..]),
    ];
    let (link, asked, serving) = page(answers).await;
    fetched(&link, 1 << 20, state.path()).await.unwrap();
    assert_eq!(std::fs::read(state.path().join(FOLDER).join(file_name(&link))).unwrap(), whole);
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|head| head.starts_with("post /p/") && head.contains("/download http/1.1")), "{asked:?}");
    assert!(asked[1].contains("range: bytes=1000-") && asked[1].contains(&format!("if-range: \"{sha256}\"")), "{asked:?}");
    drop(serving);
    fetched(&link, 1 << 20, state.path()).await.expect("what is here is taken, though nobody answers any more");
}

#[tokio::test]
async fn what_is_no_download_is_told_with_the_next_step_and_keeps_nothing() {
    let redirect = |to: &str| format!("HTTP/1.1 303 See Other\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let html = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_vec();
    let rows: Vec<(&str, Vec<u8>, Exit, &str)> = vec![
        ("expired", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), Exit::Refused, "has expired"),
        ("used up", redirect("/p/a?said=refused_too_many_downloads"), Exit::Refused, "used up"),
        ("over", redirect("/p/a?said=refused_offer_over"), Exit::Refused, "taken back by the vendor"),
        ("withdrawn", redirect("/p/a?said=refused_file_not_good"), Exit::Refused, "withdrawn or replaced"),
        ("a word of a later collector", redirect("/p/a?said=refused_moon"), Exit::Refused, "refused_moon"),
        ("a sign-in page", html, Exit::Refused, "does a sign-in page or a proxy stand in between"),
        ("another file", file("200 OK", 6, "", b"<html>"), Exit::Refused, "no .mpatch"),
        ("too large", file("200 OK", 3 << 20, "", b"MPATCH01"), Exit::Refused, "max_bytes"),
        ("not now", b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".to_vec(), Exit::Unavailable, "status 503"),
    ];
    for (sentence, answer, exit, text) in rows {
        let state = tempfile::tempdir().unwrap();
        let (link, _, _serving) = page(vec![answer]).await;
        let (found, why) = fetched(&link, 1 << 20, state.path()).await.expect_err(sentence);
        assert!(found == exit && why.contains(text), "{sentence}: {found:?} {why}");
        assert!(!why.contains(&"a".repeat(64)), "{sentence}: the link is not printed");
        let kept = std::fs::metadata(state.path().join(FOLDER).join(file_name(&link))).unwrap().len();
        assert_eq!(kept, 0, "{sentence}");
    }
    let state = tempfile::tempdir().unwrap();
    let nobody = Link::parse(&format!("http://127.0.0.1:1/p/{}", "a".repeat(64))).unwrap();
    let (exit, why) = fetched(&nobody, 1 << 20, state.path()).await.expect_err("nobody listens");
    assert!(exit == Exit::Unavailable && why.contains("check the network"), "{why}");
}
