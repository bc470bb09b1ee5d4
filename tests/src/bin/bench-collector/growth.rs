//! Growth: the same questions to three collectors side by side, of 10, of 1,000 and of 100,000 appliances, with no, ten thousand and a
//! million tickets. Pages, API lists, figures, what a report costs, what a second of rest costs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::collector::{Collector, Settings};
use e2e::cpu::{self, Of};
use e2e::database::Engine;
use e2e::desk::{Console, Desk};
use e2e::load::enrol::fleet;
use e2e::load::speaker::{Agent, Speaker};
use e2e::load::{Peer, drive, percentile_ms};
use mainstay_shared::time_source::TimeSource;

use super::seed::{Size, appliance_id, seed};
use super::{number, postmaster};

/// One collector under the same questions.
struct Stand {
    size: Size,
    collector: Collector,
    console: Console,
    desk: Desk,
}

/// How often each page is asked for; the first few don't count.
const ASKED: usize = 120;
const WARM: usize = 10;

pub(crate) async fn run(engine: Engine) -> Result<()> {
    let (appliances, tickets) = (number("BENCH_APPLIANCES", 100_000), number("BENCH_TICKETS", 1_000_000));
    let sizes = [Size { appliances: 10, tickets: 0 }, Size { appliances: 1_000, tickets: 10_000 }, Size { appliances, tickets }];
    let clock = TimeSource::system();
    let mut stands = Vec::new();
    for size in sizes {
        let began = clock.monotonic();
        let stand = stand(engine, size, &clock).await?;
        let took = clock.monotonic() - began;
        eprintln!("seeded {} appliances, {} tickets in {:.0} s", size.appliances, size.tickets, took.as_secs_f64());
        stands.push(stand);
    }
    own_rows(&stands[1]).await?;
    own_rows(&stands[2]).await?;
    println!(
        "\n{engine:?}: milliseconds p50 / p99; growth: p50 of the largest over that of 1,000 appliances (as many rows shown)"
    );
    println!("{:<44} {:>14} {:>14} {:>14} {:>7}", "page", "10, 0", "1,000, 10,000", "largest", "growth");
    for page in pages() {
        ask_all(&stands, &page, &clock).await?;
    }
    rest(&stands, engine).await?;
    reports(&stands, engine).await?;
    Ok(())
}

async fn stand(engine: Engine, size: Size, clock: &TimeSource) -> Result<Stand> {
    let mut collector = Collector::founded(engine, Settings::default()).await?;
    seed(&collector.database_url(), size, clock.now()).await.context("seeding")?;
    collector.start().await?;
    let engineer = collector.account("eng", "support_manager").await?;
    let console = Console::signed_in(&collector.web_url(), &engineer).await?;
    let desk = Desk::of(&collector).await?;
    Ok(Stand { size, collector, console, desk })
}

/// Whether the collector takes seeded rows for its own: the chain is whole, a ticket's log is read, and its clock is the log's.
async fn own_rows(stand: &Stand) -> Result<()> {
    if stand.size.tickets == 0 {
        return Ok(());
    }
    let verdict = stand.desk.get("/customers/g-100000/audit/verify").await?;
    ensure!(verdict["verdict"] == "whole", "the seeded chain: {verdict}");
    for n in [1, stand.size.tickets] {
        let id = format!("T-{n:06}");
        stand.desk.ticket(&id).await?;
        let explained = stand.collector.command(&["explain", &id, "--json"]).await?.good()?;
        if n == stand.size.tickets {
            ensure!(explained.stdout.contains("\"rows_agree\": true"), "the seeded clock: {}", explained.stdout);
        }
    }
    Ok(())
}

/// What is asked: name, path; `API` paths go to the desk. `{a}` is an appliance, `{t}` an open ticket, `{c}` a closed one.
fn pages() -> Vec<(&'static str, &'static str)> {
    vec![
        ("first page: open tickets", "/"),
        ("open tickets of a customer", "/?customer=g-100001"),
        ("closed tickets", "/?show=closed"),
        ("closed tickets of a customer", "/?show=closed&customer=g-100001"),
        ("a ticket", "/tickets/{t}"),
        ("a closed ticket", "/tickets/{c}"),
        ("appliances", "/appliances"),
        ("appliances of a customer", "/appliances?customer=g-100001"),
        ("an appliance, a day of health", "/appliances/{a}"),
        ("an appliance, a week of health", "/appliances/{a}?span=week"),
        ("customers with sites and groups", "/customers"),
        ("customers found by name", "/customers?find=customer+1"),
        ("new ticket, customer chosen", "/tickets/open?customer=g-100000"),
        ("account", "/account"),
        ("figures for Prometheus", "/metrics"),
        ("API: tickets", "API/tickets"),
        ("API: open tickets", "API/tickets?state=open"),
        ("API: tickets by severity", "API/tickets?severity=general"),
        ("API: tickets of a customer", "API/tickets?customer=g-100000"),
        ("API: tickets of an appliance", "API/tickets?appliance={a}"),
        ("API: a ticket", "API/tickets/{t}"),
        ("API: its notices", "API/tickets/{c}/notices"),
        ("API: appliances", "API/appliances"),
        ("API: an appliance", "API/appliances/{a}"),
        ("API: its health, a day", "API/appliances/{a}/health"),
        ("API: ten customers", "API/customers?limit=10"),
        ("API: groups", "API/customers/g-100000/groups"),
    ]
}

