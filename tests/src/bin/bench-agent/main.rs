//! `bench-agent [--json] [--alone]`: what our agent costs on an appliance, with a configuration as in real life, beside collectd, monit,
//! node_exporter and zabbix_agentd, all in one run. Asserts nothing.
//!
//! `BENCH_WINDOW` seconds (240) after `BENCH_WARMUP` (60); `BENCH_DISK`: a folder on a block device of its own, for the agent's
//! state. Ten services' minutes hold one fault of two minutes. Minutes without a fault are *at rest*.

mod footprint;
mod services;
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::agent::Agent;
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::process::program;
use mainstay_shared::time_source::TimeSource;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use footprint::{Measured, float};
use services::Services;

const MINUTE: Duration = Duration::from_secs(60);
/// Of each ten minutes, the front service is down in these.
const DOWN_IN: std::ops::Range<usize> = 5..7;
/// A fault's last words: recovered, reported, acknowledged.
const TOLD_BY: usize = 8;

/// What passed in one minute.
struct Minute {
    with_fault: bool,
    wire_bytes: u64,
    block_bytes: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    let window_s = seconds_of("BENCH_WINDOW", 240)?;
    let warmup = Duration::from_secs(seconds_of("BENCH_WARMUP", 60)?);
    let scratch = tempfile::Builder::new().prefix("mainstay-bench-").tempdir()?;
    let folder = scratch.path();
    let disk = std::env::var_os("BENCH_DISK").map(PathBuf::from);
    let mut services = Services::start(folder).await?;
    let collector = Collector::serving(Engine::Sqlite, Settings::default()).await?;
    let state = disk.as_deref().unwrap_or(folder).join("state");
    let agent = Agent::enrolled(&collector.join_string(&[]).await?, &configuration(&state, &services)).await?;

    let mut command = Command::new(program("mainstay-agent")?);
    command.arg("--config").arg(agent.path("agent.toml")).arg("run");
    let mut askers = JoinSet::new();
    let mut all = vec![Measured::start("mainstay-agent", &command, folder).await?];
    if !asked("--alone") {
        all.extend(peers::start(folder, &services, &mut askers).await?);
    }
    tokio::time::sleep(warmup).await;
    for measured in &mut all {
        measured.begin()?;
    }
    let minutes = watch(window_s, &mut services, &collector, disk.as_deref()).await?;
    let mut rows = Vec::new();
    for measured in all {
        rows.push(measured.end().await?);
    }
    let rest = at_rest(&minutes);
    if asked("--json") {
        println!("{:#}", json!({ "programs": rows, "agent": rest }));
    } else {
        show(&rows, &rest);
    }
    Ok(())
}

fn seconds_of(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}: expected seconds")))
}

/// All probes measure; none turns this machine's load, which is the bench's own doing, into a fault.
fn configuration(state: &Path, services: &Services) -> String {
    let mut text = format!("[agent]\nstate_dir = {state:?}\n\n");
    for (probe, never) in [
        ("cpu", "warn_at = \"100%\"\nfor = \"1h\""),
        ("load", "warn_at = 1000"),
        ("memory", ""),
        ("swap", "warn_at = 1e9"),
        ("pressure", "warn_at = \"100%\"\nfor = \"1h\""),
        ("disk", "warn_at = \"100%\"\nfor = \"1h\""),
        ("disk_io", "warn_at = \"100%\"\nfor = \"1h\""),
        ("network", ""),
        ("temperature", ""),
        ("clock", ""),
    ] {
        text.push_str(&format!("[probes.{probe}]\nenabled = true\n{never}\n\n"));
    }
    text.push_str(&services.for_agent());
    text
}

