//! `bench-collector PART...`: what the collector costs as it grows. `growth`: pages, reports and rest with many appliances and tickets;
//! `sizing`: bytes an appliance and day; `ticket`: from a fault to its ticket and to its mail; `polls`: ten thousand waiting agents,
//! thousands coming back at once. Run it under `with-postgres --durable`. Prints tables; asserts only that what it measures is true.
//!
//! BENCH_ENGINES (sqlite,postgres), and sizes: BENCH_APPLIANCES, BENCH_TICKETS, BENCH_POLLS, BENCH_FAULTS.

use anyhow::{Context as _, Result, bail};
use e2e::cpu;
use e2e::database::Engine;
use e2e::postgres::{SHARED, psql};

mod seed;
mod growth;
mod sizing;
mod ticket;
mod polls;

#[tokio::main]
async fn main() -> Result<()> {
    let engines = std::env::var("BENCH_ENGINES").unwrap_or_else(|_| "sqlite,postgres".to_owned());
    for part in std::env::args().skip(1) {
        for (name, engine) in [("sqlite", Engine::Sqlite), ("postgres", Engine::Postgres)] {
            if !engines.split(',').any(|wanted| wanted == name) {
                continue;
            }
            println!("\n== {part}, {name}");
            match part.as_str() {
                "growth" => growth::run(engine).await?,
                "sizing" => sizing::run(engine).await?,
                "ticket" => ticket::run(engine).await?,
                "polls" => polls::run(engine).await?,
                _ => bail!("part {part:?}: expected growth, sizing, ticket or polls"),
            }
        }
    }
    Ok(())
}

/// A size from the environment.
fn number(name: &str, default: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The process that PostgreSQL's others are children of.
fn postmaster() -> Result<u32> {
    let address = std::env::var(SHARED).context("run it under `with-postgres --durable`")?;
    let port = address.rsplit(':').next().context("a port")?.parse()?;
    let checkpointer = psql(port, "select pid from pg_stat_activity where backend_type = 'checkpointer'")?;
    cpu::parent(checkpointer.trim().parse()?)
}
