//! Which time to believe: the machine's, floored, or, once a certificate proved that to be far ahead, the last signed time plus age.
//!
//! Floor = max(RTC, build time, last verified signed time, persisted). Signed times are those of receipts and of certificates
//! under our roots. Only receipts are remembered across restarts, at most once an hour, to spare flash disks. Going back in
//! time never blocks (R27).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::time_source::{TimeSource, UnixMs};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::atomic_file;

const REMEMBER_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Believed {
    /// A signed time and the monotonic time at which it was verified.
    signed: Option<(UnixMs, Duration)>,
    machine_is_ahead: bool,
    remembered_at: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    signed_at: UnixMs,
}

/// The clock that certificates are judged by.
#[derive(Debug, Clone)]
pub(crate) struct TrustedClock {
    time: TimeSource,
    file: PathBuf,
    believed: Arc<Mutex<Believed>>,
}

impl TrustedClock {
    /// The clock over `time`, with what `state_dir` remembers.
    pub(crate) fn new(time: TimeSource, state_dir: &Path) -> Self {
        let file = state_dir.join("time.json");
        let remembered = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        time.raise_floor(built_at());
        let signed = remembered.map(|r| (r.signed_at, time.monotonic()));
        if let Some((at, _)) = signed {
            time.raise_floor(at);
        }
        Self { time, file, believed: Arc::new(Mutex::new(Believed { signed, machine_is_ahead: false, remembered_at: None })) }
    }

    fn believed(&self) -> std::sync::MutexGuard<'_, Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time to judge by.
    pub(crate) fn now(&self) -> UnixMs {
        let ahead = self.believed().machine_is_ahead;
        self.aged_signed_time().filter(|_| ahead).unwrap_or_else(|| self.time.now())
    }

    /// The last signed time plus the age since.
    pub(super) fn aged_signed_time(&self) -> Option<UnixMs> {
        let (at, since) = self.believed().signed?;
        Some(at.plus(self.time.monotonic().saturating_sub(since)))
    }

    /// A signature by our CA or the receipt key proved that it is at least `at`.
    pub(crate) fn verified(&self, at: UnixMs) {
        self.time.raise_floor(at);
        let now = self.time.monotonic();
        let mut believed = self.believed();
        if believed.signed.is_none_or(|(old, since)| old.plus(now.saturating_sub(since)) < at) {
            believed.signed = Some((at, now));
        }
    }

    /// A receipt's time, which is also remembered across restarts.
    pub(crate) fn verified_by_receipt(&self, at: UnixMs) {
        self.verified(at);
        let now = self.time.monotonic();
        let due = self.believed().remembered_at.is_none_or(|last| now.saturating_sub(last) >= REMEMBER_EVERY);
        if !due {
            return;
        }
        self.believed().remembered_at = Some(now);
        let bytes = serde_json::to_vec(&Remembered { signed_at: at }).unwrap_or_default();
        if let Err(error) = atomic_file::write_private(&self.file, &bytes) {
            tracing::warn!("the signed time can't be remembered: {error:#}");
        }
    }

    /// The machine's clock agrees with the collector's again.
    pub(crate) fn machine_is_right(&self) {
        self.believed().machine_is_ahead = false;
    }

    /// A certificate showed the machine's clock to be ahead of all certificates.
    pub(super) fn machine_is_ahead(&self) {
        if !std::mem::replace(&mut self.believed().machine_is_ahead, true) {
            tracing::warn!("the machine's clock is far ahead: certificates are judged by the last signed time");
        }
    }
}

impl TimeProvider for TrustedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.now()))
    }
}

/// `at` as rustls wants it; before 1970 is 1970.
pub(super) fn unix_time(at: UnixMs) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
}

/// When this program was built.
fn built_at() -> UnixMs {
    UnixMs(env!("MAINSTAY_BUILT_AT_S").parse::<i64>().unwrap_or(0).saturating_mul(1000))
}