/// Lets the window pass, makes faults, and notes what each minute took.
async fn watch(window_s: u64, services: &mut Services, collector: &Collector, disk: Option<&Path>) -> Result<Vec<Minute>> {
    let clock = TimeSource::system();
    let mut minutes = Vec::new();
    let (mut wire, mut block) = (collector.link.bytes_passed(), disk.map(written).transpose()?);
    let mut number = 0;
    while clock.monotonic() < Duration::from_secs(window_s) {
        let of_ten = number % 10;
        if of_ten == DOWN_IN.start {
            services.front.take_down().await;
        } else if of_ten == DOWN_IN.end {
            services.front.bring_back().await?;
        }
        number += 1;
        let left = Duration::from_secs(window_s).min(MINUTE * u32::try_from(number)?);
        tokio::time::sleep(left.saturating_sub(clock.monotonic())).await;
        let (wire_now, block_now) = (collector.link.bytes_passed(), disk.map(written).transpose()?);
        minutes.push(Minute {
            with_fault: (DOWN_IN.start..=TOLD_BY).contains(&of_ten),
            wire_bytes: wire_now - wire,
            block_bytes: block_now.zip(block).map(|(now, before)| now - before),
        });
        (wire, block) = (wire_now, block_now);
    }
    Ok(minutes)
}

/// Bytes that the block device under `folder` was given to write (Documentation/block/stat.rst).
fn written(folder: &Path) -> Result<u64> {
    let device = fs::metadata(folder)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("{path}: BENCH_DISK stands on no block device"))?;
    let sectors: u64 = text.split_whitespace().nth(6).context("a count of sectors written")?.parse()?;
    Ok(sectors * 512)
}

fn at_rest(minutes: &[Minute]) -> BTreeMap<&'static str, Value> {
    let mean = |kept: &dyn Fn(&Minute) -> bool, of: &dyn Fn(&Minute) -> Option<u64>| {
        let values: Vec<u64> = minutes.iter().filter(|minute| kept(minute)).filter_map(of).collect();
        (!values.is_empty()).then(|| float(values.iter().sum()) / float(values.len() as u64))
    };
    let (rest, any) = (|minute: &Minute| !minute.with_fault, |_: &Minute| true);
    let wire = |minute: &Minute| Some(minute.wire_bytes);
    let block = |minute: &Minute| minute.block_bytes;
    BTreeMap::from([
        ("minutes", json!(minutes.len())),
        ("minutes_at_rest", json!(minutes.iter().filter(|minute| rest(minute)).count())),
        ("wire_bytes_per_minute_at_rest", json!(mean(&rest, &wire))),
        ("wire_bytes_per_minute", json!(mean(&any, &wire))),
        ("block_bytes_per_hour_at_rest", json!(mean(&rest, &block).map(|bytes| bytes * 60.0))),
        ("block_bytes_per_hour", json!(mean(&any, &block).map(|bytes| bytes * 60.0))),
        ("wire_bytes_by_minute", json!(minutes.iter().map(|minute| minute.wire_bytes).collect::<Vec<_>>())),
        ("block_bytes_by_minute", json!(minutes.iter().map(|minute| minute.block_bytes).collect::<Vec<_>>())),
    ])
}

fn show(rows: &[Value], rest: &BTreeMap<&'static str, Value>) {
    println!("| program | VmHWM MiB | RssAnon MiB | unique MiB | CPU s/h | wake-ups/min | processes | threads | binary MB |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    for row in rows {
        let mib = |key: &str| number(row, key) / 1024.0;
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {} | {} | {:.2} |",
            row["program"].as_str().unwrap_or_default(),
            mib("peak_kib"),
            mib("anon_kib"),
            mib("unique_kib"),
            number(row, "cpu_s_per_hour"),
            number(row, "wake_ups_per_minute"),
            row["processes"],
            row["threads"],
            number(row, "binary_bytes") / 1e6,
        );
    }
    println!("mainstay-agent over {} minutes, {} of them at rest:", rest["minutes"], rest["minutes_at_rest"]);
    for (name, key, unit) in [
        ("on the wire, both ways with TLS framing, without TCP/IP", "wire_bytes_per_minute", "bytes a minute"),
        ("written at the block layer", "block_bytes_per_hour", "bytes an hour"),
    ] {
        let shown = |key: &str| rest[key].as_f64().map_or("not measured".to_owned(), |value| format!("{value:.0}"));
        println!("- {name}: {} at rest, {} in all, {unit}", shown(&format!("{key}_at_rest")), shown(key));
    }
}
