//! Ten thousand agents, each with its own certificate, wait in long polls on one node: memory of the collector for each, and how soon a
//! directive made through the API reaches its agent. Then half of them lose their connection and come back in the same second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::collector::{Collector, Settings};
use e2e::cpu::{self, Of};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::load::enrol::fleet;
use e2e::load::percentile_ms;
use e2e::patience::{A_WHILE, eventually};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mainstay_shared::api::{PATH_POLL, PATH_REPORTS, WIRE_VERSION};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::ids::Epoch;
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::number;

/// Directives of which the latency is measured.
const DIRECTIVES: usize = 200;
/// Handshakes under way at once while the fleet comes in.
const COMING: usize = 64;

/// One agent's connection.
struct Line {
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    inward: Vec<u8>,
}

impl Line {
    async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        Ok(Self { stream, address, inward: Vec::new() })
    }

    async fn say(&mut self, path: &str, message: &impl Serialize) -> Result<()> {
        let body = zstd::bulk::compress(&serde_json::to_vec(message)?, 3)?;
        let mut out = format!(
            "POST {path} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-encoding: zstd\r\naccept: */*\r\nuser-agent: mainstay-agent/{}\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            env!("CARGO_PKG_VERSION"), self.address, body.len()
        )
        .into_bytes();
        out.extend_from_slice(&body);
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    /// The answer's status, `Retry-After` and body.
    async fn hear<T: DeserializeOwned>(&mut self) -> Result<std::result::Result<T, (u16, u64)>> {
        self.inward.clear();
        loop {
            if let Some(end) = self.inward.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.inward[..end])?.to_ascii_lowercase();
                let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
                let length = usize::try_from(field("content-length:").context("a length")?)?;
                if self.inward.len() >= end + 4 + length {
                    let status: u16 = head.get(9..12).context("a status")?.parse()?;
                    if status != 200 {
                        return Ok(Err((status, field("retry-after:").unwrap_or(0))));
                    }
                    return Ok(Ok(serde_json::from_slice(&self.inward[end + 4..end + 4 + length])?));
                }
            }
            if self.stream.read_buf(&mut self.inward).await? == 0 {
                bail!("the connection was closed");
            }
        }
    }
}

/// What an agent of the bench keeps.
#[derive(Clone)]
struct One {
    tls: Arc<ClientConfig>,
    epoch: Epoch,
}

pub(crate) async fn run(engine: Engine) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let count = usize::try_from(number("BENCH_POLLS", 10_000))?;
    let (clock, collector) = (TimeSource::system(), Collector::serving(engine, Settings::default()).await?);
    let address = collector.agents_listen();
    let began = clock.monotonic();
    let enrolled = fleet(&collector, count.div_ceil(100), count).await?;
    println!("{count} appliances enrolled in {:.0} s", (clock.monotonic() - began).as_secs_f64());
    let fleet: Vec<One> =
        enrolled.into_iter().map(|tls| One { tls: Arc::new(tls), epoch: Epoch::random(&SystemRandom::new()) }).collect();
    let desk = Desk::of(&collector).await?;
    let before = memory(collector.pid()?)?;
    let began = clock.monotonic();
    let lines = in_order(&fleet, address).await?;
    let connected = memory(collector.pid()?)?;
    println!("connected in {:.1} s, {COMING} handshakes at once", (clock.monotonic() - began).as_secs_f64());
    let (heard, mut directives) = mpsc::unbounded_channel();
    let mut polling = JoinSet::new();
    for (n, (one, line)) in fleet.iter().zip(lines).enumerate() {
        let stay = u64::try_from(n % 6000)? / 100;
        polling.spawn(poll(one.clone(), line, clock.clone(), (n, stay), heard.clone()));
    }
    waiting(&collector, count).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waits = memory(collector.pid()?)?;
    let each = |kib: i64| kib as f64 / count as f64;
    println!("collector's memory: RSS {} -> {} KiB, anonymous {} -> {} KiB", before.0, waits.0, before.1, waits.1);
    println!(
        "for each waiting agent: RSS {:.1} KiB, anonymous {:.1} KiB (connection alone {:.1}); the generator {:.1} KiB",
        each(waits.0 - before.0),
        each(waits.1 - before.1),
        each(connected.1 - before.1),
        each(memory(std::process::id())?.1)
    );
    costs_of_waiting(&collector).await?;
    directed(&desk, &clock, &mut directives, count).await?;
    polling.shutdown().await;
    waiting_at_most(&collector, count / 10).await?;
    come_back(&collector, &fleet[..count / 2], &clock).await
}

