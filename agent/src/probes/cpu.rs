//! Processors: the busy share and the share spent waiting for disks, from the first line of /proc/stat (proc(5)).
//!
//! It must never count `guest` twice: the kernel has it in `user` already.

use super::counters::Counters;
use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// All processors together.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    stat: KernelFile,
    counters: Counters,
}

impl Probe for Cpu {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["cpu".to_owned()]
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let ticks = self.stat.read_begin(|| place.proc.join("stat")).and_then(|text| ticks(&text));
        let Some((grown, _)) = ticks.and_then(|ticks| self.counters.grown(object, place.monotonic(), ticks)) else {
            return Vec::new();
        };
        let total: f64 = grown.iter().sum();
        if total <= 0.0 {
            return Vec::new();
        }
        let (idle, iowait) = (grown[3], grown[4]);
        vec![
            Reading::new(object, "busy_percent", 100.0 * (total - idle - iowait) / total),
            Reading::new(object, "iowait_percent", 100.0 * iowait / total),
        ]
    }
}

/// user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<Vec<u64>> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    (ticks.len() == 8).then_some(ticks)
}
