//! Pressure: the share of the last minute in which work stood still for want of processor, memory or disk (PSI).
//!
//! From /proc/pressure (Documentation/accounting/psi.rst): `some` of the processor, `full` of memory and disk. A kernel without
//! it gives no reading.

use super::kernel_file::KernelFile;
use super::{Place, Probe, Reading};

/// The three resources.
#[derive(Debug, Default)]
pub(crate) struct Pressure([KernelFile; 3]);

/// Object, file, line.
const RESOURCES: [(&str, &str, &str); 3] = [
    ("pressure:cpu", "pressure/cpu", "some"),
    ("pressure:memory", "pressure/memory", "full"),
    ("pressure:io", "pressure/io", "full"),
];

impl Probe for Pressure {
    fn objects(&mut self, _: &Place) -> Vec<String> {
        RESOURCES.iter().map(|(object, _, _)| (*object).to_owned()).collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let resource = RESOURCES.iter().zip(&mut self.0).find(|((name, _, _), _)| *name == object);
        let Some(((_, path, line), file)) = resource else { return Vec::new() };
        let share = file.read(|| place.proc.join(path)).and_then(|text| avg60(&text, line));
        share.map(|share| Reading::new(object, "stalled_percent", share)).into_iter().collect()
    }
}

fn avg60(text: &str, line: &str) -> Option<f64> {
    let line = text.lines().find(|l| l.split_ascii_whitespace().next() == Some(line))?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg60="))?.parse().ok()
}
