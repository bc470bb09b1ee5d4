//! A real browser: headless Chromium behind chromedriver, both private to the test, with a fresh profile.
//! It is for what only a browser can tell: that pages work, that hostile text stays text, that no page speaks two languages.

use std::ops::Deref;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use thirtyfour::{CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver};

use crate::patience::{SOON, eventually};
use crate::process::{Daemon, tied};

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1400",
];

/// A browser window. [`WebDriver`]'s verbs work on it directly.
#[derive(Debug)]
pub struct Browser {
    window: WebDriver,
    _driver: Daemon,
    _home: TempDir,
}

impl Browser {
    /// Opens one that asks for pages in `language` (`zh-CN`, `en`) and accepts the test's own certificates.
    ///
    /// # Errors
    /// When Chromium or its driver is not installed or does not start.
    pub async fn open(language: &str) -> Result<Self> {
        install_crypto();
        let home = tempfile::Builder::new().prefix("mainstay-browser-").tempdir()?;
        let log = home.path().join("driver.log");
        let mut command = tied("chromedriver");
        command.arg("--port=0").current_dir("/").env("HOME", home.path());
        let mut driver = Daemon::start("chromedriver", command, &log).context("scripts/setup.sh browser")?;
        let port = eventually("chromedriver to name its port", SOON, async || {
            driver.must_run()?;
            Ok(port_in(&driver.log_text()))
        })
        .await?;
        let mut wanted = DesiredCapabilities::chrome();
        for flag in FLAGS {
            wanted.add_arg(flag)?;
        }
        wanted.add_arg(&format!("--user-data-dir={}", home.path().join("profile").display()))?;
        wanted.add_arg(&format!("--accept-lang={language}"))?;
        wanted.accept_insecure_certs(true)?;
        let window = WebDriver::new(format!("http://127.0.0.1:{port}"), wanted).await.context("opening a browser window")?;
        Ok(Self { window, _driver: driver, _home: home })
    }

    /// Closes it. A test that failed need not: its processes end with it.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub async fn close(self) -> Result<()> {
        Ok(self.window.quit().await?)
    }
}

impl Deref for Browser {
    type Target = WebDriver;
    fn deref(&self) -> &WebDriver {
        &self.window
    }
}

/// The product's crypto provider for every TLS client of the harness; the first call counts.
pub fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

fn port_in(log: &str) -> Option<u16> {
    log.lines().find(|line| line.contains("started successfully on port"))?.trim_end_matches('.').rsplit(' ').next()?.parse().ok()
}
