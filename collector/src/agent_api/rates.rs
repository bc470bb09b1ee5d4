//! How often: token buckets in memory, one per appliance and kind of message, and one per address for strangers. Faults are the
//! last to be limited: a report of samples only is told to wait while half of the bucket is still there for faults.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

use super::{Peer, Refusal};
use crate::appliances::Identity;
use crate::flow::World;

/// How often buckets that are full again are forgotten. Every appliance has one or two: a limit of their number would be walked
/// through at each message of a fleet that is larger.
const TIDIED_EVERY: Duration = Duration::from_secs(60);

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

const REPORTS: Rate = Rate { per_second: 20.0, burst: 200.0 };
const POLLS: Rate = Rate { per_second: 2.0, burst: 30.0 };
/// A large file comes in pieces, after a few documents.
const REPOSITORY: Rate = Rate { per_second: 10.0, burst: 100.0 };
const STRANGERS: Rate = Rate { per_second: 5.0, burst: 100.0 };

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// All buckets of this node.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    by_key: HashMap<String, Bucket>,
    tidied_at: Duration,
}

impl Rates {
    /// A report is about to be read.
    pub(super) fn report(&self, world: &World, who: &Identity) -> Result<(), Refusal> {
        self.take(format!("r{}", who.appliance_id), REPORTS, 1.0, 0.0, world.time.monotonic()).map_err(|wait| too_often(wait, 1))
    }

    /// A report that was read holds samples only: the lower half of the bucket is kept for faults.
    pub(super) fn samples(&self, world: &World, who: &Identity) -> Result<(), Refusal> {
        let reserve = REPORTS.burst / 2.0;
        self.take(format!("r{}", who.appliance_id), REPORTS, 0.0, reserve, world.time.monotonic())
            .map_err(|wait| too_often(wait, 10))
    }

    /// A part of the repository is about to be sent.
    pub(super) fn repository(&self, world: &World, who: &Identity) -> Result<(), Refusal> {
        self.take(format!("f{}", who.appliance_id), REPOSITORY, 1.0, 0.0, world.time.monotonic())
            .map_err(|wait| too_often(wait, 1))
    }

    /// A poll is about to be read.
    pub(super) fn poll(&self, world: &World, who: &Identity) -> Result<(), Refusal> {
        self.take(format!("p{}", who.appliance_id), POLLS, 1.0, 0.0, world.time.monotonic()).map_err(|wait| too_often(wait, 1))
    }

    /// Somebody without an identity speaks. IPv6: a whole /64 is one.
    pub(super) fn stranger(&self, world: &World, peer: &Peer) -> Result<(), Refusal> {
        let from = match peer.address.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("{:?}", &address.segments()[..4]),
        };
        self.take(format!("s{from}"), STRANGERS, 1.0, 0.0, world.time.monotonic()).map_err(|wait| too_often(wait, 1))
    }

    /// Takes `cost` if at least `reserve` is left then; else the seconds until it would be.
    fn take(&self, key: String, rate: Rate, cost: f64, reserve: f64, now: Duration) -> Result<(), f64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(buckets.tidied_at) >= TIDIED_EVERY {
            buckets.by_key.retain(|_, bucket| now.saturating_sub(bucket.at) < TIDIED_EVERY);
            buckets.tidied_at = now;
        }
        let bucket = buckets.by_key.entry(key).or_insert(Bucket { tokens: rate.burst, at: now });
        let filled = now.saturating_sub(bucket.at).as_secs_f64() * rate.per_second;
        bucket.tokens = (bucket.tokens + filled).min(rate.burst);
        bucket.at = now;
        let missing = cost + reserve - bucket.tokens;
        if missing > 0.0 {
            return Err(missing / rate.per_second);
        }
        bucket.tokens -= cost;
        Ok(())
    }
}

fn too_often(wait_s: f64, at_least_s: u64) -> Refusal {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a short positive wait")]
    let wait_s = wait_s.ceil().clamp(0.0, 3600.0) as u64;
    Refusal::slow_down(StatusCode::TOO_MANY_REQUESTS, wait_s.max(at_least_s), "too many requests: wait as Retry-After says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_keeps_its_reserve_for_faults() {
        let rates = Rates::default();
        let rate = Rate { per_second: 1.0, burst: 4.0 };
        let at = Duration::from_secs;
        let take = |cost, reserve, now| rates.take("a".into(), rate, cost, reserve, at(now));
        for _ in 0..3 {
            take(1.0, 0.0, 0).expect("the burst");
        }
        assert_eq!(take(0.0, 2.0, 0), Err(1.0), "samples wait while faults still may");
        take(1.0, 0.0, 0).expect("a fault still may");
        assert_eq!(take(1.0, 0.0, 0), Err(1.0));
        take(1.0, 0.0, 1).expect("a second later");
        rates.take("b".into(), rate, 1.0, 0.0, at(1)).expect("another appliance is not harmed");
    }
}
