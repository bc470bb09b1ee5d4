//! `bench-ingest [SECONDS] [PEERS]`: reports per second that the collector acknowledges after commit, over mutual TLS, on SQLite
//! and on PostgreSQL, beside an endpoint that keeps nothing, all in one run. Each peer sends one report after the other, each with
//! one five-minute record of 40 metrics. Prints a table; asserts nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::null_endpoint::NullEndpoint;
use e2e::wire::WireAgent;
use mainstay_shared::ids::Lane;
use mainstay_shared::record::{Folded, Payload, Samples};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use tokio::task::JoinSet;

struct Figures {
    reports: usize,
    slowed: usize,
    took: Duration,
    latencies_us: Vec<u128>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().context("usage: bench-ingest [SECONDS] [PEERS]"));
    let seconds = args.next().transpose()?.unwrap_or(10);
    let peers = args.next().transpose()?.unwrap_or(64);
    println!("{:<12} {:>10} {:>10} {:>10} {:>10} {:>8}", "endpoint", "reports/s", "p50 ms", "p99 ms", "reports", "told 429");
    let null = NullEndpoint::start().await?;
    let fleet = (0..peers).map(|_| null.peer()).collect::<Result<Vec<_>>>()?;
    show("null", &load(fleet, Duration::from_secs(seconds)).await?);
    for (name, engine) in [("sqlite", Engine::Sqlite), ("postgres", Engine::Postgres)] {
        let collector = Collector::serving(engine, Settings::default()).await?;
        let join = collector.join_string(&["--uses", &peers.to_string()]).await?;
        let mut fleet = Vec::new();
        for n in 0..peers {
            let base = format!("https://{}", collector.agents_listen());
            fleet.push(WireAgent::enrol(&base, &join, &format!("load-{n}")).await?);
        }
        show(name, &load(fleet, Duration::from_secs(seconds)).await?);
    }
    Ok(())
}

fn show(name: &str, figures: &Figures) {
    let at = |share: usize| {
        let index = (figures.latencies_us.len() * share / 100).min(figures.latencies_us.len().saturating_sub(1));
        figures.latencies_us.get(index).map_or(0.0, |us| f64::from(u32::try_from(*us).unwrap_or(u32::MAX)) / 1000.0)
    };
    let reports = u32::try_from(figures.reports).unwrap_or(u32::MAX);
    let rate = f64::from(reports) / figures.took.as_secs_f64();
    println!("{name:<12} {rate:>10.0} {:>10.1} {:>10.1} {reports:>10} {:>8}", at(50), at(99), figures.slowed);
}

/// Every peer reports as fast as it is answered, until the time is over.
async fn load(fleet: Vec<WireAgent>, lasting: Duration) -> Result<Figures> {
    let clock = TimeSource::system();
    let mut tasks = JoinSet::new();
    for mut peer in fleet {
        let clock = clock.clone();
        tasks.spawn(async move {
            let (mut latencies, mut slowed) = (Vec::new(), 0);
            while clock.monotonic() < lasting {
                let record = peer.record(Lane::Sample, samples(clock.now()));
                let began = clock.monotonic();
                let request = peer.report_of(vec![record]);
                let answer = peer.send(mainstay_shared::api::PATH_REPORTS, &request).await?;
                if let Some(wait_s) = answer.retry_after_s {
                    slowed += 1;
                    tokio::time::sleep(Duration::from_secs(wait_s)).await;
                    continue;
                }
                let reply: mainstay_shared::report::ReportReply = answer.good()?;
                peer.nonce = Some(reply.nonce);
                latencies.push((clock.monotonic() - began).as_micros());
            }
            anyhow::Ok((latencies, slowed))
        });
    }
    let mut figures = Figures { reports: 0, slowed: 0, took: Duration::ZERO, latencies_us: Vec::new() };
    while let Some(done) = tasks.join_next().await {
        let (latencies, slowed) = done??;
        figures.latencies_us.extend(latencies);
        figures.slowed += slowed;
    }
    figures.took = clock.monotonic();
    figures.reports = figures.latencies_us.len();
    figures.latencies_us.sort_unstable();
    Ok(figures)
}

fn samples(now: UnixMs) -> Payload {
    let folded = Folded { min: 1.0, avg: 2.5, max: 9.0, last: 3.0 };
    let metrics: BTreeMap<String, Folded> = (0..40).map(|n| (format!("metric.{n:02}"), folded)).collect();
    Payload::Samples(Samples { from: now.plus_ms(-300_000), to: now, metrics })
}
