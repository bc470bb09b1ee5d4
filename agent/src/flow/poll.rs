//! The story of the long poll: the heartbeat goes up with the current values, directives come down within a second.
//!
//! It runs beside the reports and never waits for them. A directive is acted on once, by its id; it carries no authority, so
//! all it can do is make the agent measure, report or renew now. In safe mode it goes on with empty values.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::api::{PATH_POLL, WIRE_VERSION};
use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::heartbeat::{PollReply, PollRequest, VALUE_NOT_RECORDING_S};
use mainstay_shared::limits::MAX_VALUES;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use super::contact::Contact;
use super::patch::PatchDesk;
use super::report;
use super::watch::Current;
use crate::lifecycle::StopSignal;
use crate::probes::ClockReference;
use crate::spool::{Spool, SpoolError};
use crate::uplink::{Backoff, Outcome, Uplink};

/// The answer may take this much longer than the wait that was asked for.
const GRACE: Duration = Duration::from_secs(20);
/// A collector that answers at once with nothing new is not asked again sooner than this.
const SHORTEST: Duration = Duration::from_secs(35);
const NOT_ENROLLED_WAIT: Duration = Duration::from_secs(300);
/// A report may hold up the next poll for so long.
const TURN: Duration = Duration::from_secs(5);
/// Offsets under this show that the machine's clock is right again.
const CLOCK_IS_RIGHT_MS: i64 = 3_600_000;
/// Between two polls that each brought something: a collector that always has more must not keep this machine busy.
const BETWEEN_ANSWERS: Duration = Duration::from_secs(1);
/// Of one answer; the rest comes again with the next.
const MAX_DIRECTIVES: usize = 16;
/// Longer ids are none of ours.
const MAX_ID_CHARS: usize = 64;
/// Between two polls that tell of progress.
const BETWEEN_NEWS: Duration = Duration::from_secs(1);
/// Directive ids remembered.
const REMEMBERED: usize = 64;

/// What polling needs.
pub(crate) struct Polling {
    /// For the epoch and the backlog.
    pub(crate) spool: Spool,
    /// The way out.
    pub(crate) uplink: Arc<Uplink>,
    /// The machine's clocks.
    pub(crate) time: TimeSource,
    /// Shared with the other loops.
    pub(crate) contact: Contact,
    /// Told the collector's clock.
    pub(crate) clock: ClockReference,
    /// Current values and service states.
    pub(crate) current: watch::Receiver<Current>,
    /// Makes the watching loop measure and report now.
    pub(crate) nudge: Arc<Notify>,
    /// Takes what concerns signed files; none where the settings say no.
    pub(crate) patches: Option<PatchDesk>,
    /// How long the collector may keep a poll.
    pub(crate) wait: Duration,
}

/// Polls until `stop`.
///
/// # Errors
/// When the spool has ended.
pub(crate) async fn run(polling: Polling, stop: StopSignal) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    let mut memory = Memory::default();
    let progress = polling.patches.as_ref().map(|desk| desk.progress.clone()).unwrap_or_default();
    let mut shown = progress.changes();
    while !stop.is_requested() {
        let began = polling.time.monotonic();
        shown.mark_unchanged();
        let outcome = tokio::select! {
            outcome = polling.ask(&memory) => outcome,
            // The progress of a patch is news for a page that somebody looks at.
            () = news(&mut shown) => continue,
            () = stop.clone().requested() => return Ok(()),
        };
        let wait = match outcome {
            Outcome::Sent(reply) => {
                backoff.reset();
                memory.told();
                let acted = polling.take(reply, &mut memory).await?;
                polling.offer_turn(&stop).await;
                let took = polling.time.monotonic().saturating_sub(began);
                let waited_enough = took + Duration::from_secs(5) >= polling.wait;
                let at_least = if acted { BETWEEN_ANSWERS } else { SHORTEST };
                if waited_enough { Duration::ZERO } else { at_least.saturating_sub(took) }
            }
            Outcome::RetryAfter { after, why } => {
                polling.contact.failed(&why);
                after.unwrap_or_else(|| backoff.next(&SystemRandom::new()))
            }
            Outcome::NotEnrolled { message } => {
                polling.contact.failed(&format!("the collector does not know this appliance's certificate: {message}"));
                polling.contact.note(|facts| facts.not_enrolled = true);
                NOT_ENROLLED_WAIT
            }
            Outcome::Refused { message, .. } | Outcome::Stale { message } => {
                polling.contact.failed(&message);
                NOT_ENROLLED_WAIT
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = news(&mut shown), if backoff.is_reset() => {}
            () = stop.clone().requested() => {}
        }
    }
    Ok(())
}

