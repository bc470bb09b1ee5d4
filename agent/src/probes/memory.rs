//! Memory and swap, from /proc/meminfo and /proc/vmstat (proc(5)).
//!
//! Memory in use is all that is not *available*: caches that the kernel can give back don't count. How full the swap is says
//! little, how fast pages go in and out says a lot: that is the judged value.

use super::counters::{Counters, to_float};
use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// Main memory, and swap space with its traffic: two objects of one look.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    memory: bool,
    swap: bool,
    meminfo: KernelFile,
    vmstat: KernelFile,
    /// What this round has read.
    text: Option<String>,
    counters: Counters,
}

impl Memory {
    /// With or without each of the two.
    pub(crate) fn new(memory: bool, swap: bool) -> Self {
        Self { memory, swap, ..Self::default() }
    }

    /// Whether there is anything to measure.
    pub(crate) fn any(&self) -> bool {
        self.memory || self.swap
    }

    fn swap(&mut self, text: &str, place: &Place) -> Vec<Reading> {
        let total = field(text, "SwapTotal:").unwrap_or(0);
        if total == 0 {
            return Vec::new();
        }
        let free = field(text, "SwapFree:").unwrap_or(0);
        let mut readings =
            vec![Reading::new("swap", "used_percent", 100.0 * to_float(total.saturating_sub(free)) / to_float(total))];
        let vmstat = self.vmstat.read(|| place.proc.join("vmstat")).unwrap_or_default();
        if let (Some(pages_in), Some(pages_out)) = (field(&vmstat, "pswpin"), field(&vmstat, "pswpout"))
            && let Some((grown, seconds)) = self.counters.grown("swap", place.monotonic(), vec![pages_in, pages_out])
        {
            readings.push(Reading::new("swap", "pages_per_s", (grown[0] + grown[1]) / seconds));
        }
        readings
    }
}

impl Probe for Memory {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        self.text = None;
        let wanted = [(self.memory, "memory"), (self.swap, "swap")];
        wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_owned()).collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let read = self.text.take().or_else(|| self.meminfo.read(|| place.proc.join("meminfo")));
        let Some(text) = read else { return Vec::new() };
        let readings = if object == "memory" { memory(&text) } else { self.swap(&text, place) };
        self.text = Some(text);
        readings
    }
}

fn memory(text: &str) -> Vec<Reading> {
    let (Some(total @ 1..), Some(available)) = (field(text, "MemTotal:"), field(text, "MemAvailable:")) else {
        return Vec::new();
    };
    vec![
        Reading::new("memory", "used_percent", 100.0 * to_float(total.saturating_sub(available)) / to_float(total)),
        Reading::new("memory", "available_bytes", to_float(available.saturating_mul(1024))),
    ]
}

/// The first number after `name` at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
