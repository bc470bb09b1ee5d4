//! Checks against real listeners, real programs and made-up process trees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::check::ServiceState::{Degraded, Down, Unknown, Up};
use mainstay_shared::time_source::UnixMs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{HttpCheck, ProcessCheck, Statuses, TcpCheck};

const LONG: Duration = Duration::from_secs(20);

fn check(kind: CheckKind) -> Check {
    Check { name: "c".to_owned(), timeout: LONG, kind }
}

async fn ask(kind: CheckKind) -> CheckResult {
    Checker::here(TimeSource::system(), ClockReference::default(), Workers::default()).ask("s", &check(kind), 1).await
}

async fn ask_within(limit: Duration, kind: CheckKind) -> CheckResult {
    Checker::here(TimeSource::system(), ClockReference::default(), Workers::default())
        .ask("s", &Check { timeout: limit, ..check(kind) }, 1)
        .await
}

fn said(result: &CheckResult) -> (ServiceState, &str) {
    (result.state, result.reason.as_str())
}

fn http(url: String) -> HttpCheck {
    HttpCheck {
        url,
        head: false,
        expect_status: Statuses::success(),
        expect_body: None,
        ca_file: None,
        slower_than: None,
        cert_warn_days: 14,
    }
}

fn tcp(address: String) -> TcpCheck {
    TcpCheck { address, send: None, expect: None }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: &str) {
    let mut asked = [0u8; 1024];
    if stream.read(&mut asked).await.is_ok() {
        drop(stream.write_all(reply.as_bytes()).await);
        drop(stream.shutdown().await);
    }
}

/// A listener that gives every connection the same answer.
async fn listener(tasks: &mut JoinSet<()>, reply: &'static str, tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => answer(stream, reply).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, reply).await;
                    }
                }
            }
        }
    });
    port
}

/// A port on which nobody listens.
async fn shut_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address").port()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall ok\n";

#[tokio::test]
async fn a_web_service_is_judged_by_status_body_and_time() {
    let mut tasks = JoinSet::new();
    let good = format!("http://127.0.0.1:{}/", listener(&mut tasks, OK, None).await);
    let sick = format!("http://127.0.0.1:{}/", listener(&mut tasks, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", None).await);
    let rude = format!("http://127.0.0.1:{}/", listener(&mut tasks, "what?\r\n", None).await);
    let shut = format!("http://127.0.0.1:{}/", shut_port().await);
    let expecting = |text: &str| Some(text.to_owned());
    for (row, check, expected) in [
        ("it answers", http(good.clone()), (Up, "ok")),
        ("it says what it should", HttpCheck { expect_body: expecting("all ok"), ..http(good.clone()) }, (Up, "ok")),
        ("it says something else", HttpCheck { expect_body: expecting("well"), ..http(good.clone()) }, (Down, "body")),
        ("it answers late", HttpCheck { slower_than: Some(Duration::ZERO), ..http(good.clone()) }, (Degraded, "slow")),
        ("it answers with an error", http(sick), (Down, "status")),
        ("it speaks another language", http(rude), (Down, "closed")),
        ("nobody listens", http(shut), (Down, "refused")),
        ("its name has no address", http("http://nowhere.invalid/".to_owned()), (Unknown, "resolve")),
    ] {
        let result = ask(CheckKind::Http(check)).await;
        assert_eq!(said(&result), expected, "{row}: {}", result.text);
    }
}

#[tokio::test]
async fn a_service_that_accepts_and_says_nothing_is_down_at_its_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("its address").to_string();
    let limit = Duration::from_millis(200);
    assert_eq!(said(&ask_within(limit, CheckKind::Http(http(format!("http://{address}/")))).await), (Down, "timeout"));
    let expecting = TcpCheck { expect: Some("220".to_owned()), ..tcp(address) };
    assert_eq!(said(&ask_within(limit, CheckKind::Tcp(expecting)).await), (Down, "timeout"));
}

/// A TLS server whose certificate, for `localhost`, ends in `days`; with the file of the CA that signed it.
fn tls_server(dir: &Path, days: i64) -> (TlsAcceptor, std::path::PathBuf) {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(vec![]).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let end = TimeSource::system().now().to_utc() + chrono::Duration::days(days) + chrono::Duration::hours(1);
    let (year, month, day) = (chrono::Datelike::year(&end), chrono::Datelike::month(&end), chrono::Datelike::day(&end));
    params.not_after = rcgen::date_time_ymd(year, u8::try_from(month).expect("a month"), u8::try_from(day).expect("a day"));
    let certificate = params.signed_by(&key, &rcgen::Issuer::new(ca, &ca_key)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a server");
    let file = dir.join(format!("ca{days}.pem"));
    fs::write(&file, ca_certificate.pem()).expect("a file");
    (TlsAcceptor::from(Arc::new(config)), file)
}

#[tokio::test]
async fn certificates_are_verified_and_their_end_is_told_ahead() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tasks = JoinSet::new();
    for (row, days, trusted, expected) in [
        ("a good one", 90, true, (Up, "ok")),
        ("one that ends soon", 5, true, (Degraded, "certificate")),
        ("one that ended", -5, true, (Down, "certificate")),
        ("one that nobody here trusts", 90, false, (Down, "certificate")),
    ] {
        let (acceptor, mut ca_file) = tls_server(dir.path(), days);
        if !trusted {
            ca_file = tls_server(dir.path(), 91).1;
        }
        let port = listener(&mut tasks, OK, Some(acceptor)).await;
        let check = HttpCheck { ca_file: Some(ca_file), ..http(format!("https://localhost:{port}/")) };
        let result = ask(CheckKind::Http(check)).await;
        assert_eq!(said(&result), expected, "{row}: {}", result.text);
    }
    let check = HttpCheck { ca_file: Some(dir.path().join("none.pem")), ..http("https://localhost:1/".to_owned()) };
    assert_eq!(said(&ask(CheckKind::Http(check)).await), (Unknown, "cannot_run"));
}

#[tokio::test]
async fn a_wrong_clock_calls_no_certificate_invalid_once_the_right_time_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tasks = JoinSet::new();
    let (acceptor, ca_file) = tls_server(dir.path(), 90);
    let port = listener(&mut tasks, OK, Some(acceptor)).await;
    let check = check(CheckKind::Http(HttpCheck { ca_file: Some(ca_file), ..http(format!("https://localhost:{port}/")) }));
    let right = TimeSource::system().now();
    let at_1970 = TimeSource::manual(UnixMs(0));
    at_1970.raise_floor(right);
    assert_eq!(Checker::here(at_1970, ClockReference::default(), Workers::default()).ask("s", &check, 1).await.state, Up);
    let ahead = TimeSource::manual(right.plus(Duration::from_secs(10 * 365 * 86_400)));
    let checker = Checker::here(ahead.clone(), ClockReference::default(), Workers::default());
    assert_eq!(said(&checker.ask("s", &check, 1).await), (Down, "certificate"));
    checker.clock.tell(right, &ahead);
    assert_eq!(checker.ask("s", &check, 1).await.state, Up);
}

