//! Disks: the share of time in which a whole block device was busy, from /proc/diskstats (Documentation/admin-guide/iostats.rst).
//!
//! Partitions, loop and memory devices are left out: /sys/block names the whole devices.

use std::collections::{BTreeMap, BTreeSet};

use super::counters::Counters;
use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// Block devices that are not disks.
const NOT_DISKS: [&str; 6] = ["loop", "ram", "zram", "sr", "fd", "nbd"];

/// All disks; one object, since the kernel answers from memory.
#[derive(Debug, Default)]
pub(crate) struct DiskIo {
    diskstats: KernelFile,
    counters: Counters,
    /// Devices of the last round, and whether each is a whole one: that never changes while it exists.
    seen: BTreeMap<String, bool>,
}

impl DiskIo {
    fn is_whole(&mut self, name: &str, place: &Place) -> bool {
        if let Some(whole) = self.seen.get(name) {
            return *whole;
        }
        let whole = place.sys.join("block").join(name).exists();
        self.seen.insert(name.to_owned(), whole);
        whole
    }

    /// Forgets devices that are no longer there.
    fn keep(&mut self, present: &BTreeSet<&str>) {
        self.seen.retain(|name, _| present.contains(name.as_str()));
        self.counters.keep(&self.seen.keys().cloned().collect::<Vec<_>>());
    }
}

impl Probe for DiskIo {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["block".to_owned()]
    }

    fn measure(&mut self, _: &str, place: &Place) -> Vec<Reading> {
        let text = self.diskstats.read(|| place.proc.join("diskstats")).unwrap_or_default();
        let mut readings = Vec::new();
        let mut present = BTreeSet::new();
        for (name, words) in text.lines().filter_map(device) {
            present.insert(name);
            let Some(values) = self.is_whole(name, place).then(|| busy(words)).flatten() else { continue };
            if let Some((grown, seconds)) = self.counters.grown(name, place.monotonic(), values) {
                let component = format!("block:{name}");
                readings.push(Reading::new(&component, "busy_percent", (grown[0] / (seconds * 10.0)).min(100.0)));
                readings.push(Reading::new(component, "operations_per_s", (grown[1] + grown[2]) / seconds));
            }
        }
        if present.len() != self.seen.len() {
            self.keep(&present);
        }
        readings
    }
}

/// A device's name and what follows it, unless it is none of the disks.
fn device(line: &str) -> Option<(&str, std::str::SplitAsciiWhitespace<'_>)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.nth(2)?;
    let is = |kind: &str| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (!NOT_DISKS.iter().any(|kind| is(kind))).then_some((name, words))
}

/// Milliseconds of I/O, reads, writes: the tenth, first and fifth of the numbers.
fn busy(numbers: std::str::SplitAsciiWhitespace<'_>) -> Option<Vec<u64>> {
    let numbers: Vec<u64> = numbers.take(10).map_while(|word| word.parse().ok()).collect();
    Some(vec![*numbers.get(9)?, numbers[0], numbers[4]])
}
