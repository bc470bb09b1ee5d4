//! Measures the machine and never judges it: one file per probe, each turning files of /proc and /sys into readings.
//!
//! A round runs aside from the agent's loop, since reading a dead file system or a sick sensor can hang in the kernel. To add a
//! probe, write its file and one line in [`all`]. What a value means is decided in `faults`.

pub(crate) mod aside;
pub(crate) mod clock;
pub(crate) mod host;
mod counters;
mod kernel_file;
mod cpu;
mod load;
mod memory;
mod pressure;
mod file_systems;
mod disk_io;
mod network;
mod temperature;
mod fold;
mod sampler;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_shared::time_source::TimeSource;

pub use clock::ClockReference;
pub(crate) use fold::{Fold, current_values};
pub use host::Host;
pub(crate) use sampler::Sampler;

use crate::config::ProbeSettings;

/// The metric that says whether an object's measuring hangs in the kernel: 1 or 0.
pub(crate) const HUNG: &str = "hung";

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What was measured: `cpu`, `disk:/var`, `net:eth0`, ...
    pub component: String,
    /// Which of its values, with its unit at the end: `used_percent`.
    pub metric: &'static str,
    /// The value.
    pub value: f64,
}

impl Reading {
    fn new(component: impl Into<String>, metric: &'static str, value: f64) -> Self {
        Self { component: component.into(), metric, value }
    }

    /// The name in samples and heartbeats: `disk./var.used_percent`.
    pub(crate) fn name(&self) -> String {
        full_name(&self.component, self.metric)
    }
}

fn full_name(component: &str, metric: &str) -> String {
    let mut name = String::with_capacity(component.len() + 1 + metric.len());
    name.push_str(component);
    name.push('.');
    name.push_str(metric);
    if let Some(colon) = component.find(':') {
        name.replace_range(colon..=colon, ".");
    }
    name
}

/// Where the kernel's files are, and the clocks: the machine's own, or a recorded tree in a test.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// `/sys`.
    pub(crate) sys: PathBuf,
    /// The machine's clocks.
    pub(crate) time: TimeSource,
}

impl Place {
    /// This machine.
    pub(crate) fn here(time: TimeSource) -> Self {
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys"), time }
    }

    fn read_proc(&self, name: &str) -> Option<String> {
        read_whole(&self.proc.join(name))
    }

    fn monotonic(&self) -> Duration {
        self.time.monotonic()
    }
}

/// The kernel's files tell no length: read in few large pieces, where the standard library would begin with 32 bytes.
fn read_whole(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match file.read(&mut piece).ok()? {
            0 => return String::from_utf8(text).ok(),
            length => text.extend_from_slice(&piece[..length]),
        }
    }
}

/// Something that can be measured. What can't be read gives no reading.
trait Probe: Send {
    /// What will be measured in this round, each able to hang on its own.
    fn objects(&mut self, place: &Place) -> Vec<String>;

    /// Measures one of them.
    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading>;
}

/// Every probe that the settings ask for.
fn all(settings: &ProbeSettings, clock: &ClockReference) -> Vec<Box<dyn Probe>> {
    let memory = memory::Memory::new(settings.memory.enabled, settings.swap.enabled);
    let list: Vec<(bool, Box<dyn Probe>)> = vec![
        (settings.cpu.enabled, Box::<cpu::Cpu>::default()),
        (settings.load.enabled, Box::<load::Load>::default()),
        (memory.any(), Box::new(memory)),
        (settings.pressure.enabled, Box::<pressure::Pressure>::default()),
        (settings.clock.enabled, Box::new(clock::Clock::new(clock.clone()))),
        (settings.disk_io.enabled, Box::<disk_io::DiskIo>::default()),
        (settings.network.enabled, Box::new(network::Network::new(settings.network_exclude.clone()))),
        (settings.temperature.enabled, Box::<temperature::Temperature>::default()),
        (settings.disk.enabled, Box::new(file_systems::FileSystems::new(settings.disk_exclude.clone()))),
    ];
    list.into_iter().filter_map(|(enabled, probe)| enabled.then_some(probe)).collect()
}

#[cfg(test)]
mod tests;