#[tokio::test]
async fn a_port_is_judged_by_whether_it_accepts_and_what_it_says() {
    let mut tasks = JoinSet::new();
    let open = format!("127.0.0.1:{}", listener(&mut tasks, "220 ready\r\n", None).await);
    let conversing =
        |expect: &str| TcpCheck { send: Some("hello\n".to_owned()), expect: Some(expect.to_owned()), ..tcp(open.clone()) };
    assert_eq!(said(&ask(CheckKind::Tcp(tcp(open.clone()))).await), (Up, "ok"));
    assert_eq!(said(&ask(CheckKind::Tcp(conversing("220"))).await), (Up, "ok"));
    assert_eq!(said(&ask(CheckKind::Tcp(conversing("250"))).await), (Down, "body"));
    assert_eq!(said(&ask(CheckKind::Tcp(tcp(format!("127.0.0.1:{}", shut_port().await)))).await), (Down, "refused"));
    assert_eq!(said(&ask(CheckKind::Tcp(tcp("nowhere.invalid:80".to_owned()))).await), (Unknown, "resolve"));
}

#[tokio::test]
async fn processes_are_found_by_name_and_command_line() {
    let proc = tempfile::tempdir().expect("a folder");
    for (pid, stat, cmdline) in [
        ("10", "10 (portal-worker) S 1", "/opt/portal-worker\0--queue\0mail\0"),
        ("11", "11 (portal-worker) Z 1", ""),
        ("12", "12 (a-name-longer-t) S 1", "/opt/a-name-longer-than-15\0"),
        ("13", "13 (odd) name) S 1", "odd\0"),
        ("self", "10 (portal-worker) S 1", "/opt/portal-worker\0"),
    ] {
        let folder = proc.path().join(pid);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("stat"), stat).expect("a file");
        fs::write(folder.join("cmdline"), cmdline).expect("a file");
    }
    let checker = Checker {
        proc: proc.path().to_owned(),
        ..Checker::here(TimeSource::system(), ClockReference::default(), Workers::default())
    };
    let text = |text: &str| Some(text.to_owned());
    for (row, process, cmdline, min_count, state) in [
        ("by its name, zombies left out", text("portal-worker"), None, 1, Up),
        ("fewer than there must be", text("portal-worker"), None, 2, Down),
        ("by a name longer than the kernel keeps", text("a-name-longer-than-15"), None, 1, Up),
        ("by its arguments", None, text("--queue mail"), 1, Up),
        ("by both", text("portal-worker"), text("--queue print"), 1, Down),
        ("with a bracket in its name", text("odd) name"), None, 1, Up),
        ("not there", text("nothing"), None, 1, Down),
    ] {
        let kind = CheckKind::Process(ProcessCheck { process, cmdline, min_count });
        assert_eq!(checker.ask("s", &check(kind), 1).await.state, state, "{row}");
    }
}

