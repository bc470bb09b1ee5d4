//! The story of reporting: what waits in the spool goes out, faults first; what is acknowledged is forgotten, durably.
//!
//! One report is under way at a time. Nothing is sent while nothing waits: the long poll is the heartbeat. A nonce is echoed only
//! once it is on the disk; a new life of the collector's database gets the state of every open fault again. On a stop it says
//! goodbye and tries, for a few seconds, to deliver it.

use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::api::{PATH_REPORTS, WIRE_VERSION, error_words};
use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::CollectorEpoch;
use mainstay_shared::limits::MAX_OPEN_FAULTS;
use mainstay_shared::record::{OpenFaults, Payload, Record};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;

use super::contact::{Contact, VerifiedReceipt};
use super::goodbye;
use crate::lifecycle::{DRAIN, StopSignal};
use crate::probes::ClockReference;
use crate::spool::{Spool, SpoolError};
use crate::uplink::{AfterRefusal, Backoff, BatchSize, Outcome, Uplink};

/// JSON of one report; far under the wire's limit, so that no report is refused for its size.
const REPORT_BYTES: usize = 900 << 10;
/// What is found together is sent together.
const GATHER: Duration = Duration::from_millis(100);
/// A fault waits for others of its round only so long: the ticket is to be there 50 ms after the third failed try.
const GATHER_FAULTS: Duration = Duration::from_millis(5);
/// The longest poll and some more.
const TURN_COMES_WITHIN: Duration = Duration::from_secs(75);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A box that is not enrolled any more asks this often whether it is again.
const NOT_ENROLLED_WAIT: Duration = Duration::from_secs(300);

/// The collector saw a newer request of this epoch: the process must end so that the next one begins a new epoch.
#[derive(Debug, thiserror::Error)]
#[error("another copy of this agent reports under the same epoch; starting anew")]
pub(crate) struct StaleEpoch;

/// What reporting needs.
pub(crate) struct Reporting {
    /// Where the records wait.
    pub(crate) spool: Spool,
    /// The way out.
    pub(crate) uplink: Arc<Uplink>,
    /// The machine's clocks.
    pub(crate) time: TimeSource,
    /// Shared with the other loops.
    pub(crate) contact: Contact,
    /// Told the collector's clock.
    pub(crate) clock: ClockReference,
}

/// What one round led to.
enum Round {
    Progress,
    Wait(Duration),
}

/// Reports until `stop`, then says goodbye and drains.
///
/// # Errors
/// [`StaleEpoch`], or the spool failed for good.
pub(crate) async fn run(reporting: Reporting, stop: StopSignal) -> anyhow::Result<()> {
    let mut story = Story { reporting, attempt: 0, size: BatchSize::default(), backoff: Backoff::default() };
    loop {
        let woken = story.until_something_waits();
        tokio::select! {
            () = woken => {}
            () = stop.clone().requested() => break,
        }
        tokio::select! {
            () = tokio::time::sleep(story.gathers_for()) => {}
            () = stop.clone().requested() => break,
        }
        let wait = tokio::select! {
            round = story.round() => round?,
            () = stop.clone().requested() => break,
        };
        story.reporting.contact.turn_over.notify_waiters();
        if let Round::Wait(wait) = wait {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = story.reporting.contact.report_now.notified() => {}
                () = stop.clone().requested() => break,
            }
        }
    }
    if let Err(error) = goodbye::say(&story.reporting.spool, story.reporting.time.now()).await {
        tracing::error!("the goodbye could not be recorded: {:#}", anyhow::Error::new(error));
    }
    if tokio::time::timeout(DRAIN, story.drain()).await.is_err() {
        tracing::warn!("not everything could be delivered before the stop; it waits in the spool");
    }
    Ok(())
}

struct Story {
    reporting: Reporting,
    attempt: u64,
    size: BatchSize,
    backoff: Backoff,
}

