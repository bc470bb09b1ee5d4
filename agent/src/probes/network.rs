//! Interfaces: link, errors, drops and traffic, from /sys/class/net (sysfs-class-net) and /proc/net/dev (proc(5)).
//!
//! Only interfaces with a device behind them and bonds are measured: a container's come and go. The link of an interface that
//! was switched off on purpose (no `IFF_UP`) is not read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::counters::Counters;
use super::{Place, Probe, Reading};

/// The machine's interfaces.
pub(crate) struct Network {
    exclude: Vec<String>,
    counters: Counters,
    /// Interfaces seen in the last round, and whether each is one to measure: that never changes while it exists.
    seen: BTreeMap<String, bool>,
}

impl Network {
    /// All but those of `exclude`.
    pub(crate) fn new(exclude: Vec<String>) -> Self {
        Self { exclude, counters: Counters::default(), seen: BTreeMap::new() }
    }

    fn rates(&mut self, object: &str, values: Vec<u64>, place: &Place) -> Vec<Reading> {
        let Some((grown, seconds)) = self.counters.grown(object, place.monotonic(), values) else { return Vec::new() };
        vec![
            Reading::new(object, "rx_bytes_per_s", grown[0] / seconds),
            Reading::new(object, "tx_bytes_per_s", grown[3] / seconds),
            Reading::new(object, "errors_per_min", 60.0 * (grown[1] + grown[4]) / seconds),
            Reading::new(object, "drops_per_min", 60.0 * (grown[2] + grown[5]) / seconds),
        ]
    }
}

impl Probe for Network {
    fn objects(&mut self, place: &Place) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(place.sys.join("class/net")) else { return Vec::new() };
        let known = std::mem::take(&mut self.seen);
        let real = |path: PathBuf| path.join("device").exists() || path.join("bonding").exists();
        self.seen = entries
            .flatten()
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry))
            .map(|(name, entry)| (known.get(&name).copied().unwrap_or_else(|| real(entry.path())), name))
            .map(|(is_real, name)| (name, is_real))
            .collect();
        let wanted = self.seen.iter().filter(|(name, is_real)| **is_real && !self.exclude.contains(name));
        let objects: Vec<String> = wanted.map(|(name, _)| format!("net:{name}")).collect();
        self.counters.keep(&objects);
        objects
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let name = object.trim_start_matches("net:");
        let mut readings = Vec::new();
        if let Some(down) = link_down(name, place) {
            readings.push(Reading::new(object, "link_down", f64::from(u8::from(down))));
        }
        let values = place.read_proc("net/dev").and_then(|text| counts(&text, name));
        if let Some(values) = values {
            readings.extend(self.rates(object, values, place));
        }
        readings
    }
}

/// Whether the carrier is missing; none if the interface is switched off.
fn link_down(name: &str, place: &Place) -> Option<bool> {
    const IFF_UP: u32 = 1;
    let flags = place.read_sys(&format!("class/net/{name}/flags"))?;
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
    if flags & IFF_UP == 0 {
        return None;
    }
    place.read_sys(&format!("class/net/{name}/carrier")).map(|carrier| carrier == "0")
}

/// Received bytes, errors, drops; sent bytes, errors, drops.
fn counts(net_dev: &str, name: &str) -> Option<Vec<u64>> {
    let line = net_dev.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    [0, 2, 3, 8, 10, 11].iter().map(|index| numbers.get(*index).copied()).collect()
}
