//! What is told of the machine once, at start: its name, system, boot id and uptime.
//!
//! Equal boot ids mean that the machine was not restarted between (random(4)). It must never be used as an identity: that is
//! the certificate's.

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
    /// The machine whose files are at `place`; the system's name is always this machine's (os-release(5)).
    pub(crate) fn look(place: &Place) -> Self {
        let release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| std::fs::read_to_string(path).ok());
        let system = release.as_deref().and_then(pretty_name).unwrap_or("Linux");
        let kernel = |name: &str| place.read_proc(&format!("sys/kernel/{name}")).map(|text| text.trim().to_owned());
        let known = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned());
        let uptime = place.read_proc("uptime").unwrap_or_default();
        Self {
            hostname: known(kernel("hostname")),
            platform: format!("{system}, kernel {}, {}", known(kernel("osrelease")), std::env::consts::ARCH),
            boot_id: kernel("random/boot_id").unwrap_or_default(),
            uptime_s: uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
        }
    }
}

fn pretty_name(os_release: &str) -> Option<&str> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches(['"', '\''])).filter(|name| !name.is_empty())
}
