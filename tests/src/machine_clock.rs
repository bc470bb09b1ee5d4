//! A machine's wall clock in a test's hand: libfaketime preloaded into one program, its time read from a file that the test
//! rewrites. Monotonic time stays true, as on a real machine whose clock is set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use tempfile::TempDir;

/// A wall clock for one or several programs; its copies are the same clock.
#[derive(Debug, Clone)]
pub struct MachineClock {
    folder: Arc<TempDir>,
    library: PathBuf,
}

impl MachineClock {
    /// A clock that starts at `at` for each program and then runs.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn starting_at(at: DateTime<Utc>) -> Result<Self> {
        Self::showing(&format!("@{}", at.format("%Y-%m-%d %H:%M:%S")))
    }

    /// A clock that shows the true time until it is moved.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn true_time() -> Result<Self> {
        Self::showing("+0")
    }

    fn showing(text: &str) -> Result<Self> {
        let library = std::fs::read_dir("/usr/lib")?
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
            .find(|path| path.is_file())
            .context("libfaketime is not installed (scripts/setup.sh misc)")?;
        let clock = Self { folder: Arc::new(tempfile::tempdir()?), library };
        clock.write(text)?;
        Ok(clock)
    }

    /// Shifts the true time by so many seconds from now on.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn jump_to_offset(&self, seconds: i64) -> Result<()> {
        self.write(&format!("{seconds:+}"))
    }

    /// Makes `command` live by this clock.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            // What a killed program leaves in shared memory would stop the next one with its process id.
            .env("FAKETIME_DISABLE_SHM", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("now")
    }

    /// A reader never sees half a time: written aside, then renamed.
    fn write(&self, text: &str) -> Result<()> {
        let aside: &Path = &self.folder.path().join("next");
        std::fs::write(aside, text)?;
        std::fs::rename(aside, self.file()).context("setting the machine's clock")
    }
}
