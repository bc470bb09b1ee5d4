//! What a program costs, read from /proc for it and all its descendants, and told by the kernel at its end.
//!
//! `/proc` forgets threads and children that have ended; the figures of `wait4` hold them. A rate is that of the living over the
//! window, plus that of the gone over the program's whole life. A wake-up is a voluntary context switch: being preempted by a
//! neighbour is none of the program's doing. It reads only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::patience::{SOON, eventually};
use e2e::process::{Daemon, tied};
use mainstay_shared::time_source::TimeSource;
use serde::Deserialize;
use serde_json::{Value, json};

/// Starts a program and waits for its cost.
const WAIT4: &str = include_str!("wait4.py");

/// A program under measurement.
pub(crate) struct Measured {
    name: &'static str,
    daemon: Daemon,
    pid: u32,
    cost_file: PathBuf,
    life: TimeSource,
    first: Living,
    window: TimeSource,
}

/// Sums over the processes alive.
#[derive(Debug, Default, Clone, Copy)]
struct Living {
    processes: u64,
    threads: u64,
    peak_kib: u64,
    anon_kib: u64,
    unique_kib: u64,
    cpu_ns: u64,
    wake_ups: u64,
    page_cache_bytes: u64,
}

/// What `wait4` told of the whole life.
#[derive(Deserialize)]
struct Whole {
    cpu_s: f64,
    wake_ups: u64,
}

impl Measured {
    /// Starts `command` as `name`, with its files in `folder`.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(name: &'static str, command: &Command, folder: &Path) -> Result<Self> {
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        let (pid_file, cost_file) = (file("pid"), file("cost"));
        let mut watched = tied("/usr/bin/python3");
        watched.args(["-c", WAIT4]).args([&pid_file, &cost_file]).args(["setpriv", "--pdeathsig", "KILL", "--"]);
        watched.arg(command.get_program()).args(command.get_args()).current_dir(folder);
        watched.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let daemon = Daemon::start(name, watched, &file("log"))?;
        let pid = eventually(&format!("{name} to start"), SOON, async || Ok(fs::read_to_string(&pid_file).ok())).await?;
        let (life, window) = (TimeSource::system(), TimeSource::system());
        Ok(Self { name, daemon, pid: pid.parse()?, cost_file, life, first: Living::default(), window })
    }

    /// The window begins.
    ///
    /// # Errors
    /// When it does not run any more.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.daemon.must_run()?;
        self.first = Living::of(self.pid)?;
        self.window = TimeSource::system();
        Ok(())
    }

    /// The window ends, and the program with it: its row.
    ///
    /// # Errors
    /// When it had ended by itself or does not end now.
    pub(crate) async fn end(mut self) -> Result<Value> {
        self.daemon.must_run()?;
        let last = Living::of(self.pid)?;
        let binary = fs::metadata(format!("/proc/{}/exe", self.pid))?.len();
        let (window, life) = (self.window.monotonic(), self.life.monotonic());
        self.daemon.terminate(Duration::from_secs(30)).await?;
        let whole: Whole = serde_json::from_slice(&fs::read(&self.cost_file).context("its cost")?)?;
        let gone_cpu_s = (whole.cpu_s - seconds(last.cpu_ns)).max(0.0);
        let gone_wake_ups = whole.wake_ups.saturating_sub(last.wake_ups);
        let cpu_s =
            seconds(last.cpu_ns.saturating_sub(self.first.cpu_ns)) / window.as_secs_f64() + gone_cpu_s / life.as_secs_f64();
        let per_s = float(last.wake_ups.saturating_sub(self.first.wake_ups)) / window.as_secs_f64()
            + float(gone_wake_ups) / life.as_secs_f64();
        let written = float(last.page_cache_bytes.saturating_sub(self.first.page_cache_bytes));
        Ok(json!({
            "program": self.name,
            "peak_kib": last.peak_kib,
            "anon_kib": last.anon_kib,
            "unique_kib": last.unique_kib,
            "cpu_s_per_hour": cpu_s * 3600.0,
            "wake_ups_per_minute": per_s * 60.0,
            "page_cache_writes_bytes_per_hour": written * 3600.0 / window.as_secs_f64(),
            "processes": last.processes,
            "threads": last.threads,
            "binary_bytes": binary,
            "window_s": window.as_secs_f64(),
        }))
    }
}

impl Living {
    fn of(root: u32) -> Result<Self> {
        let mut sum = Self::default();
        for pid in tree(root)? {
            // A child may end between two looks.
            if let Some(one) = Self::of_process(pid) {
                sum.processes += 1;
                sum.threads += one.threads;
                sum.peak_kib += one.peak_kib;
                sum.anon_kib += one.anon_kib;
                sum.unique_kib += one.unique_kib;
                sum.cpu_ns += one.cpu_ns;
                sum.wake_ups += one.wake_ups;
                sum.page_cache_bytes += one.page_cache_bytes;
            }
        }
        Ok(sum)
    }

    fn of_process(pid: u32) -> Option<Self> {
        let base = PathBuf::from(format!("/proc/{pid}"));
        let status = fields(&base.join("status"))?;
        let memory = fields(&base.join("smaps_rollup"))?;
        let io = fields(&base.join("io")).unwrap_or_default();
        let field = |from: &BTreeMap<String, u64>, name: &str| from.get(name).copied().unwrap_or(0);
        let mut one = Self {
            processes: 1,
            threads: 0,
            peak_kib: field(&status, "VmHWM"),
            anon_kib: field(&status, "RssAnon"),
            unique_kib: field(&memory, "Private_Clean") + field(&memory, "Private_Dirty"),
            cpu_ns: 0,
            wake_ups: 0,
            page_cache_bytes: field(&io, "write_bytes"),
        };
        for task in fs::read_dir(base.join("task")).ok()?.flatten() {
            let on_cpu = fs::read_to_string(task.path().join("schedstat")).ok();
            let Some(status) = fields(&task.path().join("status")) else { continue };
            one.threads += 1;
            one.cpu_ns += on_cpu.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
            one.wake_ups += field(&status, "voluntary_ctxt_switches");
        }
        Some(one)
    }
}

/// `name: number ...` lines.
fn fields(path: &Path) -> Option<BTreeMap<String, u64>> {
    let text = fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    });
    Some(pairs.collect())
}

/// `root` and its descendants.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    Ok(found)
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// Counts of a bench stay far under 2^53.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
