//! Disks: the share of time in which a whole block device was busy, from /proc/diskstats (Documentation/admin-guide/iostats.rst).
//!
//! Partitions, loop and memory devices are left out: /sys/block names the whole devices.

use std::collections::BTreeMap;

use super::counters::Counters;
use super::{Place, Probe, Reading};

/// Block devices that are not disks.
const NOT_DISKS: [&str; 6] = ["loop", "ram", "zram", "sr", "fd", "nbd"];

/// All disks; one object, since the kernel answers from memory.
#[derive(Debug, Default)]
pub(crate) struct DiskIo {
    counters: Counters,
    /// Devices of the last round, and whether each is a whole one: that never changes while it exists.
    seen: BTreeMap<String, bool>,
}

impl Probe for DiskIo {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["block".to_owned()]
    }

    fn measure(&mut self, _: &str, place: &Place) -> Vec<Reading> {
        let text = place.read_proc("diskstats").unwrap_or_default();
        let mut stats: BTreeMap<String, Vec<u64>> = text.lines().filter_map(busy).collect();
        let known = std::mem::take(&mut self.seen);
        let whole = |name: &String| place.sys.join("block").join(name).exists();
        self.seen = stats.keys().map(|name| (name.clone(), known.get(name).copied().unwrap_or_else(|| whole(name)))).collect();
        stats.retain(|name, _| self.seen.get(name).copied().unwrap_or(false));
        self.counters.keep(&stats.keys().cloned().collect::<Vec<_>>());
        let mut readings = Vec::new();
        for (name, values) in stats {
            if let Some((grown, seconds)) = self.counters.grown(&name, place.monotonic(), values) {
                let component = format!("block:{name}");
                readings.push(Reading::new(&component, "busy_percent", (grown[0] / (seconds * 10.0)).min(100.0)));
                readings.push(Reading::new(&component, "operations_per_s", (grown[1] + grown[2]) / seconds));
            }
        }
        readings
    }
}

/// A device's name; milliseconds of I/O, reads, writes.
fn busy(line: &str) -> Option<(String, Vec<u64>)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let name = *words.get(2)?;
    if NOT_DISKS.iter().any(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))) {
        return None;
    }
    let number = |index: usize| words.get(index).and_then(|word| word.parse().ok());
    Some((name.to_owned(), vec![number(12)?, number(3)?, number(7)?]))
}