async fn in_order(fleet: &[One], address: SocketAddr) -> Result<Vec<Line>> {
    let connecting = fleet.iter().map(|one| Line::connect(address, Arc::clone(&one.tls)));
    futures_util::stream::iter(connecting).buffered(COMING).try_collect().await
}

/// Polls again and again; tells of each directive.
async fn poll(
    one: One,
    mut line: Line,
    clock: TimeSource,
    (n, stay): (usize, u64),
    heard: mpsc::UnboundedSender<(usize, String, Duration)>,
) -> Result<()> {
    // The first poll of each ends at another moment, as in a fleet that started over a minute.
    let mut wait_s = u32::try_from(stay.max(20))?;
    loop {
        let request = PollRequest {
            version: WIRE_VERSION,
            epoch: one.epoch.clone(),
            sent_at: clock.now(),
            wait_s,
            values: [
                ("cpu.busy_percent", 12.5),
                ("disk./.used_percent", 48.1),
                ("load.avg1", 0.4),
                ("memory.used_percent", 61.2),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            services: [("vpn".to_owned(), mainstay_shared::check::ServiceState::Up)].into(),
            backlog: 0,
            done: Vec::new(),
            patches: Vec::new(),
        };
        line.say(PATH_POLL, &request).await?;
        match line.hear::<PollReply>().await? {
            Ok(reply) => {
                for directive in reply.directives {
                    heard.send((n, directive.id, clock.monotonic())).context("the bench listens")?;
                    wait_s = 0;
                }
            }
            Err((_, after_s)) => tokio::time::sleep(Duration::from_secs(after_s.max(1))).await,
        }
        if wait_s == 0 {
            // It was asked something and does it: as far as this bench goes, for good.
            std::future::pending::<()>().await;
        }
        wait_s = 57;
    }
}

/// Resident and anonymous memory of a process, in KiB.
fn memory(pid: u32) -> Result<(i64, i64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        Ok::<i64, anyhow::Error>(line.split_whitespace().next().context("a number")?.parse()?)
    };
    Ok((field("VmRSS:")?, field("RssAnon:")?))
}

async fn polls_now(collector: &Collector) -> Result<usize> {
    let text = reqwest::get(format!("{}/metrics", collector.web_url())).await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("mainstay_waiting_polls ")).context("the figure")?;
    Ok(line.trim().parse()?)
}

async fn waiting(collector: &Collector, count: usize) -> Result<()> {
    eventually(
        "every agent to wait",
        A_WHILE * 4,
        async || Ok((polls_now(collector).await? >= count - count / 200).then_some(())),
    )
    .await
}

async fn waiting_at_most(collector: &Collector, count: usize) -> Result<()> {
    eventually("the agents to be gone", A_WHILE * 4, async || Ok((polls_now(collector).await? <= count).then_some(()))).await
}

async fn costs_of_waiting(collector: &Collector) -> Result<()> {
    let before = cpu::used(Of::Process(collector.pid()?))?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let used = cpu::used(Of::Process(collector.pid()?))? - before;
    println!("while they wait and renew: {:.1} ms of CPU a second", used.as_secs_f64() * 1000.0 / 20.0);
    Ok(())
}

