//! The way out: one TLS client that trusts the vendor's roots only, and what an answer means. It decides nothing about records.
//!
//! `flow/report` and `flow/poll` use it; `local/enroll` makes its identity. It must never listen, follow a redirect, or write a
//! secret into an error. Parts: `identity` (who we are), `clock` (which time to believe), `tls`, `rules` (pure), `client`, `certify`.

mod identity;
mod clock;
mod tls;
mod rules;
mod client;
mod fetch;
mod link;
mod certify;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use certify::{Attempt, EnrolFailed, Renewal, enrol, renew};
pub(crate) use client::{Proxy, Settings, Uplink};
pub(crate) use clock::TrustedClock;
pub(crate) use fetch::Body;
pub(crate) use identity::{Identity, IdentityError, Validity};
pub(crate) use link::{Link, LinkAnswer, LinkWay, system_roots, wait_before};
pub(crate) use rules::{AfterRefusal, Backoff, BatchSize, renewal_is_due};
#[cfg(test)]
pub(crate) use stand_in::{Answer, Asked, Authority, StandIn};

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// It was taken; this is the answer.
    Sent(T),
    /// Nobody answered, or the collector asked for patience.
    RetryAfter {
        /// How long it asked for; `None` leaves it to the back-off.
        after: Option<Duration>,
        /// For the log and for `status`.
        why: String,
    },
    /// The collector can't take this very message.
    Refused {
        /// The error word.
        word: String,
        /// For a person.
        message: String,
    },
    /// The collector does not know this certificate: the appliance must be enrolled again.
    NotEnrolled {
        /// For a person.
        message: String,
    },
    /// A newer request of the same epoch came first: this run must end and begin a new epoch.
    Stale {
        /// For a person.
        message: String,
    },
}
