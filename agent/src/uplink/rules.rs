//! What an HTTP answer means, how long to wait, when to renew, how many records to send. Pure.
//!
//! The poison search works at the head of the queue: a refused batch is halved until one record is left, and a record refused
//! alone three times is set aside. It must never set aside a record for any refusal but `bad_message` and `too_large`.

use std::time::Duration;

use mainstay_shared::api::error_words;
use mainstay_shared::limits::MAX_RECORDS;
use mainstay_shared::time_source::UnixMs;
use ring::rand::SecureRandom;

use super::Validity;

/// What a status and error word mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    Wait,
    Refused,
    NotEnrolled,
    Stale,
}

/// The meaning of an answer's status and error word.
pub(super) fn judge(status: u16, word: &str) -> Verdict {
    match (status, word) {
        (200, _) => Verdict::Taken,
        (401, _) | (_, error_words::NOT_ENROLLED) => Verdict::NotEnrolled,
        (409, _) | (_, error_words::STALE_REQUEST) => Verdict::Stale,
        // A refusal without our word is some device's on the way, not the collector's judgement of a record.
        (400 | 422, "") => Verdict::Wait,
        (400 | 413 | 422, _) | (202 | 403, error_words::WAITS_FOR_OPERATOR | error_words::BAD_JOIN_SECRET) => Verdict::Refused,
        _ => Verdict::Wait,
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// `Retry-After` as seconds or as an HTTP date, at most an hour.
pub(super) fn retry_after(header: &str, now: UnixMs) -> Option<Duration> {
    let wait = match header.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(header.trim()).ok()?;
            Duration::from_millis(u64::try_from(UnixMs(at.timestamp_millis()).since_ms(now)).ok()?)
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Waiting times after failures: full jitter between nothing and a limit that doubles from 1 s to 60 s.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const LIMIT_MS: u64 = 60_000;

    /// The next wait; never under 100 ms.
    pub(crate) fn next(&mut self, rng: &dyn SecureRandom) -> Duration {
        let limit_ms = (1000u64 << self.failures.min(6)).min(Self::LIMIT_MS);
        self.failures = self.failures.saturating_add(1);
        let mut bytes = [0; 8];
        // Without randomness the longest wait is the kindest.
        let drawn = rng.fill(&mut bytes).map_or(limit_ms, |()| u64::from_le_bytes(bytes) % limit_ms);
        Duration::from_millis(drawn.max(100))
    }

    /// Whether the last try went well.
    pub(crate) fn is_reset(&self) -> bool {
        self.failures == 0
    }

    /// Something was taken: begin anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Whether a certificate of that validity should be renewed now: at two thirds of its life.
pub(crate) fn renewal_is_due(now: UnixMs, validity: Validity) -> bool {
    let life_ms = validity.not_after.since_ms(validity.not_before);
    now.since_ms(validity.not_before) >= life_ms / 3 * 2
}

/// How many records the next report carries, and what a refusal leads to.
#[derive(Debug)]
pub(crate) struct BatchSize {
    records: usize,
    refused_alone: u8,
}

/// What to do after a refused batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRefusal {
    /// Send fewer.
    Smaller,
    /// Send the same single record again, later.
    Again,
    /// Set this single record aside.
    SetAside,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { records: MAX_RECORDS, refused_alone: 0 }
    }
}

impl BatchSize {
    const REFUSALS_BEFORE_SETTING_ASIDE: u8 = 3;

    /// How many records to take.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// A batch was taken: grow again.
    pub(crate) fn taken(&mut self) {
        self.records = (self.records * 2).min(MAX_RECORDS);
        self.refused_alone = 0;
    }

    /// A batch of `sent` records was refused as `bad_message` or too large.
    pub(crate) fn refused(&mut self, sent: usize) -> AfterRefusal {
        if sent > 1 {
            self.records = sent / 2;
            return AfterRefusal::Smaller;
        }
        self.records = 1;
        self.refused_alone += 1;
        if self.refused_alone < Self::REFUSALS_BEFORE_SETTING_ASIDE {
            return AfterRefusal::Again;
        }
        self.refused_alone = 0;
        AfterRefusal::SetAside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_status_and_word() {
        let table: &[(&str, u16, &str, Verdict)] = &[
            ("taken", 200, "", Verdict::Taken),
            ("unknown certificate", 401, "not_enrolled", Verdict::NotEnrolled),
            ("an older request overtaken", 409, "stale_request", Verdict::Stale),
            ("poison", 400, "bad_message", Verdict::Refused),
            ("a bad request that does not say why", 400, "", Verdict::Wait),
            ("too large, says the collector", 413, "too_large", Verdict::Refused),
            ("a body too large is searched like poison", 413, "", Verdict::Refused),
            ("too much", 429, "slow_down", Verdict::Wait),
            ("a proxy's error page", 502, "", Verdict::Wait),
            ("a proxy that wants another password is no refusal of ours", 403, "", Verdict::Wait),
            ("a used join string", 403, "bad_join_secret", Verdict::Refused),
            ("an operator has to click", 202, "waits_for_operator", Verdict::Refused),
            ("a redirect is not followed", 302, "", Verdict::Wait),
        ];
        for (sentence, status, word, expected) in table {
            assert_eq!(judge(*status, word), *expected, "{sentence}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_never_exceeds_an_hour() {
        let now = UnixMs(784_111_777_000);
        let table = [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", None),
            ("999999", Some(3600)),
            ("soon", None),
        ];
        for (header, seconds) in table {
            assert_eq!(retry_after(header, now), seconds.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn one_poison_record_among_many_is_found_and_set_aside_after_three_refusals() {
        let (mut queue, poison, mut size, mut set_aside) = ((0..1000).collect::<Vec<_>>(), 700, BatchSize::default(), Vec::new());
        for round in 0.. {
            assert!(round < 100, "the search ends");
            if queue.is_empty() {
                break;
            }
            let batch: Vec<_> = queue.iter().copied().take(size.records()).collect();
            if !batch.contains(&poison) {
                queue.drain(..batch.len());
                size.taken();
            } else if size.refused(batch.len()) == AfterRefusal::SetAside {
                set_aside.push(queue.remove(0));
            }
        }
        assert_eq!(set_aside, [poison]);
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life() {
        let validity = Validity { not_before: UnixMs(0), not_after: UnixMs(90) };
        assert_eq!([59, 60, 91].map(|now| renewal_is_due(UnixMs(now), validity)), [false, true, true]);
    }

    #[test]
    fn waits_grow_stay_jittered_and_end_at_a_minute() {
        let rng = ring::rand::SystemRandom::new();
        let mut backoff = Backoff::default();
        for limit_s in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = backoff.next(&rng);
            assert!(wait >= Duration::from_millis(100) && wait <= Duration::from_secs(limit_s), "{wait:?} of {limit_s} s");
        }
    }
}