/// Directives made through the API, one after the other, each for another appliance.
async fn directed(
    desk: &Desk,
    clock: &TimeSource,
    heard: &mut mpsc::UnboundedReceiver<(usize, String, Duration)>,
    count: usize,
) -> Result<()> {
    let appliances = desk.get("/appliances?limit=200").await?;
    let appliances = appliances["appliances"].as_array().context("appliances")?.clone();
    let (mut from_call, mut from_answer, mut agents) = (Vec::new(), Vec::new(), std::collections::BTreeSet::new());
    for appliance in appliances.iter().take(DIRECTIVES.min(count)) {
        let id = appliance["appliance_id"].as_str().context("an id")?;
        let began = clock.monotonic();
        desk.post(&format!("/appliances/{id}/report-now"), &Value::Null).await?;
        let made = clock.monotonic();
        let (agent, _, at) = tokio::time::timeout(Duration::from_secs(10), heard.recv())
            .await
            .context("a directive that arrives")?
            .context("heard")?;
        ensure!(agents.insert(agent), "agent {agent} heard of another's directive");
        from_call.push(u32::try_from(at.saturating_sub(began).as_micros())?);
        from_answer.push(u32::try_from(at.saturating_sub(made).as_micros())?);
    }
    from_call.sort_unstable();
    from_answer.sort_unstable();
    println!(
        "{} directives: from the API's call to the agent p50 {:.1} ms, p99 {:.1} ms; from its answer p50 {:.1} ms, p99 {:.1} ms",
        from_call.len(),
        percentile_ms(&from_call, 50),
        percentile_ms(&from_call, 99),
        percentile_ms(&from_answer, 50),
        percentile_ms(&from_answer, 99)
    );
    Ok(())
}

/// What coming back led to.
#[derive(Default)]
struct Back {
    took: Duration,
    tries: u32,
    told_to_wait: u32,
}

/// All of `fleet` connect within the same second, with full handshakes, and report; who fails tries again after a second or two.
async fn come_back(collector: &Collector, fleet: &[One], clock: &TimeSource) -> Result<()> {
    let address = collector.agents_listen();
    let (server, own) = (Of::Process(collector.pid()?), Of::Process(std::process::id()));
    let (before, own_before) = (cpu::used(server)?, cpu::used(own)?);
    let began = clock.monotonic();
    let mut coming = JoinSet::new();
    for (n, one) in fleet.iter().enumerate() {
        let (one, clock) = (One { tls: fresh(&one.tls), epoch: one.epoch.clone() }, clock.clone());
        coming.spawn(async move {
            tokio::time::sleep(Duration::from_micros(u64::try_from(n).unwrap_or(0) * 997 % 1_000_000)).await;
            let began = clock.monotonic();
            let mut back = Back::default();
            loop {
                back.tries += 1;
                match first_report(&one, address, &clock).await {
                    Ok(Ok(_)) => break,
                    Ok(Err((_, after_s))) => {
                        back.told_to_wait += 1;
                        tokio::time::sleep(Duration::from_secs(after_s.max(1))).await;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(1000 + u64::try_from(n % 1000).unwrap_or(0))).await,
                }
            }
            back.took = clock.monotonic() - began;
            back
        });
    }
    let (mut taken, mut again, mut told) = (Vec::new(), 0, 0);
    while let Some(back) = coming.join_next().await {
        let back = back?;
        taken.push(u32::try_from(back.took.as_micros())?);
        again += back.tries - 1;
        told += back.told_to_wait;
    }
    let whole = clock.monotonic() - began;
    taken.sort_unstable();
    println!(
        "{} come back in one second: first acknowledgement p50 {:.0} ms, p99 {:.0} ms, last after {:.1} s; {again} tried again, {told} told to wait",
        taken.len(),
        percentile_ms(&taken, 50),
        percentile_ms(&taken, 99),
        whole.as_secs_f64()
    );
    println!(
        "CPU for each: collector {:.0} us, generator {:.0} us",
        (cpu::used(server)? - before).as_secs_f64() * 1e6 / taken.len() as f64,
        (cpu::used(own)? - own_before).as_secs_f64() * 1e6 / taken.len() as f64
    );
    Ok(())
}

/// The same certificate without remembered sessions: the whole handshake, as after an agent's own restart.
fn fresh(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.resumption = rustls::client::Resumption::disabled();
    Arc::new(tls)
}

async fn first_report(
    one: &One,
    address: SocketAddr,
    clock: &TimeSource,
) -> Result<std::result::Result<ReportReply, (u16, u64)>> {
    let mut line = Line::connect(address, Arc::clone(&one.tls)).await?;
    let request = ReportRequest {
        version: WIRE_VERSION,
        epoch: Epoch::random(&SystemRandom::new()),
        attempt: 1,
        nonce_echo: None,
        sent_at: clock.now(),
        sent_mono_ms: 1,
        records: Vec::new(),
    };
    line.say(PATH_REPORTS, &request).await?;
    line.hear().await
}
