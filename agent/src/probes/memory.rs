//! Memory and swap, from /proc/meminfo and /proc/vmstat (proc(5)).
//!
//! Memory in use is all that is not *available*: caches that the kernel can give back don't count. How full the swap is says
//! little, how fast pages go in and out says a lot: that is the judged value.

use super::counters::{Counters, to_float};
use super::{Place, Probe, Reading};

/// Main memory.
pub(crate) struct Memory;

impl Probe for Memory {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["memory".to_owned()]
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let Some(text) = place.read_proc("meminfo") else { return Vec::new() };
        let (Some(total), Some(available)) = (field(&text, "MemTotal:"), field(&text, "MemAvailable:")) else {
            return Vec::new();
        };
        if total == 0 {
            return Vec::new();
        }
        vec![
            Reading::new(object, "used_percent", 100.0 * to_float(total.saturating_sub(available)) / to_float(total)),
            Reading::new(object, "available_bytes", to_float(available.saturating_mul(1024))),
        ]
    }
}

/// Swap space and its traffic.
#[derive(Debug, Default)]
pub(crate) struct Swap {
    counters: Counters,
}

impl Probe for Swap {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["swap".to_owned()]
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let Some(meminfo) = place.read_proc("meminfo") else { return Vec::new() };
        let total = field(&meminfo, "SwapTotal:").unwrap_or(0);
        if total == 0 {
            return Vec::new();
        }
        let free = field(&meminfo, "SwapFree:").unwrap_or(0);
        let mut readings =
            vec![Reading::new(object, "used_percent", 100.0 * to_float(total.saturating_sub(free)) / to_float(total))];
        let vmstat = place.read_proc("vmstat").unwrap_or_default();
        if let (Some(pages_in), Some(pages_out)) = (field(&vmstat, "pswpin"), field(&vmstat, "pswpout"))
            && let Some((grown, seconds)) = self.counters.grown(object, place.monotonic(), vec![pages_in, pages_out])
        {
            readings.push(Reading::new(object, "pages_per_s", (grown[0] + grown[1]) / seconds));
        }
        readings
    }
}

/// The first number after `name` at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
