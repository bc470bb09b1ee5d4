//! The story of a report that can't be made: after ten minutes the box itself says so, since nobody at the vendor can know.
//!
//! The alarm is an ERROR in the journal that begins with `LOCAL ALARM`, the status line that systemd shows, and `status`. It is
//! told again every hour and is over with the first success. It watches and must never hold up or restart what it watches.

use std::time::Duration;

use mainstay_shared::time_source::TimeSource;

use super::contact::{Alarm, Contact, LOST_AFTER, UNRECORDED_AFTER};
use crate::lifecycle::{StopSignal, tell_systemd};
use crate::pause::Pause;
use crate::spool::Spool;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While the alarm sounds: its end is told soon.
const LOOK_FOR_THE_END_EVERY: Duration = Duration::from_secs(15);
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What the alarm watches.
pub(crate) struct Alarming {
    /// Whether something waits.
    pub(crate) spool: Spool,
    /// When the collector last answered and last took something.
    pub(crate) contact: Contact,
    /// Monotonic time.
    pub(crate) time: TimeSource,
}

/// Watches until `stop`.
///
/// # Errors
/// None.
pub(crate) async fn run(alarming: Alarming, stop: StopSignal) -> anyhow::Result<()> {
    let mut state = State::since(alarming.time.monotonic());
    let pause = Pause::new();
    loop {
        let wait = if state.alarm.is_some() { LOOK_FOR_THE_END_EVERY } else { LOOK_EVERY };
        tokio::select! {
            () = pause.wait(wait) => {}
            () = stop.clone().requested() => return Ok(()),
        }
        alarming.look(&mut state);
    }
}

impl Alarming {
    fn look(&self, state: &mut State) {
        let (facts, stats) = (self.contact.facts(), self.spool.stats());
        let seen = Seen {
            now: self.time.monotonic(),
            contact_at: facts.last_contact_mono,
            taken_at: facts.last_ack_mono,
            something_waits: stats.fault_records + stats.sample_records > 0,
            refusing_for: self.spool.refusing_for(),
        };
        let telling = state.next(&seen);
        self.contact.note(|facts| facts.alarm = state.alarm);
        let disk = self.spool.last_error();
        let why = disk.as_deref().or(facts.trouble.as_deref()).unwrap_or("unknown");
        match telling {
            Telling::Nothing => {}
            Telling::Alarm(alarm) => {
                let (waiting, text) = (stats.fault_records, alarm.text());
                tracing::error!(why, waiting_fault_records = waiting, "{text}");
                tell_systemd(text);
            }
            Telling::Over => {
                tracing::warn!("the local alarm is over: faults are recorded and the collector takes reports again");
                tell_systemd("reporting");
            }
        }
    }
}

/// Facts of one look; all times are monotonic.
#[derive(Debug, Clone, Copy)]
struct Seen {
    now: Duration,
    contact_at: Option<Duration>,
    taken_at: Option<Duration>,
    something_waits: bool,
    refusing_for: Option<Duration>,
}

/// What is to be told after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Nothing,
    Alarm(Alarm),
    Over,
}

#[derive(Debug)]
struct State {
    began_at: Duration,
    waits_since: Option<Duration>,
    alarm: Option<Alarm>,
    told_at: Duration,
}

impl State {
    fn since(began_at: Duration) -> Self {
        Self { began_at, waits_since: None, alarm: None, told_at: began_at }
    }

