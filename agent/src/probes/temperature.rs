//! Temperatures, from /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst), else /sys/class/thermal.
//!
//! Reading a sensor may wait for a slow or dead bus: each chip is an object of its own.

use std::path::Path;

use super::{Place, Probe, Reading};

/// More sensors than this are not read.
const MAX_SENSORS: usize = 32;

/// The machine's sensors.
pub(crate) struct Temperature;

impl Probe for Temperature {
    fn objects(&mut self, place: &Place) -> Vec<String> {
        let chips = folders(&place.sys.join("class/hwmon"), "hwmon");
        let folders = if chips.is_empty() { folders(&place.sys.join("class/thermal"), "thermal_zone") } else { chips };
        folders.into_iter().take(MAX_SENSORS).map(|name| format!("sensor:{name}")).collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let name = object.trim_start_matches("sensor:");
        if name.starts_with("thermal_zone") {
            let path = place.sys.join("class/thermal").join(name);
            let label = text(&path.join("type")).unwrap_or_else(|| name.to_owned());
            return celsius(&path.join("temp")).map(|value| reading(name, &label, value)).into_iter().collect();
        }
        let folder = place.sys.join("class/hwmon").join(name);
        let chip = text(&folder.join("name")).unwrap_or_else(|| name.to_owned());
        inputs(&folder).into_iter().take(MAX_SENSORS).filter_map(|input| sensor(&folder, name, &chip, &input)).collect()
    }
}

fn sensor(folder: &Path, name: &str, chip: &str, input: &str) -> Option<Reading> {
    let value = celsius(&folder.join(format!("{input}_input")))?;
    let label = text(&folder.join(format!("{input}_label"))).unwrap_or_else(|| input.to_owned());
    Some(reading(name, &format!("{chip} {label}"), value))
}

/// The folder's name tells equal chips apart.
fn reading(folder: &str, label: &str, celsius: f64) -> Reading {
    let component = mainstay_shared::limits::clean_text(&format!("temperature:{folder} {label}"), 100);
    Reading::new(component, "celsius", celsius)
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
