//! The log: lines on standard error, for people or as JSON. Nothing else is written anywhere.
//!
//! In the journal a line carries its priority (sd-daemon(3)) and no time, so that `journalctl -p err` finds the local alarm.
//! `MAINSTAY_LOG` says how much is told. Started once by `main`; no secret may be logged (R33).

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Starts the log. A `MAINSTAY_LOG` that is no level counts as `info`.
pub(crate) fn to_stderr(format: LogFormat) {
    let level = std::env::var("MAINSTAY_LOG").ok().and_then(|name| name.parse().ok()).unwrap_or(LevelFilter::INFO);
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = match format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Text if in_journal => log.with_ansi(false).event_format(ForJournal::default()).try_init(),
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    if let Err(error) = started {
        eprintln!("mainstay-agent: logs can't be written: {error}");
    }
}

/// A line as the journal wants it: its priority first, no time.
struct ForJournal(Format<Full, ()>);

impl Default for ForJournal {
    fn default() -> Self {
        Self(Format::default().without_time().with_target(false).with_ansi(false))
    }
}

/// The priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}
