//! How the machine is measured and where its values become faults: `[probes]` and its tables.
//!
//! The defaults are meant to be right for most machines: they name conditions that an engineer would want to be told of, held
//! for long enough not to be a burst. It must never hold a rule: `faults::rules` turns these numbers into decisions.

use std::time::Duration;

use super::section::Section;
use super::values::{Accepted, Percent};

/// Where a measured value becomes a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    /// Whether it is measured and judged at all.
    pub(crate) enabled: bool,
    /// From here on: `warning`.
    pub(crate) warn_at: f64,
    /// From here on: `serious`, if the value alone can be.
    pub(crate) serious_at: Option<f64>,
    /// How long it must last before a fault is raised.
    pub(crate) lasting: Duration,
}

/// `[probes]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProbeSettings {
    /// How often the machine is measured.
    pub(crate) interval: Duration,
    /// A fault raised for the third time within it is flapping: cleared only after it stayed good for as long.
    pub(crate) flap_window: Duration,
    /// Busy share of all processors, percent.
    pub(crate) cpu: Threshold,
    /// Five-minute load per processor.
    pub(crate) load: Threshold,
    /// Memory in use (all but available), percent.
    pub(crate) memory: Threshold,
    /// Pages swapped in and out per second.
    pub(crate) swap: Threshold,
    /// Share of the last minute in which work stood still for want of a resource (PSI), percent.
    pub(crate) pressure: Threshold,
    /// Space used of a file system, percent.
    pub(crate) disk: Threshold,
    /// Inodes used of a file system, percent.
    pub(crate) inodes: Threshold,
    /// Mount points left alone.
    pub(crate) disk_exclude: Vec<String>,
    /// Share of time in which a block device was busy, percent.
    pub(crate) disk_io: Threshold,
    /// Errors per minute on an interface.
    pub(crate) network: Threshold,
    /// Interfaces left alone.
    pub(crate) network_exclude: Vec<String>,
    /// Degrees Celsius.
    pub(crate) temperature: Threshold,
    /// Milliseconds between the machine's clock and the collector's.
    pub(crate) clock: Threshold,
}

/// Numbers of a threshold before the configuration had its say: `warn_at`, `serious_at`, seconds.
type Defaults = (f64, Option<f64>, u64);

/// Reads `[probes]`.
pub(crate) fn read(top: &mut Section<'_>) -> ProbeSettings {
    let mut section = top.section("probes");
    let interval = section
        .get_where("interval", "a duration from \"1s\" to \"5m\"", |d: &Duration| (1..=300).contains(&d.as_secs()))
        .unwrap_or(Duration::from_secs(10));
    let flap_window = section
        .get_where("flap_window", "a duration of at most \"1d\"", |d: &Duration| d.as_secs() <= 86_400)
        .unwrap_or(Duration::from_secs(900));
    let cpu = plain::<Percent>(&mut section, "cpu", (95.0, None, 900));
    let load = plain::<f64>(&mut section, "load", (4.0, Some(10.0), 600));
    let memory = plain::<Percent>(&mut section, "memory", (92.0, Some(98.0), 120));
    let swap = plain::<f64>(&mut section, "swap", (1000.0, Some(10_000.0), 120));
    let pressure = plain::<Percent>(&mut section, "pressure", (40.0, Some(80.0), 300));
    let disk_io = plain::<Percent>(&mut section, "disk_io", (98.0, None, 900));
    let temperature = plain::<f64>(&mut section, "temperature", (85.0, Some(95.0), 60));
    let clock = plain::<Duration>(&mut section, "clock", (5_000.0, Some(300_000.0), 60));

    let mut part = section.section("disk");
    let disk = threshold::<Percent>(&mut part, ["warn_at", "serious_at"], (90.0, Some(97.0), 60));
    let inodes = inode_threshold(&mut part, disk);
    let disk_exclude = part.get_or("exclude", Vec::new());
    part.finish();

    let mut part = section.section("network");
    let network = threshold::<f64>(&mut part, ["warn_at", "serious_at"], (60.0, Some(6000.0), 120));
    let network_exclude = part.get_or("exclude", Vec::new());
    part.finish();

    section.finish();
    ProbeSettings {
        interval,
        flap_window,
        cpu,
        load,
        memory,
        swap,
        pressure,
        disk,
        inodes,
        disk_exclude,
        disk_io,
        network,
        network_exclude,
        temperature,
        clock,
    }
}

/// A table that holds a threshold and nothing else.
fn plain<T: Measure>(section: &mut Section<'_>, key: &'static str, defaults: Defaults) -> Threshold {
    let mut part = section.section(key);
    let threshold = threshold::<T>(&mut part, ["warn_at", "serious_at"], defaults);
    part.finish();
    threshold
}

fn threshold<T: Measure>(part: &mut Section<'_>, keys: [&'static str; 2], defaults: Defaults) -> Threshold {
    let enabled = part.get_or("enabled", true);
    let lasting = part.get_or("for", Duration::from_secs(defaults.2));
    let (warn_at, serious_at) = limits::<T>(part, keys, (defaults.0, defaults.1));
    Threshold { enabled, warn_at, serious_at, lasting }
}

/// Inodes share `enabled` and `for` with the space of the same file system.
fn inode_threshold(part: &mut Section<'_>, disk: Threshold) -> Threshold {
    let (warn_at, serious_at) = limits::<Percent>(part, ["inodes_warn_at", "inodes_serious_at"], (90.0, Some(97.0)));
    Threshold { warn_at, serious_at, ..disk }
}

fn limits<T: Measure>(part: &mut Section<'_>, keys: [&'static str; 2], defaults: (f64, Option<f64>)) -> (f64, Option<f64>) {
    let warn = part.get::<T>(keys[0]).map(Measure::number);
    let serious = part.get::<T>(keys[1]).map(Measure::number);
    let warn_at = warn.unwrap_or_else(|| serious.map_or(defaults.0, |serious| defaults.0.min(serious)));
    let serious_at = serious.or(defaults.1.map(|default| default.max(warn_at)));
    if serious_at.is_some_and(|serious_at| serious_at < warn_at) {
        part.refuse(keys[1], None, format!("is below {}: expected it to be the same or higher", keys[0]));
    }
    (warn_at, serious_at)
}

/// A value that becomes a bare number in the unit of its reading.
trait Measure: Accepted {
    fn number(self) -> f64;
}

impl Measure for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Measure for Percent {
    fn number(self) -> f64 {
        self.0
    }
}

impl Measure for Duration {
    fn number(self) -> f64 {
        self.as_secs_f64() * 1000.0
    }
}
