//! A clock as a picture: a bar that counts in lists, a drawn span with warning, deadline, and the proof or the present on the
//! ticket's page. Pure; the script only moves what is drawn here.

use mainstay_shared::time_source::UnixMs;

use crate::clocks::{Clock, ClockState};
use crate::words::Words;
use crate::words::when;

/// The width of a list's bar, in its own units.
const BAR: f64 = 120.0;
/// The width of the drawn span.
const SPAN: f64 = 620.0;

/// A clock, ready to draw.
#[derive(Debug, Clone)]
pub(crate) struct ClockView {
    pub(crate) kind: &'static str,
    /// `calm`, `warn`, `over`, `met`, `late`, `void`: the class and the key of its word.
    pub(crate) mood: &'static str,
    /// Without proof: it counts.
    pub(crate) counts: bool,
    pub(crate) from: i64,
    pub(crate) due: i64,
    pub(crate) bar_full: f64,
    pub(crate) bar_now: String,
    /// `12:05`, or `-3:10` past the deadline; before the script takes over.
    pub(crate) left: String,
    /// How long it took to the proof, or how long past the deadline it is.
    pub(crate) took: String,
    pub(crate) started: String,
    pub(crate) started_hour: String,
    pub(crate) due_at: String,
    pub(crate) due_hour: String,
    pub(crate) warn_hour: String,
    pub(crate) end_hour: String,
    pub(crate) policy: i64,
    pub(crate) warn_x: String,
    pub(crate) due_x: String,
    pub(crate) end_x: String,
}

/// `clock` as it stands at `now`.
pub(crate) fn view(w: Words, clock: &Clock, now: UnixMs, zone: &str) -> ClockView {
    let end = clock.stopped_at.unwrap_or(now);
    let span = clock.due_at.since_ms(clock.started_at).max(1) as f64;
    // The picture reaches a little past whichever is later, the deadline or the proof.
    let whole = (end.max(clock.due_at).since_ms(clock.started_at) as f64 * 1.06).max(1.0);
    let x = |at: UnixMs| format!("{:.1}", (at.since_ms(clock.started_at) as f64 / whole * SPAN).clamp(0.0, SPAN));
    let left_ms = clock.due_at.since_ms(now);
    let gone = (now.since_ms(clock.started_at) as f64 / span).clamp(0.0, 1.0);
    ClockView {
        kind: clock.kind.as_str(),
        mood: mood(clock, now),
        counts: counts(clock),
        from: clock.started_at.0,
        due: clock.due_at.0,
        bar_full: BAR,
        bar_now: format!("{:.1}", gone * BAR),
        left: left(left_ms),
        took: when::lasting(w, end.since_ms(clock.started_at)),
        started: when::moment(clock.started_at, zone),
        started_hour: when::hour(clock.started_at, zone),
        due_at: when::moment(clock.due_at, zone),
        due_hour: when::hour(clock.due_at, zone),
        warn_hour: when::hour(clock.warn_at, zone),
        end_hour: when::hour(end, zone),
        policy: clock.policy_version,
        warn_x: x(clock.warn_at),
        due_x: x(clock.due_at),
        end_x: x(end),
    }
}

/// Whether a clock still waits for its proof.
pub(crate) fn counts(clock: &Clock) -> bool {
    clock.stopped_at.is_none() && matches!(clock.state, ClockState::Running | ClockState::Missed)
}

fn mood(clock: &Clock, now: UnixMs) -> &'static str {
    match clock.state {
        ClockState::Void => "void",
        ClockState::Met => "met",
        ClockState::Missed if clock.stopped_at.is_some() => "late",
        ClockState::Missed => "over",
        ClockState::Running if now >= clock.due_at => "over",
        ClockState::Running if now >= clock.warn_at => "warn",
        ClockState::Running => "calm",
    }
}

fn left(ms: i64) -> String {
    let seconds = ms.unsigned_abs() / 1000;
    let sign = if ms < 0 { "-" } else { "" };
    match seconds / 3600 {
        0 => format!("{sign}{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{sign}{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clocks::ClockKind;
    use crate::customers::Language;

    const MIN: i64 = 60_000;

    fn clock(state: ClockState, stopped: Option<i64>) -> Clock {
        Clock {
            tenant_id: "t".into(),
            ticket_id: "T-000001".into(),
            clock_no: 1,
            kind: ClockKind::Response,
            policy_version: 1,
            state,
            started_at: UnixMs(0),
            warn_at: UnixMs(20 * MIN),
            due_at: UnixMs(30 * MIN),
            stopped_at: stopped.map(UnixMs),
            next_at: None,
        }
    }

    #[test]
    fn a_clock_shows_how_urgent_it_is_and_what_is_left() {
        let rows = [
            (ClockState::Running, None, 5, "calm", "25:00", "early"),
            (ClockState::Running, None, 21, "warn", "9:00", "after the warning"),
            (ClockState::Running, None, 31, "over", "-1:00", "past the deadline, not yet told"),
            (ClockState::Missed, None, 95, "over", "-1:05:00", "missed and unanswered"),
            (ClockState::Missed, Some(40), 95, "late", "-1:05:00", "answered late"),
            (ClockState::Met, Some(12), 95, "met", "-1:05:00", "answered in time"),
            (ClockState::Void, None, 1, "void", "29:00", "never counted"),
        ];
        for (state, stopped, now, mood, left, why) in rows {
            let view = view(Words(Language::En), &clock(state, stopped.map(|m: i64| m * MIN)), UnixMs(now * MIN), "UTC");
            assert_eq!((view.mood, view.left.as_str()), (mood, left), "{why}");
        }
    }
}
