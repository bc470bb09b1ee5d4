//! Install windows: weekly, local time, e.g. `sat 02:00-05:00`. Whether one is open, and when the next three open.
//!
//! Pure: the moment and the time zone are arguments. No window set means any time. It must never count a window open because a clock
//! change swallowed its begin: a span that doesn't exist that night is skipped.

use chrono::{Datelike as _, Days, NaiveTime, TimeZone, Weekday};
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

/// A weekly span in local time; one that ends at or before its begin ends on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    day: Weekday,
    from: NaiveTime,
    to: NaiveTime,
}

/// `[install_window]` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// Spans such as `sat 02:00-05:00`.
    #[serde(default)]
    pub(super) times: Vec<String>,
}

/// All windows; none: any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Windows(Vec<Window>);

impl Window {
    fn read(text: &str) -> Option<Self> {
        let (day, span) = text.trim().split_once(' ')?;
        let (from, to) = span.trim().split_once('-')?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        Some(Self { day: day.parse().ok()?, from: time(from)?, to: time(to)? })
    }

    /// Begin and end of the span that begins on `date`, if it exists there.
    fn on<Z: TimeZone>(&self, date: chrono::NaiveDate, zone: &Z) -> Option<(UnixMs, UnixMs)> {
        let end_date = if self.to <= self.from { date.checked_add_days(Days::new(1))? } else { date };
        let moment = |date: chrono::NaiveDate, time| {
            let found = zone.from_local_datetime(&chrono::NaiveDateTime::new(date, time));
            Some(UnixMs(found.earliest()?.timestamp_millis()))
        };
        Some((moment(date, self.from)?, moment(end_date, self.to)?))
    }

    /// The spans that begin from a day before `now` to two weeks and a day after it.
    fn around<Z: TimeZone>(&self, now: UnixMs, zone: &Z) -> Vec<(UnixMs, UnixMs)> {
        let Some(today) = zone.timestamp_millis_opt(now.0).single().map(|t| t.date_naive()) else { return Vec::new() };
        let Some(start) = today.checked_sub_days(Days::new(1)) else { return Vec::new() };
        let days = (0..30).filter_map(|n| start.checked_add_days(Days::new(n)));
        days.filter(|date| date.weekday() == self.day).filter_map(|date| self.on(date, zone)).collect()
    }
}

impl Windows {
    /// Reads what was written.
    ///
    /// # Errors
    /// Names the text and what is accepted.
    pub(super) fn read(written: &Written) -> anyhow::Result<Self> {
        let one = |text: &String| {
            Window::read(text)
                .ok_or_else(|| anyhow::anyhow!("install_window.times: {text:?}: expected such as \"sat 02:00-05:00\""))
        };
        Ok(Self(written.times.iter().map(one).collect::<anyhow::Result<_>>()?))
    }

    /// Whether something may be installed at `now`.
    pub(super) fn is_open<Z: TimeZone>(&self, now: UnixMs, zone: &Z) -> bool {
        self.0.is_empty() || self.0.iter().flat_map(|w| w.around(now, zone)).any(|(from, to)| from <= now && now < to)
    }

    /// When the next three open, after `now`.
    pub(super) fn next_three<Z: TimeZone>(&self, now: UnixMs, zone: &Z) -> Vec<UnixMs> {
        let mut begins: Vec<_> = self.0.iter().flat_map(|w| w.around(now, zone)).map(|(from, _)| from).collect();
        begins.retain(|from| *from > now);
        begins.sort_unstable();
        begins.dedup();
        begins.truncate(3);
        begins
    }
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, NaiveDateTime};

    use super::*;

    fn shanghai() -> FixedOffset {
        FixedOffset::east_opt(8 * 3600).unwrap()
    }

    fn at(text: &str) -> UnixMs {
        let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        UnixMs(shanghai().from_local_datetime(&local).unwrap().timestamp_millis())
    }

    fn windows(times: &[&str]) -> Windows {
        Windows::read(&Written { times: times.iter().map(|t| (*t).to_owned()).collect() }).unwrap()
    }

    #[test]
    fn a_window_is_open_within_its_span_of_local_time_and_at_no_other() {
        let table = [
            ("no window set: any time", &[][..], "2026-11-23 12:00", true),
            ("within", &["sat 02:00-05:00"], "2026-11-28 02:00", true),
            ("a minute before", &["sat 02:00-05:00"], "2026-11-28 01:59", false),
            ("at its end", &["sat 02:00-05:00"], "2026-11-28 05:00", false),
            ("another day", &["sat 02:00-05:00"], "2026-11-29 03:00", false),
            ("over midnight, the evening", &["fri 23:00-01:00"], "2026-11-27 23:30", true),
            ("over midnight, the night", &["fri 23:00-01:00"], "2026-11-28 00:59", true),
            ("a second span", &["mon 01:00-02:00", "sat 02:00-05:00"], "2026-11-28 03:00", true),
        ];
        for (what, times, now, open) in table {
            assert_eq!(windows(times).is_open(at(now), &shanghai()), open, "{what}");
        }
    }

    #[test]
    fn the_next_three_are_told_in_order() {
        let found = windows(&["sat 02:00-05:00", "wed 02:00-03:00"]).next_three(at("2026-11-28 02:30"), &shanghai());
        assert_eq!(found, [at("2026-12-02 02:00"), at("2026-12-05 02:00"), at("2026-12-09 02:00")]);
        assert!(windows(&[]).next_three(at("2026-11-28 02:30"), &shanghai()).is_empty());
    }

    #[test]
    fn a_text_that_is_no_window_is_named() {
        let error = Windows::read(&Written { times: vec!["saturday night".into()] }).unwrap_err();
        assert!(error.to_string().contains("saturday night"));
    }
}
