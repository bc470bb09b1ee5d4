//! From a fault to its ticket and to its mail: a wire peer sends the record of a fault; the answer means that the ticket is committed;
//! a mail server of ours notes when it said that it took the mail. At rest, then beside a steady load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, MailWay, Settings};
use e2e::database::Engine;
use e2e::load::enrol::fleet;
use e2e::load::{drive, percentile_ms};
use e2e::patience::{SOON, eventually};
use e2e::wire::WireAgent;
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::Lane;
use mainstay_shared::record::Payload;
use mainstay_shared::time_source::TimeSource;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::growth::connect;
use super::number;

/// Appliances of the steady load, and reports under way at once.
const LOAD: (usize, usize) = (400, 4);

/// When each mail was acknowledged, since the clock's start.
type Accepted = Arc<Mutex<Vec<Duration>>>;

pub(crate) async fn run(engine: Engine) -> Result<()> {
    let (clock, accepted) = (TimeSource::system(), Accepted::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(mail_server(listener, clock.clone(), Arc::clone(&accepted)));
    let mail = MailWay { port, ca_file: None };
    let collector = Collector::serving(engine, Settings { mail: Some(mail), ..Settings::default() }).await?;
    let join = collector.join_string(&[]).await?;
    let base = format!("https://{}", collector.agents_listen());
    let mut peer = WireAgent::enrol(&base, &join, "measured").await?;
    println!("{:<12} {:>7} {:>20} {:>20} {:>18}", "", "faults", "ticket p50/p99 ms", "mail p50/p99 ms", "reports/s beside");
    measure("at rest", &mut peer, &clock, &accepted, 0.0).await?;
    let mut peers = Vec::new();
    for tls in fleet(&collector, LOAD.0.div_ceil(100), LOAD.0).await? {
        peers.push(connect(collector.agents_listen(), tls).await?);
    }
    let (before, peers) = drive(peers, LOAD.1, Duration::from_secs(2), false).await?;
    let rate = before.taken as f64 / before.took.as_secs_f64();
    let mut load = JoinSet::new();
    load.spawn(drive(peers, LOAD.1, Duration::from_secs(600), false));
    let measured = measure("under load", &mut peer, &clock, &accepted, rate).await;
    load.abort_all();
    measured
}

async fn measure(name: &str, peer: &mut WireAgent, clock: &TimeSource, accepted: &Accepted, rate: f64) -> Result<()> {
    let faults = number("BENCH_FAULTS", 200);
    let (mut to_ticket, mut to_mail) = (Vec::new(), Vec::new());
    for n in 0..faults {
        // Not in step with anything that the collector does on a period.
        tokio::time::sleep(Duration::from_millis(30 + u64::try_from(n * 37 % 97)?)).await;
        let known = count(accepted);
        let record = peer.record(Lane::Fault, raised(name, n, clock));
        let began = clock.monotonic();
        peer.report(vec![record]).await?;
        to_ticket.push(us(clock.monotonic() - began)?);
        let taken = eventually("the mail", SOON, async || Ok((count(accepted) > known).then(|| nth(accepted, known)))).await?;
        to_mail.push(us(taken.context("a mail")?.saturating_sub(began))?);
        // Every other mail of this ticket goes before the next fault.
        settled(accepted, clock).await;
    }
    to_ticket.sort_unstable();
    to_mail.sort_unstable();
    let shown = |taken: &[u32]| format!("{:.1} / {:.1}", percentile_ms(taken, 50), percentile_ms(taken, 99));
    println!("{name:<12} {faults:>7} {:>20} {:>20} {rate:>18.0}", shown(&to_ticket), shown(&to_mail));
    Ok(())
}

async fn settled(accepted: &Accepted, clock: &TimeSource) {
    while nth(accepted, count(accepted).saturating_sub(1))
        .is_some_and(|last| clock.monotonic() < last + Duration::from_millis(20))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn raised(name: &str, n: i64, clock: &TimeSource) -> Payload {
    let at = clock.now();
    Payload::Fault(FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new(format!("disk:/srv/{name}/{n}"), "disk_space_low"),
        episode: None,
        level: Level::Serious,
        summary: "96.2 % used".to_owned(),
        grounds: FaultGrounds { value: Some(96.2), unit: "percent".into(), threshold: Some(95.0), ..FaultGrounds::default() },
        at,
        present_at_start: false,
    })
}

fn us(took: Duration) -> Result<u32> {
    Ok(u32::try_from(took.as_micros())?)
}

fn count(accepted: &Accepted) -> usize {
    accepted.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn nth(accepted: &Accepted, n: usize) -> Option<Duration> {
    accepted.lock().unwrap_or_else(PoisonError::into_inner).get(n).copied()
}

async fn mail_server(listener: TcpListener, clock: TimeSource, accepted: Accepted) -> Result<()> {
    let mut conversations = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while conversations.try_join_next().is_some() {}
        conversations.spawn(converse(stream, clock.clone(), Arc::clone(&accepted)));
    }
}

/// The receiving half of SMTP, as far as a sender of notices needs it.
async fn converse(stream: TcpStream, clock: TimeSource, accepted: Accepted) -> Result<()> {
    stream.set_nodelay(true)?;
    let (input, mut output) = stream.into_split();
    let mut lines = BufReader::new(input).lines();
    output.write_all(b"220 bench ESMTP\r\n").await?;
    let mut in_message = false;
    while let Some(line) = lines.next_line().await? {
        let answer = match (in_message, line.split([' ', ':']).next().unwrap_or_default()) {
            (true, ".") => {
                in_message = false;
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(clock.monotonic());
                "250 taken\r\n"
            }
            (true, _) => continue,
            (false, "DATA") => {
                in_message = true;
                "354 go on\r\n"
            }
            (false, "EHLO") => "250-bench\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            (false, _) => "250 ok\r\n",
        };
        output.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
