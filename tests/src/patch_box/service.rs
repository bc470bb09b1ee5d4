//! The one service of the box's product: a program of the tree, so that what runs is told by the kernel and seen by the agent's check.
//! A program that ends at once is a crashing version; a tree whose `content` begins with `broken` runs and does not answer.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::PatchBox;

impl PatchBox {
    pub(super) fn write_scripts(&self) -> Result<()> {
        let (top, disk) = (self.folder.path().display(), self.disk.display());
        let start = format!(
            "#!/bin/sh\nif [ -f {top}/web.pid ] && readlink \"/proc/$(cat {top}/web.pid)/exe\" >/dev/null; then exit 0; fi\n\
             cd /\nsetsid {disk}/tree/current/bin/web 100000 >/dev/null 2>&1 </dev/null &\necho $! >{top}/web.pid\n\
             while readlink \"/proc/$!/exe\" | grep -q -E '/(setsid|[a-z]*sh)$'; do sleep 0.01; done\n"
        );
        let stop = format!(
            "#!/bin/sh\nif [ -f {top}/web.pid ]; then kill -9 \"$(cat {top}/web.pid)\" 2>/dev/null; fi\nrm -f {top}/web.pid\n"
        );
        let check = format!(
            "#!/bin/sh\ngrep -q web \"/proc/$(cat {top}/web.pid)/cmdline\" || exit 2\n\
             ! grep -q ^broken {disk}/tree/current/content || exit 2\n"
        );
        for (name, text) in [("web-start", start), ("web-stop", stop), ("web-check", check)] {
            std::fs::write(self.file(name), text)?;
            std::fs::set_permissions(self.file(name), std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Starts the service as the machine's own start would.
    ///
    /// # Errors
    /// When its script can't be run.
    pub fn start_service(&self) -> Result<()> {
        Command::new(self.file("web-start")).status().context("web-start")?;
        Ok(())
    }

    /// Stops it, as a power cut would.
    ///
    /// # Errors
    /// When its script can't be run.
    pub fn stop_service(&self) -> Result<()> {
        Command::new(self.file("web-stop")).status().context("web-stop")?;
        // One whose start was cut before its number was written down.
        for process in std::fs::read_dir("/proc")?.flatten() {
            let exe = std::fs::read_link(process.path().join("exe")).unwrap_or_default();
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (exe.starts_with(self.tree()), pid) {
                drop(crate::process::send(pid, rustix::process::Signal::KILL));
            }
        }
        Ok(())
    }

    /// What the agent's check would say of the service.
    #[must_use]
    pub fn service_state(&self) -> &'static str {
        if self.running().is_some() { "up" } else { "down" }
    }

    /// The program that the service runs, if it does.
    #[must_use]
    pub fn running(&self) -> Option<PathBuf> {
        let pid = std::fs::read_to_string(self.file("web.pid")).ok()?;
        std::fs::read_link(format!("/proc/{}/exe", pid.trim())).ok()
    }
}
