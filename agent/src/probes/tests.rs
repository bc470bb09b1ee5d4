//! The probes on made-up (`synthetic`) trees of /proc and /sys, and on the machine that runs the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mainstay_shared::time_source::UnixMs;

use super::*;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

fn synthetic(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), files);
    let place = Place { proc: dir.path().join("proc"), sys: dir.path().join("sys"), time: TimeSource::manual(UnixMs(0)) };
    (dir, place)
}

fn measured(probe: &mut dyn Probe, place: &Place) -> BTreeMap<String, f64> {
    let objects = probe.objects(place);
    let readings = objects.iter().flat_map(|object| probe.measure(object, place)).collect::<Vec<_>>();
    readings.iter().map(|reading| (reading.name(), reading.value)).collect()
}

#[test]
fn processors_are_busy_for_what_is_neither_idle_nor_waiting() {
    let (dir, place) = synthetic(&[("proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\ncpu1 1\n")]);
    let mut cpu = cpu::Cpu::default();
    assert!(measured(&mut cpu, &place).is_empty(), "one look gives no share");
    place.time.advance(Duration::from_secs(10));
    write(dir.path(), &[("proc/stat", "cpu  150 0 140 800 110 0 0 0 50 0\n")]);
    let values = measured(&mut cpu, &place);
    assert_eq!((values["cpu.busy_percent"], values["cpu.iowait_percent"]), (45.0, 5.0));
}

#[test]
fn load_is_judged_per_processor() {
    let (_dir, place) =
        synthetic(&[("proc/loadavg", "1.00 8.00 3.00 2/300 999\n"), ("proc/stat", "cpu  1\ncpu0 1\ncpu1 1\nintr 5\n")]);
    assert_eq!(measured(&mut load::Load::default(), &place)["load.avg5_per_cpu"], 4.0);
}

#[test]
fn memory_in_use_is_what_is_not_available() {
    let (_dir, place) = synthetic(&[("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n")]);
    let values = measured(&mut memory::Memory::new(true, false), &place);
    assert_eq!((values["memory.used_percent"], values["memory.available_bytes"]), (75.0, 256_000.0));
    assert!(measured(&mut memory::Memory::new(false, true), &place).is_empty(), "a machine without swap has no reading of it");
}

#[test]
fn swap_traffic_counts_pages_in_and_out() {
    let meminfo = ("proc/meminfo", "SwapTotal: 100 kB\nSwapFree: 75 kB\n");
    let (dir, place) = synthetic(&[meminfo, ("proc/vmstat", "pswpin 100\npswpout 50\n")]);
    let mut swap = memory::Memory::new(false, true);
    assert_eq!(measured(&mut swap, &place)["swap.used_percent"], 25.0);
    place.time.advance(Duration::from_secs(10));
    write(dir.path(), &[("proc/vmstat", "pswpin 200\npswpout 100\n")]);
    assert_eq!(measured(&mut swap, &place)["swap.pages_per_s"], 15.0);
}

#[test]
fn pressure_is_some_of_the_processor_and_full_of_the_rest() {
    let psi = "some avg10=1.00 avg60=2.50 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=1\n";
    let (_dir, place) = synthetic(&[("proc/pressure/cpu", psi), ("proc/pressure/io", psi)]);
    let values = measured(&mut pressure::Pressure::default(), &place);
    assert_eq!(
        values,
        BTreeMap::from([("pressure.cpu.stalled_percent".into(), 2.5), ("pressure.io.stalled_percent".into(), 0.5)])
    );
}

#[test]
fn only_file_systems_that_hold_data_are_measured_each_once() {
    let here = tempfile::tempdir().expect("a folder");
    let point = here.path().display().to_string();
    let mountinfo = format!(
        "1 0 8:1 / / rw - ext4 /dev/sda1 ro,errors=remount-ro\n\
         2 1 8:1 /x {point} rw - ext4 /dev/sda1 ro\n\
         3 1 0:5 / /proc rw - proc proc rw\n\
         4 1 0:6 / /run rw - tmpfs tmpfs rw\n\
         5 1 7:1 / /snap/core ro - squashfs /dev/loop1 ro\n\
         6 1 8:2 / /usr ro - ext4 /dev/sda2 ro\n\
         7 1 0:9 / /my\\040nfs/nowhere rw - nfs4 server:/x rw\n\
         garbage\n"
    );
    let (_dir, place) = synthetic(&[("proc/self/mountinfo", &mountinfo)]);
    let mut probe = file_systems::FileSystems::new(vec!["/excluded".to_owned()]);
    assert_eq!(probe.objects(&place), ["disk:/", "disk:/my nfs/nowhere", "disk:/usr"]);
    let values = measured(&mut probe, &place);
    assert_eq!(values["disk./.read_only"], 1.0, "the kernel turned it read-only");
    assert_eq!(values["disk./usr.read_only"], 0.0, "somebody mounted it so");
    assert!((0.0..=100.0).contains(&values["disk./.used_percent"]));
    assert!(!values.contains_key("disk./my nfs/nowhere.used_percent"), "what can't be read gives no reading");
}

