//! Temperatures, from /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst), else /sys/class/thermal.
//!
//! Reading a sensor may wait for a slow or dead bus: each chip is an object of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Place, Probe, Reading};

/// More sensors than this are not read.
const MAX_SENSORS: usize = 32;
/// Sensors come and go so seldom that they are looked for in every sixth round.
const LOOK_EVERY: u32 = 6;

/// The machine's sensors.
#[derive(Debug, Default)]
pub(crate) struct Temperature {
    /// By chip or zone; none until it was looked into.
    chips: BTreeMap<String, Option<Vec<Sensor>>>,
    rounds: u32,
}

#[derive(Debug)]
struct Sensor {
    component: String,
    input: PathBuf,
}

impl Probe for Temperature {
    fn objects(&mut self, place: &Place) -> Vec<String> {
        if self.rounds.is_multiple_of(LOOK_EVERY) {
            let chips = folders(&place.sys.join("class/hwmon"), "hwmon");
            let folders = if chips.is_empty() { folders(&place.sys.join("class/thermal"), "thermal_zone") } else { chips };
            self.chips = folders.into_iter().take(MAX_SENSORS).map(|name| (format!("sensor:{name}"), None)).collect();
        }
        self.rounds = self.rounds.wrapping_add(1);
        self.chips.keys().cloned().collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let Some(known) = self.chips.get_mut(object) else { return Vec::new() };
        let sensors = known.get_or_insert_with(|| sensors(object.trim_start_matches("sensor:"), place));
        let measured = sensors.iter().filter_map(|sensor| Some((sensor, celsius(&sensor.input)?)));
        measured.map(|(sensor, value)| Reading::new(&sensor.component, "celsius", value)).collect()
    }
}

fn sensors(name: &str, place: &Place) -> Vec<Sensor> {
    if name.starts_with("thermal_zone") {
        let path = place.sys.join("class/thermal").join(name);
        let label = text(&path.join("type")).unwrap_or_else(|| name.to_owned());
        return vec![Sensor { component: component(name, &label), input: path.join("temp") }];
    }
    let folder = place.sys.join("class/hwmon").join(name);
    let chip = text(&folder.join("name")).unwrap_or_else(|| name.to_owned());
    let sensor = |input: String| {
        let label = text(&folder.join(format!("{input}_label"))).unwrap_or_else(|| input.clone());
        Sensor { component: component(name, &format!("{chip} {label}")), input: folder.join(format!("{input}_input")) }
    };
    inputs(&folder).into_iter().take(MAX_SENSORS).map(sensor).collect()
}

/// The folder's name tells equal chips apart.
fn component(folder: &str, label: &str) -> String {
    mainstay_shared::limits::clean_text(&format!("temperature:{folder} {label}"), 100)
}

fn folders(path: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// `temp1`, `temp2`, ...
fn inputs(folder: &Path) -> Vec<String> {
    folders(folder, "temp").iter().filter_map(|name| name.strip_suffix("_input")).map(str::to_owned).collect()
}

fn text(path: &Path) -> Option<String> {
    super::read_whole(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Both interfaces give thousandths of a degree. A sensor that is not wired reads far outside of what a machine survives.
fn celsius(path: &Path) -> Option<f64> {
    let thousandths: f64 = text(path)?.parse().ok()?;
    Some(thousandths / 1000.0).filter(|celsius| (-60.0..=150.0).contains(celsius))
}
