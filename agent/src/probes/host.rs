//! What is told of the machine once, at start: its name, system, boot id and uptime.
//!
//! Equal boot ids mean that the machine was not restarted between (random(4)). It must never be used as an identity: that is
//! the certificate's.

use sysinfo::System;

use super::Place;

/// The machine as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub hostname: String,
    /// System and kernel, for a person.
    pub platform: String,
    /// The kernel's boot id; empty if it can't be read.
    pub boot_id: String,
    /// Seconds since boot.
    pub uptime_s: u64,
}

impl Host {
    /// The machine whose files are at `place`; name and system are always this machine's.
    pub(crate) fn look(place: &Place) -> Self {
        let known = |text: Result<String, sysinfo::Error>| text.unwrap_or_else(|_| "unknown".to_owned());
        let system = known(System::long_os_version());
        let platform = format!("{system}, kernel {}, {}", known(System::kernel_version()), std::env::consts::ARCH);
        let uptime = place.read_proc("uptime").unwrap_or_default();
        Self {
            hostname: known(System::host_name()),
            platform,
            boot_id: place.read_proc("sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            uptime_s: uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
        }
    }
}