async fn ask_all(stands: &[Stand], (name, path): &(&str, &str), clock: &TimeSource) -> Result<()> {
    let mut taken: Vec<Vec<u32>> = stands.iter().map(|_| Vec::new()).collect();
    for round in 0..ASKED {
        for (stand, taken) in stands.iter().zip(&mut taken) {
            let Some(path) = filled(path, stand.size) else { continue };
            let began = clock.monotonic();
            match path.strip_prefix("API") {
                Some(path) => drop(stand.desk.get(path).await?),
                None => ensure!(stand.console.page(&path).await?.status == 200, "{path}"),
            }
            if round >= WARM {
                taken.push(u32::try_from((clock.monotonic() - began).as_micros())?);
            }
        }
    }
    let mut shown = Vec::new();
    for taken in &mut taken {
        taken.sort_unstable();
        let text = format!("{:.1} / {:.1}", percentile_ms(taken, 50), percentile_ms(taken, 99));
        shown.push(if taken.is_empty() { "-".to_owned() } else { text });
    }
    let growth = percentile_ms(&taken[2], 50) / percentile_ms(&taken[1], 50);
    println!("{name:<44} {:>14} {:>14} {:>14} {growth:>7.2}", shown[0], shown[1], shown[2]);
    Ok(())
}

/// The path on a collector of that size; `None` where it has no such thing.
fn filled(path: &str, size: Size) -> Option<String> {
    let (open, closed) = (size.tickets, size.tickets - size.live());
    if (path.contains("{t}") || path.contains("{c}")) && open == 0 {
        return None;
    }
    if path.contains("g-100001") && size.customers() < 2 {
        return None;
    }
    let path = path.replace("{t}", &format!("T-{open:06}")).replace("{c}", &format!("T-{closed:06}"));
    Some(path.replace("{a}", &appliance_id(1)))
}

/// What a second without any request costs.
async fn rest(stands: &[Stand], engine: Engine) -> Result<()> {
    const SECONDS: u32 = 20;
    let mut before = Vec::new();
    for stand in stands {
        before.push(cpu::used(Of::Process(stand.collector.pid()?))?);
    }
    let database = if engine == Engine::Postgres { Some(Of::Family(postmaster()?)) } else { None };
    let database_before = database.map(cpu::used).transpose()?;
    tokio::time::sleep(Duration::from_secs(u64::from(SECONDS))).await;
    print!("{:<44}", "at rest, ms of CPU a second");
    for (stand, before) in stands.iter().zip(before) {
        let used = cpu::used(Of::Process(stand.collector.pid()?))? - before;
        print!(" {:>14.1}", used.as_secs_f64() * 1000.0 / f64::from(SECONDS));
    }
    let of_database = database.map(cpu::used).transpose()?.zip(database_before).map(|(after, before)| after - before);
    match of_database {
        Some(used) => println!("   (their databases together {:.1})", used.as_secs_f64() * 1000.0 / f64::from(SECONDS)),
        None => println!(),
    }
    Ok(())
}

/// What a report costs: appliances that speak one after the other, within what one may send; ten everywhere, and of the largest
/// collector a thousand, whose rows lie apart. In turns, so that what else the machine does meets all alike.
async fn reports(stands: &[Stand], engine: Engine) -> Result<()> {
    const TURNS: usize = 5;
    let mut rows = Vec::new();
    for (stand, speaking) in stands.iter().zip([[10, 0], [10, 0], [10, 1000]]) {
        let enrolled = fleet(&stand.collector, speaking[1] / 100 + 1, speaking[0] + speaking[1]).await?;
        let mut enrolled = enrolled.into_iter();
        for count in speaking.into_iter().filter(|count| *count > 0) {
            let mut peers = Vec::new();
            for tls in enrolled.by_ref().take(count) {
                peers.push(connect(stand.collector.agents_listen(), tls).await?);
            }
            let (_, peers) = drive(peers, 1, Duration::from_secs(2), false).await?;
            rows.push((stand, count, peers, Spent::default()));
        }
    }
    let database = if engine == Engine::Postgres { Some(Of::Family(postmaster()?)) } else { None };
    for _ in 0..TURNS {
        for (stand, _, peers, spent) in &mut rows {
            let server = Of::Process(stand.collector.pid()?);
            let before = (cpu::used(server)?, database.map(cpu::used).transpose()?.unwrap_or_default());
            let (figures, back) = drive(std::mem::take(peers), 1, Duration::from_secs(2), false).await?;
            *peers = back;
            spent.taken += figures.taken;
            spent.server += cpu::used(server)? - before.0;
            spent.database += database.map(cpu::used).transpose()?.unwrap_or_default() - before.1;
            spent.latencies_us.extend(figures.latencies_us);
        }
    }
    println!("reports, one after the other (CPU of the collector, of PostgreSQL):");
    for (stand, speaking, _, spent) in &mut rows {
        spent.latencies_us.sort_unstable();
        let each = |used: Duration| used.as_secs_f64() * 1e6 / spent.taken.max(1) as f64;
        println!(
            "  {:>7} appliances, {speaking:>4} speak: {:>5} taken, p50 {:.2} ms, p99 {:.1} ms, CPU {:.0} us + {:.0} us",
            stand.size.appliances,
            spent.taken,
            percentile_ms(&spent.latencies_us, 50),
            percentile_ms(&spent.latencies_us, 99),
            each(spent.server),
            each(spent.database)
        );
    }
    Ok(())
}

/// What the reports of one row came to.
#[derive(Default)]
struct Spent {
    taken: usize,
    server: Duration,
    database: Duration,
    latencies_us: Vec<u32>,
}

pub(crate) async fn connect(address: SocketAddr, tls: rustls::ClientConfig) -> Result<Peer> {
    let speaker = Speaker::Agent(Box::new(Agent::new(address, TimeSource::system())));
    Peer::connect(address, Some(tls), speaker).await
}