/// Resolves when something else is shown, not before a moment has passed: a poll given up costs a connection.
async fn news<T>(shown: &mut watch::Receiver<T>) {
    tokio::time::sleep(BETWEEN_NEWS).await;
    if shown.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Polling {
    async fn ask(&self, memory: &Memory) -> Outcome<PollReply> {
        let (mut values, services) = {
            let current = self.current.borrow();
            (current.values(), current.services.clone())
        };
        if let Some(refusing) = self.spool.refusing_for() {
            // What can't be recorded can't be reported; that it is so can be said here.
            values.insert(VALUE_NOT_RECORDING_S.to_owned(), refusing.as_secs_f64().round());
        }
        let stats = self.spool.stats();
        let request = PollRequest {
            version: WIRE_VERSION,
            epoch: self.spool.epoch().clone(),
            sent_at: self.time.now(),
            wait_s: u32::try_from(self.wait.as_secs()).unwrap_or(u32::MAX),
            values: values.into_iter().take(MAX_VALUES).collect(),
            services,
            backlog: stats.fault_records + stats.sample_records,
            done: memory.untold.clone(),
            patches: self.patches.as_ref().map(|desk| desk.progress.shown()).unwrap_or_default(),
        };
        self.contact.note(|facts| facts.requests += 1);
        self.uplink.post(PATH_POLL, &request, self.wait + GRACE).await
    }

    /// Lets a report that waits have the connection before the next poll takes it: else each would cost a handshake of its own.
    async fn offer_turn(&self, stop: &StopSignal) {
        let stats = self.spool.stats();
        if stats.fault_records + stats.sample_records == 0 {
            return;
        }
        let over = self.contact.turn_over.notified();
        tokio::pin!(over);
        over.as_mut().enable();
        self.contact.turn_offered.notify_one();
        tokio::select! {
            () = over => {}
            () = tokio::time::sleep(TURN) => {}
            () = stop.clone().requested() => {}
        }
    }

    /// Takes an answer; whether it asked for anything new.
    async fn take(&self, reply: PollReply, memory: &mut Memory) -> Result<bool, SpoolError> {
        if self.contact.reached(&self.time) {
            self.contact.report_now.notify_one();
        }
        self.clock.tell(reply.now, &self.time);
        if self.time.raw_now().since_ms(reply.now).abs() < CLOCK_IS_RIGHT_MS {
            self.uplink.clock().machine_is_right();
        }
        match report::restate_if_new(&self.spool, &reply.collector_epoch, &self.time).await {
            Err(SpoolError::Stopped) => return Err(SpoolError::Stopped),
            Err(error) => tracing::error!(%error, "open faults could not be restated; trying again"),
            Ok(()) => {}
        }
        let mut acted = false;
        for directive in reply.directives.into_iter().filter(|one| one.id.len() <= MAX_ID_CHARS).take(MAX_DIRECTIVES) {
            acted |= self.act(directive, memory, reply.now).await;
        }
        Ok(acted)
    }

    async fn act(&self, directive: Directive, memory: &mut Memory, now: UnixMs) -> bool {
        if !memory.is_new(&directive.id) {
            return false;
        }
        let void = directive.expires_at < now;
        tracing::info!(id = directive.id, ask = name_of(&directive.ask), void, "directive");
        match &directive.ask {
            _ if void => {}
            Ask::ReportNow => {
                self.nudge.notify_one();
                self.contact.report_now.notify_one();
            }
            Ask::RenewCertificate => self.contact.renew_now.notify_one(),
            Ask::Offered(_) | Ask::TakenBack { .. } | Ask::Decided { .. } => {
                if let Some(desk) = &self.patches
                    && !desk.hear(&directive).await
                {
                    // It is not told as done, so that it comes again.
                    memory.forget(&directive.id);
                }
            }
            Ask::Unknown => {}
        }
        true
    }
}

/// Without what somebody typed: a code is a secret until it is used up (R33).
fn name_of(ask: &Ask) -> &'static str {
    match ask {
        Ask::ReportNow => "report_now",
        Ask::RenewCertificate => "renew_certificate",
        Ask::Offered(_) => "offered",
        Ask::TakenBack { .. } => "taken_back",
        Ask::Decided { .. } => "decided",
        Ask::Unknown => "unknown",
    }
}

/// Which directives were acted on, and which of them the collector has not been told of.
#[derive(Debug, Default)]
struct Memory {
    seen: VecDeque<String>,
    untold: Vec<String>,
}

impl Memory {
    fn is_new(&mut self, id: &str) -> bool {
        if !self.untold.iter().any(|told| told == id) {
            self.untold.push(id.to_owned());
        }
        if self.seen.iter().any(|seen| seen == id) {
            return false;
        }
        self.seen.push_back(id.to_owned());
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        true
    }

    fn forget(&mut self, id: &str) {
        self.seen.retain(|seen| seen != id);
        self.untold.retain(|untold| untold != id);
    }

    fn told(&mut self) {
        self.untold.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_delivered_twice_is_acted_on_once_and_told_again() {
        let mut memory = Memory::default();
        assert!(memory.is_new("d1"));
        memory.told();
        assert!(!memory.is_new("d1"));
        assert_eq!(memory.untold, ["d1"], "the collector had not taken note, so it is told again");
        for n in 0..1000 {
            memory.is_new(&n.to_string());
            memory.told();
        }
        assert_eq!(memory.seen.len(), REMEMBERED);
    }
}