impl Story {
    /// Faults go at once. Samples that begin a backlog wait for the end of the poll under way, whose connection they then use.
    async fn until_something_waits(&self) {
        if !self.is_empty() {
            return;
        }
        let Reporting { spool, contact, .. } = &self.reporting;
        while self.is_empty() {
            spool.pushed().await;
        }
        let a_fault = async {
            while spool.stats().fault_records == 0 {
                spool.pushed().await;
            }
        };
        tokio::select! {
            () = a_fault => {}
            () = contact.turn_offered.notified() => {}
            () = contact.report_now.notified() => {}
            () = tokio::time::sleep(TURN_COMES_WITHIN) => {}
        }
    }

    fn gathers_for(&self) -> Duration {
        if self.reporting.spool.stats().fault_records > 0 { GATHER_FAULTS } else { GATHER }
    }

    fn is_empty(&self) -> bool {
        let stats = self.reporting.spool.stats();
        stats.fault_records + stats.sample_records == 0
    }

    /// Delivers what waits; a failure is tried again at once, since the caller bounds the whole.
    async fn drain(&mut self) {
        while !self.is_empty() {
            match self.round().await {
                Ok(Round::Progress) => {}
                Ok(Round::Wait(wait)) => tokio::time::sleep(wait.min(Duration::from_millis(500))).await,
                Err(error) => {
                    tracing::warn!("the goodbye could not be delivered: {error:#}");
                    return;
                }
            }
        }
    }

    async fn round(&mut self) -> anyhow::Result<Round> {
        let records = match self.reporting.spool.next_batch(self.size.records(), REPORT_BYTES).await {
            Ok(records) if records.is_empty() => return Ok(Round::Progress),
            Ok(records) => records,
            Err(SpoolError::Stopped) => return Err(SpoolError::Stopped.into()),
            Err(error) => return Ok(self.disk_trouble(&error)),
        };
        let outcome = self.send(&records).await;
        self.conclude(outcome, &records).await
    }

    fn disk_trouble(&mut self, error: &SpoolError) -> Round {
        tracing::error!(error = %error, source = std::error::Error::source(error), "the spool can't be read or written; trying again");
        Round::Wait(self.backoff.next(&SystemRandom::new()))
    }

    async fn send(&mut self, records: &[Record]) -> Outcome<ReportReply> {
        self.attempt += 1;
        let spool = &self.reporting.spool;
        let request = ReportRequest {
            version: WIRE_VERSION,
            epoch: spool.epoch().clone(),
            attempt: self.attempt,
            nonce_echo: spool.nonce(),
            sent_at: self.reporting.time.now(),
            sent_mono_ms: spool.mono_ms(),
            records: records.to_vec(),
        };
        self.reporting.contact.note(|facts| facts.requests += 1);
        self.reporting.uplink.post(PATH_REPORTS, &request, REQUEST_TIMEOUT).await
    }

    async fn conclude(&mut self, outcome: Outcome<ReportReply>, records: &[Record]) -> anyhow::Result<Round> {
        let contact = self.reporting.contact.clone();
        match outcome {
            Outcome::Sent(reply) => {
                contact.reached(&self.reporting.time);
                return match self.acknowledged(reply, records).await {
                    Ok(round) => Ok(round),
                    Err(SpoolError::Stopped) => Err(SpoolError::Stopped.into()),
                    Err(error) => Ok(self.disk_trouble(&error)),
                };
            }
            Outcome::RetryAfter { after, why } => {
                contact.failed(&why);
                return Ok(Round::Wait(after.unwrap_or_else(|| self.backoff.next(&SystemRandom::new()))));
            }
            Outcome::Refused { word, message }
                if matches!(word.as_str(), error_words::BAD_MESSAGE | error_words::TOO_LARGE | "") =>
            {
                contact.reached(&self.reporting.time);
                return self.refused(records, &message).await;
            }
            Outcome::Refused { word, message } => contact.failed(&format!("{word}: {message}")),
            Outcome::NotEnrolled { message } => {
                contact.failed(&format!("the collector does not know this appliance's certificate: {message}"));
                contact.note(|facts| facts.not_enrolled = true);
            }
            Outcome::Stale { message } => {
                tracing::error!(message, "a newer request of the same epoch came first");
                if let Err(error) = goodbye::say_back_at_once(&self.reporting.spool, self.reporting.time.now()).await {
                    tracing::error!("the goodbye could not be recorded: {:#}", anyhow::Error::new(error));
                }
                return Err(StaleEpoch.into());
            }
        }
        Ok(Round::Wait(NOT_ENROLLED_WAIT))
    }

