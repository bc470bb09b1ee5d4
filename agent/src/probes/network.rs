//! Interfaces: link, errors, drops and traffic, from /sys/class/net (sysfs-class-net) and /proc/net/dev (proc(5)).
//!
//! Only interfaces with a device behind them and bonds are measured: a container's come and go. The link of an interface that
//! was switched off on purpose (no `IFF_UP`) is not read.

use std::collections::BTreeMap;

use super::counters::Counters;
use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// The machine's interfaces.
pub(crate) struct Network {
    exclude: Vec<String>,
    counters: Counters,
    net_dev: KernelFile,
    /// What this round has read.
    text: String,
    /// Interfaces of the last round. None: not one to measure, which never changes while it exists.
    seen: BTreeMap<String, Option<Link>>,
}

/// What the kernel says of an interface.
#[derive(Debug, Default)]
struct Link {
    flags: KernelFile,
    carrier: KernelFile,
}

impl Network {
    /// All but those of `exclude`.
    pub(crate) fn new(exclude: Vec<String>) -> Self {
        Self {
            exclude,
            counters: Counters::default(),
            net_dev: KernelFile::default(),
            text: String::new(),
            seen: BTreeMap::new(),
        }
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
        self.text = self.net_dev.read(|| place.proc.join("net/dev")).unwrap_or_default();
        let mut present: Vec<&str> = names(&self.text).collect();
        present.sort_unstable();
        for name in &present {
            if !self.seen.contains_key(*name) {
                let folder = place.sys.join("class/net").join(name);
                let is_real = folder.join("device").exists() || folder.join("bonding").exists();
                let wanted = is_real && !self.exclude.iter().any(|excluded| excluded == name);
                self.seen.insert((*name).to_owned(), wanted.then(Link::default));
            }
        }
        if present.len() != self.seen.len() {
            self.seen.retain(|name, _| present.binary_search(&name.as_str()).is_ok());
            self.counters.keep(&self.seen.keys().map(|name| format!("net:{name}")).collect::<Vec<_>>());
        }
        self.seen.iter().filter(|(_, link)| link.is_some()).map(|(name, _)| format!("net:{name}")).collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let name = object.trim_start_matches("net:");
        let Some(Some(link)) = self.seen.get_mut(name) else { return Vec::new() };
        let mut readings = Vec::new();
        if let Some(down) = link.is_down(name, place) {
            readings.push(Reading::new(object, "link_down", f64::from(u8::from(down))));
        }
        if let Some(values) = counts(&self.text, name) {
            readings.extend(self.rates(object, values, place));
        }
        readings
    }
}

impl Link {
    /// Whether the carrier is missing; none if the interface is switched off.
    fn is_down(&mut self, name: &str, place: &Place) -> Option<bool> {
        const IFF_UP: u32 = 1;
        let path = |file: &str| place.sys.join("class/net").join(name).join(file);
        let flags = self.flags.read(|| path("flags"))?;
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
        if flags & IFF_UP == 0 {
            return None;
        }
        self.carrier.read(|| path("carrier")).map(|carrier| carrier.trim() == "0")
    }
}

/// The interfaces of /proc/net/dev; a name that could lead out of its folder is none.
fn names(net_dev: &str) -> impl Iterator<Item = &str> {
    let before_colon = net_dev.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    before_colon.filter(|name| !name.is_empty() && !name.contains(['/', ' ']) && !name.starts_with('.'))
}

/// Received bytes, errors, drops; sent bytes, errors, drops.
fn counts(net_dev: &str, name: &str) -> Option<Vec<u64>> {
    let line = net_dev.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    [0, 2, 3, 8, 10, 11].iter().map(|index| numbers.get(*index).copied()).collect()
}
