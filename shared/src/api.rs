//! Paths of the agents' listener, the wire version, and the one error body of every HTTP answer.

use serde::{Deserialize, Serialize};

/// Version of the wire messages. The collector reads this one and all before it.
pub const WIRE_VERSION: u32 = 1;

/// First certificate, by join secret.
pub const PATH_ENROL: &str = "/agent/v1/enroll";
/// A new certificate for an old one.
pub const PATH_RENEW: &str = "/agent/v1/renew";
/// Spooled records.
pub const PATH_REPORTS: &str = "/agent/v1/reports";
/// Heartbeat and directives.
pub const PATH_POLL: &str = "/agent/v1/poll";
/// Where signed metadata and files lie for the appliances, by GET with ranges: `metadata/NAME`, `files/NAME`.
pub const PATH_REPOSITORY: &str = "/agent/v1/repository/";

/// Every refusal's body, here and under `/api/v1`. Internals never leak through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable word to branch on.
    pub error: String,
    /// For a person: what was wrong, what is accepted.
    pub message: String,
}

/// `error` words that an agent acts on.
pub mod error_words {
    /// The certificate is unknown or revoked: the agent must be enrolled again.
    pub const NOT_ENROLLED: &str = "not_enrolled";
    /// A newer request of the same epoch came before this one: the agent starts a new epoch.
    pub const STALE_REQUEST: &str = "stale_request";
    /// The body is not a message of this version.
    pub const BAD_MESSAGE: &str = "bad_message";
    /// The body is larger than the path accepts: send less.
    pub const TOO_LARGE: &str = "too_large";
    /// Too much, too often: wait as `Retry-After` says.
    pub const SLOW_DOWN: &str = "slow_down";
    /// Renewing an expired certificate waits for an operator.
    pub const WAITS_FOR_OPERATOR: &str = "waits_for_operator";
    /// The join secret is unknown, used up or expired.
    pub const BAD_JOIN_SECRET: &str = "bad_join_secret";
}
