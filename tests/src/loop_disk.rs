//! A disk of the test's own: a file system in an image file, mounted by loop device, whose power can be cut; and a small tmpfs.
//! A cut is FS_IOC_GOINGDOWN without a log flush: what was not synced is gone, as after a real one. Needs root: without it a
//! test fails, it does not skip.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4 without its mercy for programs that rename before they sync (`noauto_da_alloc`).
    Ext4,
    /// xfs.
    Xfs,
    /// A tmpfs of so many bytes: a disk that fills up.
    Tmpfs(u64),
}

/// A mounted disk; unmounted and deleted when dropped.
#[derive(Debug)]
pub struct LoopDisk {
    kind: Kind,
    mounted: bool,
    folder: TempDir,
}

impl LoopDisk {
    /// Makes and mounts it.
    ///
    /// # Errors
    /// Without root, loop devices or the file system's tools: names the step.
    pub fn mount(kind: Kind) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("power cuts and full disks are proved on mounted images: run this test as root");
        }
        make_device_nodes()?;
        let folder = tempfile::Builder::new().prefix("mainstay-disk-").tempdir()?;
        let disk = Self { kind, mounted: false, folder };
        std::fs::create_dir(disk.path())?;
        let image = disk.image();
        let make = |megabytes: u64, program: &str| -> Result<()> {
            std::fs::File::create(&image)?.set_len(megabytes << 20)?;
            done(Command::new(program).arg("-q").arg(&image))
        };
        match kind {
            // The smallest that xfs supports; the image file is sparse.
            Kind::Xfs => make(300, "mkfs.xfs")?,
            Kind::Ext4 => make(48, "mkfs.ext4")?,
            Kind::Tmpfs(_) => {}
        }
        let mut disk = disk;
        disk.mount_again()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount_again(&mut self) -> Result<()> {
        let mut mount = Command::new("mount");
        match self.kind {
            Kind::Ext4 => mount.args(["-o", "loop,noauto_da_alloc"]).arg(self.image()),
            Kind::Xfs => mount.args(["-o", "loop"]).arg(self.image()),
            Kind::Tmpfs(bytes) => mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]),
        };
        done(mount.arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: from here on nothing reaches the disk, and what was not synced never will.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn cut_power(&self) -> Result<()> {
        done(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path()))
    }

    /// Power is back: mounted anew, which replays its journal. Nothing may have a file open on it any more.
    ///
    /// # Errors
    /// When it can't be unmounted or mounted.
    pub fn power_up(&mut self) -> Result<()> {
        done(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        self.mount_again()
    }

    /// Mounts it with other options while it is in use (`abort`: ext4 turns read-only, as after an I/O error; `size=8M`).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remount(&self, options: &str) -> Result<()> {
        done(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()))
    }

    /// What was left broken is repaired, as at the next boot. It must not be in use.
    ///
    /// # Errors
    /// When the checker can't repair it.
    pub fn check_and_power_up(&mut self) -> Result<()> {
        done(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        if self.kind == Kind::Ext4 {
            // 1: errors were corrected.
            let checked = Command::new("fsck.ext4").arg("-p").arg(self.image()).output().context("fsck.ext4")?;
            anyhow::ensure!(checked.status.code().is_some_and(|code| code <= 1), "fsck.ext4: {checked:?}");
        }
        self.mount_again()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a program that a failed test left running must not keep the image mounted.
            done(Command::new("umount").arg("-l").arg(self.path())).ok();
        }
    }
}

/// A container or a bare chroot may have the kernel's loop devices without their names.
fn make_device_nodes() -> Result<()> {
    let make = |path: &str, kind: &str, major: u32, minor: u32| -> Result<()> {
        if Path::new(path).exists() {
            return Ok(());
        }
        done(Command::new("mknod").args(["-m", "600", path, kind, &major.to_string(), &minor.to_string()]))
    };
    // Numbers from the kernel's devices.txt.
    make("/dev/loop-control", "c", 10, 237)?;
    (0..8).try_for_each(|minor| make(&format!("/dev/loop{minor}"), "b", 7, minor))
}

fn done(command: &mut Command) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Whether `a` and `b` lie on different file systems.
///
/// # Errors
/// When one of them can't be asked.
pub fn are_apart(a: &Path, b: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(a)?.dev() != std::fs::metadata(b)?.dev())
}