    fn next(&mut self, seen: &Seen) -> Telling {
        self.waits_since = match self.waits_since {
            _ if !seen.something_waits => None,
            None => Some(seen.now),
            since => since.max(seen.taken_at),
        };
        let long_ago = |at: Duration| seen.now.saturating_sub(at) >= LOST_AFTER;
        let before = self.alarm;
        self.alarm = if seen.refusing_for.is_some_and(|span| span >= UNRECORDED_AFTER) {
            Some(Alarm::NotRecording)
        } else if long_ago(seen.contact_at.unwrap_or(self.began_at)) {
            Some(Alarm::NoContact)
        } else if self.waits_since.is_some_and(long_ago) {
            Some(Alarm::ReportsNotTaken)
        } else {
            None
        };
        match self.alarm {
            Some(alarm) if before != self.alarm || seen.now.saturating_sub(self.told_at) >= TELL_AGAIN_AFTER => {
                self.told_at = seen.now;
                Telling::Alarm(alarm)
            }
            None if before.is_some() => Telling::Over,
            _ => Telling::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::record::{Payload, TestMessage};
    use mainstay_shared::time_source::UnixMs;
    use ring::rand::SystemRandom;

    use super::*;
    use crate::spool::Limits;

    #[test]
    fn the_alarm_sounds_after_ten_minutes_again_every_hour_and_ends_with_the_first_success() {
        use Telling::{Alarm as Tell, Nothing, Over};
        let (no_contact, not_taken) = (Tell(Alarm::NoContact), Tell(Alarm::ReportsNotTaken));
        // Minute, last contact, last acknowledgement, whether something waits, what is told.
        let table = [
            (9, None, None, true, Nothing, "never reached, but not for long"),
            (10, None, None, true, no_contact, "never reached for ten minutes"),
            (69, None, None, true, Nothing, "told within the hour"),
            (70, None, None, true, no_contact, "an hour later"),
            (71, Some(71), Some(71), true, Over, "reached again"),
            (80, Some(80), Some(71), true, Nothing, "the last record was taken nine minutes ago"),
            (81, Some(81), Some(71), true, not_taken, "answers, but takes nothing"),
            (92, Some(81), Some(71), true, no_contact, "does not even answer now"),
            (93, Some(93), Some(71), false, Over, "answers, and nothing waits"),
            (120, Some(120), Some(71), true, Nothing, "what waits since just now is not late"),
        ];
        let minute = |n: u64| Duration::from_secs(60 * n);
        let mut state = State::since(minute(0));
        for (now, contact, taken, something_waits, telling, sentence) in table {
            let (contact_at, taken_at) = (contact.map(minute), taken.map(minute));
            let seen = Seen { now: minute(now), contact_at, taken_at, something_waits, refusing_for: None };
            assert_eq!(state.next(&seen), telling, "minute {now}: {sentence}");
        }
        let well =
            Seen { now: minute(130), contact_at: Some(minute(130)), taken_at: None, something_waits: false, refusing_for: None };
        let refused = |seconds| Seen { refusing_for: Some(Duration::from_secs(seconds)), ..well };
        assert_eq!(state.next(&refused(59)), Nothing, "a disk that refuses for a moment");
        assert_eq!(state.next(&refused(60)), Tell(Alarm::NotRecording), "for a minute, though the collector answers");
        assert_eq!(state.next(&well), Over, "it writes again");
    }

    #[tokio::test]
    async fn what_status_reads_says_so_while_a_record_waits_and_no_more_when_the_collector_answers() {
        let dir = tempfile::tempdir().unwrap();
        let time = TimeSource::manual(UnixMs(1_795_000_000_000));
        let limits = Limits { max_bytes: 16 << 20 };
        let (spool, _) = Spool::open(dir.path(), limits, &SystemRandom::new(), time.clone()).unwrap();
        let alarming = Alarming { spool, contact: Contact::default(), time: time.clone() };
        let mut state = State::since(time.monotonic());
        alarming.spool.push(Payload::Test(TestMessage { mark: "1".into(), note: String::new() })).await.unwrap();
        alarming.look(&mut state);
        assert_eq!(alarming.contact.facts().alarm, None);
        time.advance(LOST_AFTER);
        alarming.look(&mut state);
        assert_eq!(alarming.contact.facts().alarm, Some(Alarm::NoContact));
        alarming.contact.reached(&time);
        alarming.look(&mut state);
        assert_eq!(alarming.contact.facts().alarm, Some(Alarm::ReportsNotTaken), "the record still waits");
        alarming.contact.note(|facts| facts.last_ack_mono = Some(time.monotonic()));
        alarming.look(&mut state);
        assert_eq!(alarming.contact.facts().alarm, None);
    }
}
