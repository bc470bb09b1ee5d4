//! Moments and durations in words: times in the site's zone with its offset, durations in the reader's language. Pure.

use chrono_tz::Tz;
use mainstay_shared::time_source::UnixMs;

use super::Words;

/// `2026-11-22 16:54:07 +08:00` in `zone` (an IANA name; an unknown one counts as UTC).
pub(crate) fn moment(at: UnixMs, zone: &str) -> String {
    at.to_utc().with_timezone(&tz(zone)).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `11-22 16:54` in `zone`: where a line must be short and the full time stands in its title.
pub(crate) fn brief(at: UnixMs, zone: &str) -> String {
    at.to_utc().with_timezone(&tz(zone)).format("%m-%d %H:%M").to_string()
}

/// `16:54:07` in `zone`: for moments a few seconds apart, beside a full one.
pub(crate) fn second(at: UnixMs, zone: &str) -> String {
    at.to_utc().with_timezone(&tz(zone)).format("%H:%M:%S").to_string()
}

/// `16:54` in `zone`.
pub(crate) fn hour(at: UnixMs, zone: &str) -> String {
    at.to_utc().with_timezone(&tz(zone)).format("%H:%M").to_string()
}

fn tz(zone: &str) -> Tz {
    zone.parse().unwrap_or(Tz::UTC)
}

/// A duration in its two largest units: `2 h 05 min`, `14 min 03 s`.
pub(crate) fn lasting(w: Words, ms: i64) -> String {
    let seconds = ms.unsigned_abs() / 1000;
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => w.with("time.s", &[("s", &rest)]),
        (0, 0, _) => w.with("time.min_s", &[("min", &minutes), ("s", &format!("{rest:02}"))]),
        (0, _, _) => w.with("time.h_min", &[("h", &hours), ("min", &format!("{minutes:02}"))]),
        _ => w.with("time.d_h", &[("d", &days), ("h", &hours)]),
    }
}

/// How long ago, or "now".
pub(crate) fn ago(w: Words, now: UnixMs, at: UnixMs) -> String {
    let ms = now.since_ms(at);
    if ms < 5_000 { w.t("time.now").into_owned() } else { w.with("time.ago", &[("span", &lasting(w, ms))]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::customers::Language;

    #[test]
    fn times_stand_in_the_sites_zone_with_its_offset() {
        assert_eq!(moment(UnixMs(0), "Asia/Shanghai"), "1970-01-01 08:00:00 +08:00");
        assert_eq!(moment(UnixMs(0), "nowhere"), "1970-01-01 00:00:00 +00:00");
    }

    #[test]
    fn durations_have_two_units_in_the_readers_language() {
        let rows = [
            (Language::En, 9_000, "9 s"),
            (Language::En, 843_000, "14 min 03 s"),
            (Language::En, 7_500_000, "2 h 05 min"),
            (Language::Zh, 843_000, "14 分 03 秒"),
            (Language::Zh, 200_000_000, "2 天 7 小时"),
        ];
        for (language, ms, text) in rows {
            assert_eq!(lasting(Words(language), ms), text);
        }
    }
}
