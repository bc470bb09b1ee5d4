//! Files of the repository that could not be read: which, why, and when each is tried again. Kept in memory by the node that reads.
//!
//! Without it an object that breaks off after gigabytes would be fetched anew in every pass, for ever. Pure: the time is an argument.

use std::collections::BTreeMap;

use mainstay_shared::time_source::UnixMs;

use super::place::Listed;

/// After its first failure a file waits so long, twice as long after each that follows.
const FIRST_WAIT_MS: i64 = 10_000;
/// And never longer.
const LONGEST_WAIT_MS: i64 = 10 * 60_000;

/// What could not be read, by name.
#[derive(Debug, Default)]
pub(crate) struct Unread(BTreeMap<String, Failure>);

#[derive(Debug)]
struct Failure {
    mark: String,
    times: u32,
    failed_at: UnixMs,
    why: String,
}

impl Unread {
    /// Why a file is not tried now; `None`: it may be, another content under its name at once.
    pub(crate) fn waits(&self, found: &Listed, now: UnixMs) -> Option<String> {
        let failure = self.0.get(&found.name).filter(|failure| failure.mark == found.mark)?;
        let wait_ms = FIRST_WAIT_MS.saturating_mul(1 << failure.times.saturating_sub(1).min(16)).min(LONGEST_WAIT_MS);
        // A clock that was set back keeps nothing waiting.
        (0..wait_ms).contains(&now.since_ms(failure.failed_at)).then(|| failure.why.clone())
    }

    /// It could not be read, again.
    pub(crate) fn failed(&mut self, found: &Listed, why: &str, now: UnixMs) {
        let before = self.0.get(&found.name).filter(|failure| failure.mark == found.mark).map_or(0, |failure| failure.times);
        let failure = Failure { mark: found.mark.clone(), times: before.saturating_add(1), failed_at: now, why: why.to_owned() };
        self.0.insert(found.name.clone(), failure);
    }

    /// Forgets what could be read, and what lies there no more.
    pub(crate) fn keep_only(&mut self, mut still: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| still(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fails_is_tried_ever_more_rarely_and_other_content_at_once() {
        let found = |mark: &str| Listed { name: "a.mpatch".to_owned(), mark: mark.to_owned() };
        let (mut unread, mut now) = (Unread::default(), UnixMs(1_795_334_400_000));
        assert_eq!(unread.waits(&found("1"), now), None, "nobody tried yet");
        for (times, wait_s) in [10, 20, 40, 80, 160, 320, 600, 600].into_iter().enumerate() {
            unread.failed(&found("1"), "it breaks off", now);
            let waits = |after_ms| unread.waits(&found("1"), now.plus_ms(after_ms));
            assert_eq!(waits(wait_s * 1000 - 1).as_deref(), Some("it breaks off"), "failure {times}");
            assert_eq!(waits(wait_s * 1000), None, "failure {times}");
            assert_eq!(waits(-1), None, "the clock was set back");
            assert_eq!(unread.waits(&found("2"), now), None, "other content");
            now = now.plus_ms(wait_s * 1000);
        }
        unread.keep_only(|_| false);
        unread.failed(&found("1"), "", now);
        assert_eq!(unread.waits(&found("1"), now.plus_ms(10_000)), None, "it begins anew");
    }
}