    async fn refused(&mut self, records: &[Record], message: &str) -> anyhow::Result<Round> {
        let wait = self.backoff.next(&SystemRandom::new());
        match (self.size.refused(records.len()), records.first()) {
            (AfterRefusal::SetAside, Some(record)) => {
                self.reporting.spool.set_aside(record.id.clone(), message).await?;
                Ok(Round::Progress)
            }
            (AfterRefusal::Smaller, _) => Ok(Round::Progress),
            (AfterRefusal::Again | AfterRefusal::SetAside, _) => Ok(Round::Wait(wait)),
        }
    }

    async fn acknowledged(&mut self, reply: ReportReply, records: &[Record]) -> Result<Round, SpoolError> {
        let Reporting { spool, contact, clock, time, .. } = &self.reporting;
        clock.tell(reply.received_at, time);
        restate_if_new(spool, &reply.collector_epoch, time).await?;
        for refused in &reply.refused {
            tracing::warn!(id = %refused.id, why = refused.why, "the collector set a record aside");
        }
        let acknowledges_something = !reply.acks.is_empty();
        spool.ack(reply.acks, Some(reply.nonce), Some(reply.collector_epoch)).await?;
        let (now, mono) = (time.now(), time.monotonic());
        contact.note(|facts| {
            if acknowledges_something {
                facts.last_ack_at = Some(now);
                facts.last_ack_mono = Some(mono);
            }
            facts.held = reply.held;
        });
        if let Some(receipt) = reply.receipt {
            self.take_receipt(receipt);
        }
        if !acknowledges_something && !records.is_empty() {
            return Ok(Round::Wait(self.backoff.next(&SystemRandom::new())));
        }
        self.size.taken();
        self.backoff.reset();
        Ok(Round::Progress)
    }

    fn take_receipt(&self, receipt: mainstay_shared::receipt::Receipt) {
        let identity = self.reporting.uplink.identity();
        let Some(key) = identity.receipt_key() else { return };
        match receipt.verify(&key) {
            Ok(body) if body.appliance == identity.appliance => {
                self.reporting.uplink.clock().verified_by_receipt(body.received_at);
                self.reporting.contact.tell_receipt(VerifiedReceipt { body, receipt });
            }
            Ok(_) => tracing::warn!("receipt: it is for another appliance"),
            Err(error) => tracing::warn!(%error, "the collector's receipt is not believed"),
        }
    }
}

/// Spools the state of every open fault again when the collector's database has begun a new life (a restore).
///
/// # Errors
/// When the spool does not accept it; the same is tried again at the next answer.
pub async fn restate_if_new(spool: &Spool, epoch: &CollectorEpoch, time: &TimeSource) -> Result<(), SpoolError> {
    match spool.collector_epoch() {
        Some(known) if known != *epoch => {}
        _ => return Ok(()),
    }
    let open = spool.open_episodes();
    tracing::warn!(open = open.len(), "the collector's memory was restored: the state of every open fault is sent again");
    let episodes: Vec<_> = open.iter().map(|episode| episode.episode.clone()).collect();
    for episode in open {
        let restated =
            FaultChange { kind: FaultChangeKind::Restated, episode: Some(episode.episode), at: time.now(), ..episode.last };
        spool.push(Payload::Fault(restated)).await?;
    }
    // What ended since the backup is still open in the restored memory; only its absence here tells of its end.
    if episodes.len() <= MAX_OPEN_FAULTS {
        spool.push(Payload::OpenFaults(OpenFaults { episodes })).await?;
    }
    spool.ack(Vec::new(), None, Some(epoch.clone())).await
}
