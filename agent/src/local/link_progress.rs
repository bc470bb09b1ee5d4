//! How far a download is, on standard error: a bar that is drawn over itself in a terminal, a line every tenth in a pipe.
//!
//! With `--json` nothing is shown. It decides nothing.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use mainstay_shared::time_source::TimeSource;

use super::Output;
use super::words::pick;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const BAR_COLUMNS: usize = 30;

/// The bar.
pub(super) struct Bar {
    output: Output,
    terminal: bool,
    time: TimeSource,
    /// When it was drawn last, the first bytes and when they were here.
    drawn: Option<Duration>,
    first: Option<(u64, Duration)>,
    /// The last tenth that was told.
    tenth: Option<u64>,
    last: (u64, Option<u64>),
}

impl Bar {
    /// For what this command prints.
    pub(super) fn new(output: Output, time: TimeSource) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { output, terminal, time, drawn: None, first: None, tenth: None, last: (0, None) }
    }

    /// So much is here.
    pub(super) fn show(&mut self, here: u64, total: Option<u64>) {
        self.last = (here, total);
        if self.output.json {
            return;
        }
        let now = self.time.monotonic();
        let (first, since) = *self.first.get_or_insert((here, now));
        if self.terminal {
            if self.drawn.is_none_or(|at| now.saturating_sub(at) >= DRAW_EVERY) || Some(here) == total {
                self.drawn = Some(now);
                let took_ms = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX).max(1);
                let per_s = here.saturating_sub(first).saturating_mul(1000) / took_ms;
                drop(write!(std::io::stderr(), "\r{}  {}/s\u{1b}[K", self.line(here, total), mib(per_s)));
            }
            return;
        }
        let tenth = total.map_or(0, |total| here.saturating_mul(10) / total.max(1));
        if self.tenth != Some(tenth) {
            self.tenth = Some(tenth);
            eprintln!("{}", self.line(here, total));
        }
    }

    fn line(&self, here: u64, total: Option<u64>) -> String {
        let word = pick(self.output.lang, "下载", "download");
        let Some(total) = total else { return format!("{word} {}", mib(here)) };
        let percent = here.saturating_mul(100) / total.max(1);
        let sizes = format!("{} / {}", mib(here), mib(total));
        if !self.terminal {
            return format!("{word} {percent} %  {sizes}");
        }
        let full = usize::try_from(percent).unwrap_or(100).min(100) * BAR_COLUMNS / 100;
        format!("{word} [{}{}] {percent:>3} %  {sizes}", "#".repeat(full), "-".repeat(BAR_COLUMNS - full))
    }

    /// Leaves the line.
    pub(super) fn end(&mut self) {
        if self.terminal && self.drawn.is_some() {
            drop(writeln!(std::io::stderr()));
        }
    }
}

/// Bytes for a person.
pub(super) fn mib(bytes: u64) -> String {
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=1_048_575 => format!("{} KiB", bytes >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xF_FFFF) * 10) >> 20),
    }
}
