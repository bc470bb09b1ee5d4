//! Load: processes that run or wait for a disk, averaged over 1, 5 and 15 minutes, from /proc/loadavg (proc(5)).
//!
//! The judged value is per processor, so that one threshold fits small and large machines; the count of processors comes from
//! /proc/stat of the same tree.

use super::counters::to_float;
use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// Processors come and go so seldom that they are counted in every thirtieth round.
const COUNT_EVERY: u32 = 30;

/// The machine's load.
#[derive(Debug, Default)]
pub(crate) struct Load {
    loadavg: KernelFile,
    processors: u64,
    rounds: u32,
}

impl Probe for Load {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        vec!["load".to_owned()]
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let Some(text) = self.loadavg.read(|| place.proc.join("loadavg")) else { return Vec::new() };
        let averages: Vec<f64> = text.split_ascii_whitespace().take(3).filter_map(|word| word.parse().ok()).collect();
        let [one, five, fifteen] = averages[..] else { return Vec::new() };
        let mut readings =
            vec![Reading::new(object, "avg1", one), Reading::new(object, "avg5", five), Reading::new(object, "avg15", fifteen)];
        if self.rounds.is_multiple_of(COUNT_EVERY) {
            self.processors = place.read_proc("stat").map_or(0, |text| processors(&text));
        }
        self.rounds = self.rounds.wrapping_add(1);
        if self.processors > 0 {
            readings.push(Reading::new(object, "avg5_per_cpu", five / to_float(self.processors)));
        }
        readings
    }
}

fn processors(stat: &str) -> u64 {
    let numbered = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    stat.lines().filter(numbered).count().try_into().unwrap_or(0)
}