#[test]
fn disks_are_busy_by_their_io_time() {
    let stats = |ms: u32| {
        format!("8 0 sda 10 0 0 0 20 0 0 0 0 {ms} 0\n8 1 sda1 1 0 0 0 1 0 0 0 0 9 0\n7 0 loop0 1 0 0 0 1 0 0 0 0 9 0\n")
    };
    let (dir, place) = synthetic(&[("proc/diskstats", &stats(1000)), ("sys/block/sda/x", ""), ("sys/block/loop0/x", "")]);
    let mut probe = disk_io::DiskIo::default();
    measured(&mut probe, &place);
    place.time.advance(Duration::from_secs(10));
    write(dir.path(), &[("proc/diskstats", &stats(6000))]);
    let values = measured(&mut probe, &place);
    assert_eq!(values["block.sda.busy_percent"], 50.0);
    assert_eq!(values.len(), 2, "neither partitions nor loop devices: {values:?}");
}

#[test]
fn interfaces_tell_link_and_errors_unless_switched_off() {
    let dev = |errors: u32| format!("Inter-|   Receive\n  eth0: 1000 9 {errors} 2 0 0 0 0 500 9 0 1 0 0 0 0\n  eth1:\n veth7:\n");
    let (dir, place) = synthetic(&[
        ("proc/net/dev", &dev(0)),
        ("sys/class/net/eth0/device/x", ""),
        ("sys/class/net/eth0/flags", "0x1003\n"),
        ("sys/class/net/eth0/carrier", "0\n"),
        ("sys/class/net/eth1/device/x", ""),
        ("sys/class/net/eth1/flags", "0x1002\n"),
        ("sys/class/net/eth1/carrier", "0\n"),
        ("sys/class/net/veth7/flags", "0x1003\n"),
    ]);
    let mut probe = network::Network::new(vec![]);
    assert_eq!(probe.objects(&place), ["net:eth0", "net:eth1"]);
    assert_eq!(measured(&mut probe, &place), BTreeMap::from([("net.eth0.link_down".to_owned(), 1.0)]));
    place.time.advance(Duration::from_secs(30));
    write(dir.path(), &[("proc/net/dev", &dev(7))]);
    assert_eq!(measured(&mut probe, &place)["net.eth0.errors_per_min"], 14.0);
}

#[test]
fn temperatures_come_from_chips_or_else_from_thermal_zones() {
    let zone = [("sys/class/thermal/thermal_zone0/temp", "40000\n"), ("sys/class/thermal/thermal_zone0/type", "acpitz\n")];
    let (dir, place) = synthetic(&zone);
    assert_eq!(measured(&mut temperature::Temperature::default(), &place)["temperature.thermal_zone0 acpitz.celsius"], 40.0);
    let chip = "sys/class/hwmon/hwmon0";
    write(
        dir.path(),
        &[
            (&format!("{chip}/name"), "coretemp\n"),
            (&format!("{chip}/temp1_input"), "91500\n"),
            (&format!("{chip}/temp1_label"), "Package id 0\n"),
            (&format!("{chip}/temp2_input"), "-128000\n"),
        ],
    );
    let values = measured(&mut temperature::Temperature::default(), &place);
    assert_eq!(values, BTreeMap::from([("temperature.hwmon0 coretemp Package id 0.celsius".to_owned(), 91.5)]));
}

#[test]
fn a_tree_of_garbage_gives_no_reading_and_no_panic() {
    let garbage = "\u{0}x 1 - \n cpu  a b\neth0:: 99999999999999999999\nMemTotal:\nsome avg60=\n0 0 sda\n";
    let names = ["stat", "loadavg", "meminfo", "vmstat", "pressure/cpu", "self/mountinfo", "diskstats", "net/dev"];
    let files: Vec<(String, &str)> = names.iter().map(|name| (format!("proc/{name}"), garbage)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let (_dir, place) = synthetic(&files);
    let dir = tempfile::tempdir().expect("a folder");
    let settings = crate::config::Config::load(&dir.path().join("none.toml")).expect("the defaults").probes;
    for probe in &mut all(&settings, &ClockReference::default()) {
        assert!(measured(&mut **probe, &place).is_empty());
    }
}

#[tokio::test]
async fn this_machine_can_be_measured() {
    let place = Place::here(TimeSource::system());
    let dir = tempfile::tempdir().expect("a folder");
    let settings = crate::config::Config::load(&dir.path().join("none.toml")).expect("the defaults").probes;
    let mut sampler = Sampler::new(settings, ClockReference::default(), place.clone(), aside::Workers::default());
    let names: Vec<String> = sampler.round().await.iter().map(Reading::name).collect();
    for expected in ["load.avg1", "memory.used_percent", "disk./.used_percent"] {
        assert!(names.iter().any(|name| name == expected), "{expected} not in {names:?}");
    }
    let host = host::Host::look(&place);
    assert!(host.boot_id.len() == 36 && host.uptime_s > 0 && !host.hostname.is_empty(), "{host:?}");
}
