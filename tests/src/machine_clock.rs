//! A machine's wall clock in a test's hand: a small library preloaded into programs (`machine_clock.c`), which shifts their wall
//! time by what the test writes into a file. Monotonic time stays true, as on a real machine whose clock is set.
//!
//! libfaketime will not do: where several threads ask it for the time, now and then one of them is given the true one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use mainstay_shared::time_source::TimeSource;
use tempfile::TempDir;

const SOURCE: &str = include_str!("machine_clock.c");

/// A wall clock for one or several programs; its copies are the same clock.
#[derive(Debug, Clone)]
pub struct MachineClock {
    folder: Arc<TempDir>,
}

impl MachineClock {
    /// A clock that shows `at` now, and goes on from there.
    ///
    /// # Errors
    /// When its library can't be built.
    pub fn starting_at(at: DateTime<Utc>) -> Result<Self> {
        let clock = Self::true_time()?;
        clock.jump_to_offset((at.timestamp_millis() - TimeSource::system().now().0) / 1000)?;
        Ok(clock)
    }

    /// A clock that shows the true time until it is moved.
    ///
    /// # Errors
    /// When its library can't be built.
    pub fn true_time() -> Result<Self> {
        let clock = Self { folder: Arc::new(tempfile::tempdir()?) };
        std::fs::write(clock.shift(), 0i64.to_ne_bytes())?;
        build(&clock.path("machine_clock.c"), &clock.library())?;
        Ok(clock)
    }

    /// Shifts the true time by so many seconds from now on.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn jump_to_offset(&self, seconds: i64) -> Result<()> {
        let file = File::options().write(true).open(self.shift())?;
        file.write_all_at(&seconds.to_ne_bytes(), 0).context("setting the machine's clock")
    }

    /// Makes `command` live by this clock.
    pub fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library()).env("MAINSTAY_TEST_CLOCK", self.shift()).env("TZ", "UTC");
    }

    fn shift(&self) -> PathBuf {
        self.path("shift")
    }

    fn library(&self) -> PathBuf {
        self.path("machine_clock.so")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn build(source: &Path, library: &Path) -> Result<()> {
    std::fs::write(source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source);
    ensure!(cc.status().context("cc")?.success(), "the clock's library can't be built");
    Ok(())
}
