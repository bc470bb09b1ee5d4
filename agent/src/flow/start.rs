//! The story of a start: what ended the run before, whether this is a crash loop, and the first record of the new epoch.
//!
//! The judgement is pure and over the starts that the spool remembers. Three starts after crashes (no goodbye, same boot) within
//! five minutes of uptime are a crash loop: safe mode. Another boot without a goodbye is an unexpected reboot. It must never
//! trust wall time, which may have jumped in between.

use mainstay_shared::check::DeclaredService;
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::limits::{MAX_NAME_CHARS, MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::Installed;
use mainstay_shared::record::{Payload, Started};
use mainstay_shared::time_source::UnixMs;

use crate::faults;
use crate::probes::Host;
use crate::spool::{PastStart, Spool, SpoolError};

/// Crash starts within this much uptime count together.
const LOOP_WINDOW_S: u64 = 300;
/// So many of them are a loop.
const LOOP_STARTS: usize = 3;
/// The machine went down without a goodbye.
const CODE_REBOOTED: &str = "rebooted_unexpectedly";

/// How the run before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKind {
    /// There was none.
    First,
    /// It said goodbye.
    AfterGoodbye,
    /// It ended without a goodbye in this same boot.
    AfterCrash,
    /// Likewise, for at least the third time within five minutes.
    CrashLoop,
    /// The machine went down under it.
    AfterUnexpectedReboot,
}

impl StartKind {
    /// Whether heartbeats and service checks are all that runs.
    pub fn is_safe_mode(self) -> bool {
        self == Self::CrashLoop
    }
}

/// Judges a start in boot `boot_id` at `uptime_s` by the starts before it, oldest first.
pub fn judge(past: &[PastStart], boot_id: &str, uptime_s: u64) -> StartKind {
    let Some(last) = past.last() else { return StartKind::First };
    if last.goodbye {
        return StartKind::AfterGoodbye;
    }
    if last.boot_id != boot_id {
        return StartKind::AfterUnexpectedReboot;
    }
    // A run that crashed makes the start after it one "after a crash"; the present start is the last of them.
    let crashed = past.iter().rev().take_while(|s| !s.goodbye && s.boot_id == boot_id);
    let starts_after_crashes: Vec<u64> = std::iter::once(uptime_s).chain(crashed.map(|s| s.uptime_s)).collect();
    match starts_after_crashes.get(LOOP_STARTS - 1) {
        Some(third) if starts_after_crashes.len() > LOOP_STARTS && uptime_s.saturating_sub(*third) <= LOOP_WINDOW_S => {
            StartKind::CrashLoop
        }
        _ => StartKind::AfterCrash,
    }
}

/// Spools the epoch's first records: the start itself, then a fault that tells of safe mode or of an unexpected reboot.
///
/// # Errors
/// When the spool does not accept them.
pub async fn announce(
    spool: &Spool,
    kind: StartKind,
    machine: Host,
    (services, installed): (Vec<DeclaredService>, Option<Installed>),
    now: UnixMs,
) -> Result<(), SpoolError> {
    tracing::info!(?kind, epoch = %spool.epoch(), "started");
    let started = Started {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: clean_text(&machine.boot_id, MAX_NAME_CHARS),
        uptime_s: machine.uptime_s,
        hostname: clean_text(&machine.hostname, MAX_NAME_CHARS),
        platform: clean_text(&machine.platform, MAX_TEXT_CHARS),
        after_crash: matches!(kind, StartKind::AfterCrash | StartKind::CrashLoop),
        safe_mode: kind.is_safe_mode(),
        services,
        installed,
    };
    spool.push(Payload::Started(started)).await?;
    let safe_mode = faults::safe_mode_raised(now);
    let is_told = spool.open_episodes().iter().any(|open| open.last.key == safe_mode.key);
    if kind.is_safe_mode() && !is_told {
        spool.push(Payload::Fault(safe_mode)).await?;
    }
    if kind == StartKind::AfterUnexpectedReboot {
        let raised = reboot_fault(now);
        let episode = spool.push(Payload::Fault(raised.clone())).await?;
        let cleared = FaultChange { kind: FaultChangeKind::Cleared, episode: Some(episode), ..raised };
        spool.push(Payload::Fault(cleared)).await?;
    }
    Ok(())
}

fn reboot_fault(now: UnixMs) -> FaultChange {
    FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new("agent", CODE_REBOOTED),
        episode: None,
        level: Level::Serious,
        summary: "the machine was restarted without the agent being stopped first: power loss, crash or reset".into(),
        grounds: FaultGrounds::default(),
        at: now,
        present_at_start: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(script: &[(&str, u64, bool)]) -> Vec<PastStart> {
        script.iter().map(|(boot, up, bye)| PastStart { boot_id: (*boot).into(), uptime_s: *up, goodbye: *bye }).collect()
    }

    #[test]
    fn a_start_is_judged_by_the_starts_before_it() {
        type Row = (&'static str, &'static [(&'static str, u64, bool)], StartKind);
        let table: &[Row] = &[
            ("the very first", &[], StartKind::First),
            ("after a clean stop", &[("a", 10, true)], StartKind::AfterGoodbye),
            ("after a planned reboot", &[("b", 10, true)], StartKind::AfterGoodbye),
            ("after a crash", &[("a", 10, false)], StartKind::AfterCrash),
            ("two crash starts are no loop yet", &[("a", 900, false), ("a", 950, false)], StartKind::AfterCrash),
            (
                "the third crash start within five minutes",
                &[("a", 850, false), ("a", 900, false), ("a", 950, false)],
                StartKind::CrashLoop,
            ),
            ("the third, but slowly", &[("a", 10, false), ("a", 300, false), ("a", 950, false)], StartKind::AfterCrash),
            ("a clean stop ends a loop", &[("a", 900, false), ("a", 950, true), ("a", 960, false)], StartKind::AfterCrash),
            ("power loss", &[("b", 5000, false)], StartKind::AfterUnexpectedReboot),
            (
                "crashes of the boot before do not count",
                &[("b", 9, false), ("b", 9, false), ("a", 990, false)],
                StartKind::AfterCrash,
            ),
        ];
        for (sentence, script, expected) in table {
            assert_eq!(judge(&past(script), "a", 1000), *expected, "{sentence}");
        }
    }
}
