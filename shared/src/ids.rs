//! Identities: who is meant, and which record. Parsing is strict; an id never carries a path separator or white space.

use std::fmt;
use std::str::FromStr;

use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?}: expected {accepted}")]
pub struct BadId {
    /// Which id was meant.
    pub what: &'static str,
    /// What was given, cut to 64 characters.
    pub given: String,
    /// What would have been accepted.
    pub accepted: &'static str,
}

impl BadId {
    fn new(what: &'static str, given: &str, accepted: &'static str) -> Self {
        Self { what, given: given.chars().take(64).collect(), accepted }
    }
}

/// 128 random bits as 32 lower-case hex digits, from the given generator.
///
/// # Panics
/// Never in practice: the operating system's generator does not fail once it has been seeded.
#[must_use]
pub fn random_hex_128(rng: &dyn SecureRandom) -> String {
    let mut bytes = [0u8; 16];
    if rng.fill(&mut bytes).is_err() {
        // A process that cannot draw randomness must not go on to make identities.
        panic!("the system's random generator failed");
    }
    hex::encode(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new one, drawn from `rng`.
            #[must_use]
            pub fn random(rng: &dyn SecureRandom) -> Self {
                Self(random_hex_128(rng))
            }

            /// The 32 hex digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if good { Ok(Self(text)) } else { Err(BadId::new($what, &text, "32 lower-case hex digits")) }
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

hex_id! {
    /// An appliance, as its certificate names it. Given by the collector at enrolment; a serial number never is an identity.
    ApplianceId, "appliance id"
}
hex_id! {
    /// One run of the agent on its spool: made at each process start, so that a restored snapshot can't turn new faults into replays.
    Epoch, "epoch"
}
hex_id! {
    /// One life of the collector's database: a restore makes a new one, and agents then re-send the state of every open fault.
    CollectorEpoch, "collector epoch"
}
hex_id! {
    /// What an acknowledgement carries and the agent echoes: a stale one proves a clone or a rewound snapshot.
    Nonce, "nonce"
}

/// Which queue of the spool a record travels in. Faults go first and are never dropped for samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Faults, starts, goodbyes, test messages: synced before they count as accepted.
    Fault,
    /// Folded five-minute samples.
    Sample,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 2] = [Self::Fault, Self::Sample];

    /// The name on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Sample => "sample",
        }
    }
}

/// A record's identity: `(epoch, lane, seq)`; `seq` counts from 1 within its epoch and lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId {
    /// The run of the agent that made it.
    pub epoch: Epoch,
    /// Its queue.
    pub lane: Lane,
    /// Its place there.
    pub seq: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.lane.as_str(), self.seq)
    }
}

/// An episode's identity: that of the record that raised it.
pub type EpisodeId = RecordId;

impl FromStr for RecordId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId::new("record id", text, "EPOCH:fault|sample:NUMBER");
        let mut parts = text.splitn(3, ':');
        let (Some(epoch), Some(lane), Some(seq)) = (parts.next(), parts.next(), parts.next()) else { return Err(bad()) };
        let lane = Lane::ALL.into_iter().find(|l| l.as_str() == lane).ok_or_else(bad)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| bad())?, lane, seq: seq.parse().map_err(|_| bad())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_id_reads_back_as_it_was_written() {
        let id = RecordId { epoch: Epoch::random(&ring::rand::SystemRandom::new()), lane: Lane::Fault, seq: 42 };
        assert_eq!(id.to_string().parse::<RecordId>().expect("parses"), id);
    }

    #[test]
    fn what_is_no_id_is_refused_with_what_is_accepted() {
        let error = "../../etc".parse::<ApplianceId>().expect_err("refused");
        assert_eq!(error.to_string(), "appliance id \"../../etc\": expected 32 lower-case hex digits");
        assert!("00:fault:x".parse::<RecordId>().is_err());
    }
}
