//! What a process has cost the processor, from /proc: user and system time of all its threads, in ticks of 10 ms.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The kernel's ticks in a second, as every Linux of today shows them.
const TICKS: u64 = 100;

/// A process, or a server that serves from child processes.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// One process.
    Process(u32),
    /// A parent with all its children, those that have ended among them.
    Family(u32),
}

/// What it has used since its start.
///
/// # Errors
/// When it is gone.
pub fn used(whose: Of) -> Result<Duration> {
    match whose {
        Of::Process(pid) => Ok(ticks(own(&stat(pid)?))),
        Of::Family(pid) => {
            let parent = stat(pid)?;
            let mut all = own(&parent) + parent.get(13..15).map_or(0, |waited| waited.iter().sum());
            for entry in std::fs::read_dir("/proc")?.flatten() {
                let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                if let Ok(child) = stat(child)
                    && child.get(1) == Some(&u64::from(pid))
                {
                    all += own(&child);
                }
            }
            Ok(ticks(all))
        }
    }
}

/// The parent of a process.
///
/// # Errors
/// When it is gone.
pub fn parent(pid: u32) -> Result<u32> {
    Ok(u32::try_from(stat(pid)?[1])?)
}

fn own(fields: &[u64]) -> u64 {
    fields.get(11..13).map_or(0, |own| own.iter().sum())
}

/// The fields of `/proc/PID/stat` after the name: state (0), parent (1), ..., utime (11), stime (12), cutime (13), cstime (14).
fn stat(pid: u32) -> Result<Vec<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(Path::new(&path)).with_context(|| path.clone())?;
    let (_, fields) = text.rsplit_once(") ").with_context(|| path)?;
    Ok(fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS)
}
