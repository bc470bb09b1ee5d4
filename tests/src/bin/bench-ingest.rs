//! `bench-ingest [SECONDS] [APPLIANCES] [AT_ONCE]`: reports per second that the collector acknowledges after commit, over mutual
//! TLS, on SQLite and on PostgreSQL, beside an endpoint that keeps nothing and beside Alertmanager, all in one run. Run it under
//! `with-postgres --durable`. Prints a table; asserts nothing. BENCH_ONLY names the rows wanted (null, alertmanager, sqlite, postgres).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, Settings};
use e2e::cpu::{self, Of};
use e2e::database::Engine;
use e2e::load::enrol::fleet;
use e2e::load::speaker::{Agent, Speaker};
use e2e::load::{Figures, Peer, drive, percentile_ms};
use e2e::null_endpoint::{self, NullEndpoint};
use e2e::patience::{SOON, eventually};
use e2e::postgres::{SHARED, free_port, psql};
use e2e::process::{Daemon, tied};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mainstay_shared::time_source::TimeSource;
use rustls::ClientConfig;

/// A customer for so many appliances.
const A_CUSTOMER: usize = 20;
const WARM_UP: Duration = Duration::from_secs(2);

/// How much load.
#[derive(Clone, Copy)]
struct Size {
    lasting: Duration,
    appliances: usize,
    at_once: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "null-endpoint").is_some() {
        return null_endpoint::serve(Path::new(&args.next().context("a folder")?)).await;
    }
    let mut numbers = args.map(|arg| arg.parse().context("usage: bench-ingest [SECONDS] [APPLIANCES] [AT_ONCE]"));
    let mut number = |default: u64| numbers.next().unwrap_or(Ok(default));
    let lasting = Duration::from_secs(number(10)?);
    let size = Size { lasting, appliances: usize::try_from(number(2000)?)?, at_once: usize::try_from(number(64)?)? };
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    println!(
        "{} appliances, each with its certificate and its kept-alive connection; {} reports under way at once (closed loop)",
        size.appliances, size.at_once
    );
    println!(
        "{:<13} {:>9} {:>7} {:>7} {:>12} {:>11} {:>13} {:>11} {:>8}",
        "endpoint", "reports/s", "p50 ms", "p99 ms", "fault p99 ms", "us/report", "us database", "us load", "refused"
    );
    if wanted("null") {
        null(size).await?;
    }
    if wanted("alertmanager") {
        alertmanager(size).await?;
    }
    for (name, engine) in [("sqlite", Engine::Sqlite), ("postgres", Engine::Postgres)] {
        if wanted(name) {
            collector(name, engine, size).await?;
        }
    }
    Ok(())
}

async fn null(size: Size) -> Result<()> {
    let mut command = tied(std::env::current_exe()?);
    command.arg("null-endpoint");
    let null = NullEndpoint::start(command).await?;
    let tls = (0..size.appliances).map(|_| null.peer()).collect::<Result<Vec<_>>>()?;
    let peers = agents(null.address(), tls).await?;
    measure("null", peers, size, Of::Process(null.pid()), None).await.map(drop)
}

async fn collector(name: &str, engine: Engine, size: Size) -> Result<()> {
    let collector = Collector::serving(engine, Settings::default()).await?;
    let tls = fleet(&collector, size.appliances.div_ceil(A_CUSTOMER), size.appliances).await?;
    let peers = agents(collector.agents_listen(), tls).await?;
    let database = if engine == Engine::Postgres { Some(Of::Family(postmaster()?)) } else { None };
    let peers = measure(name, peers, size, Of::Process(collector.pid()?), database).await?;
    let one_by_one = Size { lasting: size.lasting.min(Duration::from_secs(5)), at_once: 1, ..size };
    let (at_rest, _) = drive(peers, one_by_one.at_once, one_by_one.lasting, true).await?;
    show(&format!("{name}, rest"), &at_rest, None, None, Duration::ZERO);
    Ok(())
}

