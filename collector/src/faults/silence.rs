//! Which appliances are silent, and whose silence it is: pure.
//!
//! Silent is who said no goodbye and was not heard for `silence_after`. A whole site is one silence; more than a fifth of unrelated
//! customers at once is ours. After the collector's own start nothing is judged until twice the longest interval has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{Datelike as _, Duration as Span, NaiveTime, TimeZone as _, Timelike as _};
use mainstay_shared::time_source::UnixMs;

/// A link that has not been heard for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuietLink {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) site_id: String,
    pub(crate) last_seen_at: UnixMs,
    /// Said by the run of the agent that was heard last; another run that speaks takes it away.
    pub(crate) goodbye_at: Option<UnixMs>,
    pub(crate) expected_back_at: Option<UnixMs>,
    pub(crate) silent_since_at: Option<UnixMs>,
    /// `""`: always on. `HH:MM-HH:MM`, in the site's time zone, or `mon-fri HH:MM-HH:MM`.
    pub(crate) expected_hours: String,
    /// IANA name.
    pub(crate) time_zone: String,
}

/// How a link is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Heard, or unheard for less than half of `silence_after`.
    Heard,
    /// Unheard for longer than a poll takes, not yet long enough: tells whether others are silent with it.
    Quiet,
    /// Silent since it was last heard.
    Silent,
    /// Unheard, rightly.
    Excused(Excuse),
}

/// Why nobody expects to hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// It said goodbye and is not overdue.
    Goodbye,
    /// Outside its expected hours.
    OffHours,
}

/// How long after its own start the collector judges nobody's silence.
pub(crate) fn start_grace(silence_after: Duration) -> Duration {
    // An agent polls at least every 60 s (DESIGN, Reports).
    2 * silence_after.max(Duration::from_secs(60))
}

/// Judges one link at `now`.
pub(crate) fn hearing(link: &QuietLink, now: UnixMs, silence_after: Duration) -> Hearing {
    let mut expected_from = link.last_seen_at;
    if link.goodbye_at.is_some() {
        match link.expected_back_at {
            None => return Hearing::Excused(Excuse::Goodbye),
            Some(back_at) if now <= back_at.plus(silence_after) => return Hearing::Excused(Excuse::Goodbye),
            Some(back_at) => expected_from = expected_from.max(back_at),
        }
    }
    match opened_at(&link.expected_hours, &link.time_zone, now) {
        Hours::Always => {}
        Hours::Closed => return Hearing::Excused(Excuse::OffHours),
        Hours::OpenSince(opened_at) => expected_from = expected_from.max(opened_at),
    }
    if now > expected_from.plus(silence_after) {
        Hearing::Silent
    } else if now > expected_from.plus(silence_after / 2) {
        Hearing::Quiet
    } else {
        Hearing::Heard
    }
}

/// Whether `now` is within an appliance's expected hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hours {
    Always,
    Closed,
    OpenSince(UnixMs),
}

/// Hours that can't be read mean always: better a ticket too many than a silence unseen.
fn opened_at(hours: &str, time_zone: &str, now: UnixMs) -> Hours {
    let Some((workdays_only, from, to)) = parse_hours(hours) else { return Hours::Always };
    let zone: chrono_tz::Tz = time_zone.parse().unwrap_or(chrono_tz::UTC);
    let local = zone.from_utc_datetime(&now.to_utc().naive_utc());
    let time = local.time().with_nanosecond(0).unwrap_or_default();
    let wraps = from > to;
    // The part after midnight of a span that crosses it belongs to the day before.
    let began_yesterday = wraps && time < to;
    let is_open = if wraps { time >= from || time < to } else { time >= from && time < to };
    let day = if began_yesterday { local.date_naive() - Span::days(1) } else { local.date_naive() };
    if !is_open || (workdays_only && day.weekday().number_from_monday() > 5) {
        return Hours::Closed;
    }
    let opened = zone.from_local_datetime(&day.and_time(from)).earliest();
    Hours::OpenSince(opened.map_or(now, |opened| UnixMs(opened.timestamp_millis())))
}

/// Whether [`hearing`] can read these hours: `HH:MM-HH:MM` or `mon-fri HH:MM-HH:MM`, the two times not the same.
pub(crate) fn can_read_hours(hours: &str) -> bool {
    parse_hours(hours).is_some_and(|(_, from, to)| from != to)
}

fn parse_hours(hours: &str) -> Option<(bool, NaiveTime, NaiveTime)> {
    let (workdays_only, span) = match hours.trim().strip_prefix("mon-fri ") {
        Some(span) => (true, span),
        None => (false, hours.trim()),
    };
    let (from, to) = span.split_once('-')?;
    let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
    Some((workdays_only, time(from)?, time(to)?))
}

/// Whose silence it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The customers' own.
    Customers,
    /// Too many unrelated customers fell silent within five minutes: probably ours.
    Ours { silent_customers: usize, customers: usize },
}

/// Within what time silences count together.
const TOGETHER_MS: i64 = 5 * 60_000;

/// Judges the silences that no ticket holds yet. `customers`: how many have appliances that were ever heard. Once judged ours it
/// stays so (`is_ours_already`) until no more than a fifth is left.
pub(crate) fn whose(
    unticketed: &[&QuietLink],
    customers: usize,
    is_ours_already: bool,
    now: UnixMs,
    silence_after: Duration,
) -> Whose {
    let fell_from = now.plus_ms(-TOGETHER_MS);
    let counted = unticketed.iter().filter(|link| is_ours_already || link.last_seen_at.plus(silence_after) >= fell_from);
    let silent_customers = counted.map(|link| link.tenant_id.as_str()).collect::<BTreeSet<_>>().len();
    if silent_customers >= 2 && silent_customers * 5 > customers {
        Whose::Ours { silent_customers, customers }
    } else {
        Whose::Customers
    }
}

/// The sites of which every one of several appliances is unheard, with them. `appliances`: how many each site has.
pub(crate) fn silent_sites<'a>(
    unheard: impl IntoIterator<Item = &'a QuietLink>,
    appliances: &BTreeMap<(String, String), usize>,
) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut sites: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for link in unheard {
        let site = sites.entry((link.tenant_id.clone(), link.site_id.clone())).or_default();
        site.insert(link.appliance_id.clone());
    }
    sites.retain(|site, unheard| unheard.len() > 1 && appliances.get(site).is_some_and(|count| unheard.len() >= *count));
    sites
}

#[cfg(test)]
mod tests;
