//! File systems: space, inodes, and whether the kernel turned one read-only, from /proc/self/mountinfo (proc(5)) and statvfs.
//!
//! Only what holds data is measured: disks, network file systems, the root of a container. statvfs on a dead server hangs: each
//! mount is an object of its own. The list of mounts is read again when the kernel says that it changed. Read-only means that the *superblock* is while the mount is not: somebody's own `mount -o ro` is no fault.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::StatVfsMountFlags;

use super::counters::to_float;
use super::{Place, Probe, Reading};

/// File systems in which data live without a disk of their own.
const DISKLESS: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "zfs"];
/// File systems that are read-only and full by nature.
const IMAGES: [&str; 4] = ["squashfs", "iso9660", "erofs", "udf"];
/// More mounts than this are not measured: a container host may have thousands.
const MAX_MOUNTS: usize = 64;

/// The mounted file systems.
pub(crate) struct FileSystems {
    exclude: Vec<String>,
    mounts: BTreeMap<String, Mount>,
    /// The list that was read last, kept open to hear of changes.
    list: Option<File>,
}

#[derive(Debug, Clone, PartialEq)]
struct Mount {
    point: String,
    /// As statvfs has it: by the mount or by the superblock.
    read_only: bool,
    turned_read_only: bool,
}

impl FileSystems {
    /// All but those mounted at `exclude`.
    pub(crate) fn new(exclude: Vec<String>) -> Self {
        Self { exclude, mounts: BTreeMap::new(), list: None }
    }

    fn look(&mut self, place: &Place) {
        let path = place.proc.join("self/mountinfo");
        // Opened first: what changes from here on is told.
        self.list = File::open(&path).ok();
        let mounts = mounts(&super::read_whole(&path).unwrap_or_default());
        let wanted = mounts.into_iter().filter(|mount| !self.exclude.contains(&mount.point)).take(MAX_MOUNTS);
        self.mounts = wanted.map(|mount| (format!("disk:{}", mount.point), mount)).collect();
    }
}

impl Probe for FileSystems {
    fn objects(&mut self, place: &Place) -> Vec<String> {
        if self.list.as_ref().is_none_or(has_changed) {
            self.look(place);
        }
        self.mounts.keys().cloned().collect()
    }

    fn measure(&mut self, object: &str, place: &Place) -> Vec<Reading> {
        let Some(mount) = self.mounts.get(object) else { return Vec::new() };
        let stat = rustix::fs::statvfs(mount.point.as_str()).ok();
        let read_only = |stat: &rustix::fs::StatVfs| stat.f_flag.contains(StatVfsMountFlags::RDONLY);
        if stat.as_ref().is_some_and(|stat| read_only(stat) != mount.read_only) {
            // A superblock that the kernel turned is no change of the list.
            self.look(place);
        }
        let turned = self.mounts.get(object).is_some_and(|mount| mount.turned_read_only);
        let mut readings = vec![Reading::new(object, "read_only", f64::from(u8::from(turned)))];
        let Some(stat) = stat else { return readings };
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        // As df does: what is kept for root doesn't count as usable.
        let usable = used.saturating_add(stat.f_bavail);
        if usable > 0 {
            readings.push(Reading::new(object, "used_percent", 100.0 * to_float(used) / to_float(usable)));
            readings.push(Reading::new(object, "free_bytes", to_float(stat.f_bavail.saturating_mul(stat.f_frsize))));
        }
        if stat.f_files > 0 {
            let used = stat.f_files.saturating_sub(stat.f_ffree);
            readings.push(Reading::new(object, "inodes_used_percent", 100.0 * to_float(used) / to_float(stat.f_files)));
        }
        readings
    }
}

/// Whether mounts came, went or changed since `list` was opened (proc(5): poll). What can't be asked is read again.
fn has_changed(list: &File) -> bool {
    let mut asked = [PollFd::new(list, PollFlags::PRI)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_err() || asked[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
}

/// The mounts worth measuring, each device once, at its shortest path.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut by_device: BTreeMap<String, Mount> = BTreeMap::new();
    for (device, mount) in mountinfo.lines().filter_map(mount) {
        match by_device.get(&device) {
            Some(known) if known.point.len() <= mount.point.len() => {}
            _ => drop(by_device.insert(device, mount)),
        }
    }
    by_device.into_values().collect()
}

/// `36 35 98:0 /root /mount rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue` as device and mount.
fn mount(line: &str) -> Option<(String, Mount)> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let (device, point, options) = (left.get(2)?, unescape(left.get(4)?), left.get(5)?);
    let (kind, source, superblock) = (*right.first()?, *right.get(1)?, right.get(2)?);
    let holds_data =
        DISKLESS.contains(&kind) || source.starts_with("/dev/") || kind == "btrfs" || (kind == "overlay" && point == "/");
    if !holds_data
        || IMAGES.contains(&kind)
        || point.starts_with("/dev/")
        || !mainstay_shared::limits::is_good_name(&format!("disk:{point}"))
    {
        return None;
    }
    let has = |options: &str, word: &str| options.split(',').any(|option| option == word);
    let turned_read_only = has(superblock, "ro") && has(options, "rw");
    let read_only = has(superblock, "ro") || has(options, "ro");
    Some(((*device).to_owned(), Mount { point, read_only, turned_read_only }))
}

/// Octal escapes of white space and backslash (proc(5)).
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
