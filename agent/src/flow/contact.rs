//! What is known of the contact with the collector: shared by reporting, polling and renewing, shown by `status`.
//!
//! It holds no decision. Whoever reaches the collector wakes the others through it, so that after an outage everything that
//! waits goes out at once and not at the end of its own back-off.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::ids::RecordId;
use mainstay_shared::receipt::{Receipt, ReceiptBody};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};

/// How rustls names the alert of a server to which our certificate has expired.
const CERTIFICATE_EXPIRED: &str = "CertificateExpired";

/// Contact older than this is an alarm on the box: the long poll is renewed every minute.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(600);
/// A queue that takes nothing for so long is an alarm on the box.
pub(crate) const UNRECORDED_AFTER: Duration = Duration::from_secs(60);

/// Why the box itself raises an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Alarm {
    /// The collector has not answered for [`LOST_AFTER`].
    NoContact,
    /// It answers, but what waits has not been taken for [`LOST_AFTER`].
    ReportsNotTaken,
    /// Nothing could be written for [`UNRECORDED_AFTER`]: the disk refuses, or the queue is full of what must not be dropped.
    NotRecording,
}

impl Alarm {
    /// The text that the journal holds; watched for by whoever reads the box's logs, so it stays as it is.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoContact => {
                "LOCAL ALARM: the collector has not answered for ten minutes; faults wait on this box and the vendor is not told"
            }
            Self::ReportsNotTaken => {
                "LOCAL ALARM: the collector has taken no report for ten minutes; faults wait on this box and the vendor is not told"
            }
            Self::NotRecording => {
                "LOCAL ALARM: nothing could be recorded for a minute (disk full, read-only or broken); new faults are not kept and the vendor is not told"
            }
        }
    }
}

/// The newest facts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContactFacts {
    /// When the collector last answered, by the agent's clock.
    pub(crate) last_contact_at: Option<UnixMs>,
    /// The same by monotonic time, which no jump of the clock makes old.
    #[serde(skip)]
    pub(crate) last_contact_mono: Option<Duration>,
    /// When records were last acknowledged.
    pub(crate) last_ack_at: Option<UnixMs>,
    /// The same by monotonic time.
    #[serde(skip)]
    pub(crate) last_ack_mono: Option<Duration>,
    /// The alarm that the box raises, if it does.
    pub(crate) alarm: Option<Alarm>,
    /// Why the last try failed; none after a success.
    pub(crate) trouble: Option<String>,
    /// The collector does not know the certificate.
    pub(crate) not_enrolled: bool,
    /// The collector takes this for a clone or a rewound snapshot.
    pub(crate) held: bool,
    /// The collector says that our certificate has expired; our own clock may think otherwise.
    pub(crate) certificate_expired: bool,
    /// Renewing the expired certificate waits for an operator.
    pub(crate) renewal_waits: bool,
    /// Requests made since the agent started.
    pub(crate) requests: u64,
}

/// A receipt whose signature was verified.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedReceipt {
    /// What it says.
    pub(crate) body: ReceiptBody,
    /// As it was signed.
    pub(crate) receipt: Receipt,
}

impl VerifiedReceipt {
    /// Whether it is for that record.
    pub(crate) fn names(&self, id: &RecordId) -> bool {
        self.body.records.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().contains(id)
    }
}

/// The shared contact.
#[derive(Debug, Clone)]
pub(crate) struct Contact {
    facts: Arc<Mutex<ContactFacts>>,
    /// Wakes the report loop.
    pub(crate) report_now: Arc<Notify>,
    /// The poll was answered: its connection is free for a report that is in no hurry.
    pub(crate) turn_offered: Arc<Notify>,
    /// A report was answered, or failed.
    pub(crate) turn_over: Arc<Notify>,
    /// Wakes the renewal loop.
    pub(crate) renew_now: Arc<Notify>,
    receipts: broadcast::Sender<VerifiedReceipt>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            facts: Arc::default(),
            report_now: Arc::default(),
            turn_offered: Arc::default(),
            turn_over: Arc::default(),
            renew_now: Arc::default(),
            receipts: broadcast::Sender::new(16),
        }
    }
}

impl Contact {
    /// The facts now.
    pub(crate) fn facts(&self) -> ContactFacts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes something.
    pub(crate) fn note(&self, change: impl FnOnce(&mut ContactFacts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The collector answered just now; whether it had been out of reach.
    pub(crate) fn reached(&self, time: &TimeSource) -> bool {
        let mut was_in_trouble = false;
        self.note(|facts| {
            was_in_trouble = facts.trouble.take().is_some();
            facts.last_contact_at = Some(time.now());
            facts.last_contact_mono = Some(time.monotonic());
            facts.not_enrolled = false;
            facts.certificate_expired = false;
        });
        if was_in_trouble {
            tracing::info!("the collector is reached again");
        }
        was_in_trouble
    }

    /// A try failed.
    pub(crate) fn failed(&self, why: &str) {
        let mut is_new = false;
        self.note(|facts| {
            is_new = facts.trouble.as_deref() != Some(why);
            facts.trouble = Some(why.to_owned());
            facts.certificate_expired |= why.contains(CERTIFICATE_EXPIRED);
        });
        if is_new && self.facts().certificate_expired {
            self.renew_now.notify_one();
        }
        if is_new {
            tracing::warn!(why, "the collector is out of reach; what is accepted waits in the spool");
        }
    }

    /// Hands a verified receipt to whoever waits for one.
    pub(crate) fn tell_receipt(&self, receipt: VerifiedReceipt) {
        // Nobody waiting is the usual case.
        drop(self.receipts.send(receipt));
    }

    /// Receipts from now on.
    pub(crate) fn receipts(&self) -> broadcast::Receiver<VerifiedReceipt> {
        self.receipts.subscribe()
    }
}