/// The process that PostgreSQL's others are children of.
fn postmaster() -> Result<u32> {
    let address = std::env::var(SHARED).context("run it under `with-postgres --durable`")?;
    let port = address.rsplit(':').next().context("a port")?.parse()?;
    let backend = psql(port, "select pg_backend_pid()")?;
    // The backend that answered is gone; its sisters have the same parent.
    drop(backend);
    let postmaster = psql(port, "select pid from pg_stat_activity where backend_type = 'checkpointer'")?;
    cpu::parent(postmaster.trim().parse()?)
}

async fn alertmanager(size: Size) -> Result<()> {
    let program = Path::new("/usr/bin/prometheus-alertmanager");
    if !program.exists() {
        println!("alertmanager  not installed (scripts/setup.sh peers)");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("mainstay-am-").tempdir()?;
    let settings = folder.path().join("am.yml");
    std::fs::write(&settings, "route:\n  receiver: none\n  group_by: [alertname]\n  group_wait: 1h\nreceivers:\n- name: none\n")?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut command: Command = tied(program);
    command.arg(format!("--config.file={}", settings.display()));
    command.arg(format!("--storage.path={}", folder.path().display()));
    command.arg(format!("--web.listen-address={address}"));
    command.args(["--cluster.listen-address=", "--log.level=error"]);
    let mut daemon = Daemon::start("alertmanager", command, &folder.path().join("log"))?;
    eventually("Alertmanager to listen", SOON, async || {
        daemon.must_run()?;
        Ok(tokio::net::TcpStream::connect(address).await.is_ok().then_some(()))
    })
    .await?;
    let mut peers = Vec::new();
    for name in 0..size.appliances {
        peers.push(Peer::connect(address, None, Speaker::Alerts { address, name }).await?);
    }
    measure("alertmanager", peers, size, Of::Process(daemon.pid()), None).await.map(drop)
}

/// Connects the fleet, a few handshakes at a time.
async fn agents(address: SocketAddr, fleet: Vec<ClientConfig>) -> Result<Vec<Peer>> {
    let time = TimeSource::system();
    let connecting = fleet.into_iter().map(|tls| {
        let speaker = Speaker::Agent(Box::new(Agent::new(address, time.clone())));
        Peer::connect(address, Some(tls), speaker)
    });
    futures_util::stream::iter(connecting).buffered(16).try_collect().await
}

async fn measure(name: &str, peers: Vec<Peer>, size: Size, server: Of, database: Option<Of>) -> Result<Vec<Peer>> {
    let (_, peers) = drive(peers, size.at_once, WARM_UP, false).await?;
    let costs = || -> Result<_> {
        let database = database.map(cpu::used).transpose()?;
        Ok((cpu::used(server)?, database, cpu::used(Of::Process(std::process::id()))?))
    };
    let before = costs()?;
    let (figures, peers) = drive(peers, size.at_once, size.lasting, false).await?;
    let after = costs()?;
    let of_database = after.1.zip(before.1).map(|(after, before)| after - before);
    show(name, &figures, Some(after.0 - before.0), of_database, after.2 - before.2);
    Ok(peers)
}

fn show(name: &str, figures: &Figures, server: Option<Duration>, database: Option<Duration>, load: Duration) {
    let taken = f64::from(u32::try_from(figures.taken.max(1)).unwrap_or(u32::MAX));
    let each = |cost: Option<Duration>| cost.map_or("-".to_owned(), |cost| format!("{:.0}", cost.as_secs_f64() * 1e6 / taken));
    let fault_p99 = percentile_ms(&figures.fault_latencies_us, 99);
    println!(
        "{name:<13} {:>9.0} {:>7.1} {:>7.1} {fault_p99:>12.1} {:>11} {:>13} {:>11} {:>8}",
        taken / figures.took.as_secs_f64(),
        percentile_ms(&figures.latencies_us, 50),
        percentile_ms(&figures.latencies_us, 99),
        each(server),
        each(database),
        each(Some(load)),
        figures.refused
    );
}