#[tokio::test]
async fn without_systemd_a_unit_is_unknown() {
    let result = ask(CheckKind::Unit("no-such-unit-for-mainstay.service".to_owned())).await;
    assert_eq!(result.state, Unknown, "{result:?}");
}

fn script(dir: &Path, name: &str, text: &str) -> Vec<String> {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    vec![path.display().to_string()]
}

#[tokio::test]
async fn a_plugin_sees_a_clean_environment_and_its_output_is_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let environment = ask(CheckKind::Plugin(script(dir.path(), "env", "echo $(env | cut -d= -f1 | sort)"))).await;
    assert_eq!(environment.text, "LC_ALL PATH PWD", "nothing of the agent's own");
    let flood = script(dir.path(), "flood", "yes x | head -c 5000000; echo; echo '|a=1'; exit 1");
    let result = ask(CheckKind::Plugin(flood)).await;
    assert_eq!((said(&result), result.text.as_str()), ((Degraded, "exit"), "x"));
    let missing = ask(CheckKind::Plugin(vec!["/nowhere/check_x".to_owned()])).await;
    assert_eq!(said(&missing), (Unknown, "cannot_run"));
}

/// Whether the process is there and no zombie.
fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn dies(pid: &str) {
    for _ in 0..2000 {
        if !alive(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} still lives");
}

#[tokio::test]
async fn at_its_limit_a_plugin_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let pids = dir.path().join("pids").display().to_string();
    let forking = script(dir.path(), "fork", &format!("sleep 600 & echo $! > {pids}; echo $$ >> {pids}; sleep 600"));
    let result = ask_within(Duration::from_secs(1), CheckKind::Plugin(forking)).await;
    assert_eq!(said(&result), (Down, "timeout"));
    for pid in fs::read_to_string(&pids).expect("the pids").lines() {
        dies(pid).await;
    }
}

#[tokio::test]
async fn a_plugin_that_nobody_waits_for_any_more_is_killed_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let pids = dir.path().join("pids");
    let text = format!("sleep 600 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; sleep 600", pids.display());
    let asking = ask(CheckKind::Plugin(script(dir.path(), "fork", &text)));
    let written = async {
        while !pids.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        result = asking => panic!("it ended by itself: {result:?}"),
        () = written => {}
    }
    for pid in fs::read_to_string(&pids).expect("the pids").lines() {
        dies(pid).await;
    }
}

#[tokio::test]
async fn a_child_that_holds_the_output_does_not_hold_up_the_check() {
    let dir = tempfile::tempdir().expect("a folder");
    let pids = dir.path().join("pids").display().to_string();
    let leaving = script(dir.path(), "leave", &format!("sleep 600 & echo $! > {pids}; echo 'OK - left one behind'"));
    let result = ask(CheckKind::Plugin(leaving)).await;
    assert_eq!((said(&result), result.text.as_str()), ((Up, "ok"), "OK - left one behind"));
    dies(fs::read_to_string(&pids).expect("the pid").trim()).await;
}

#[tokio::test]
async fn plugins_of_the_monitoring_plugins_are_understood() {
    let plugins = Path::new("/usr/lib/nagios/plugins");
    if !plugins.join("check_tcp").exists() {
        eprintln!("monitoring-plugins are not installed: not tried");
        return;
    }
    let mut tasks = JoinSet::new();
    let port = listener(&mut tasks, "220 ready\r\n", None).await.to_string();
    let argv = |name: &str, arguments: &[&str]| {
        let program = plugins.join(name).display().to_string();
        CheckKind::Plugin(std::iter::once(program).chain(arguments.iter().map(|word| (*word).to_owned())).collect())
    };
    let open = ask(argv("check_tcp", &["-H", "127.0.0.1", "-p", &port])).await;
    assert_eq!(open.state, Up, "{open:?}");
    assert!(open.perf_data.starts_with("time="), "{open:?}");
    let shut = shut_port().await.to_string();
    assert_eq!(ask(argv("check_tcp", &["-H", "127.0.0.1", "-p", &shut])).await.state, Down);
    for (code, state) in [("0", Up), ("1", Degraded), ("2", Down), ("3", Unknown)] {
        assert_eq!(ask(argv("check_dummy", &[code, "a text"])).await.state, state, "check_dummy {code}");
    }
}
