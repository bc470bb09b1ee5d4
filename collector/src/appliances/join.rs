//! Whether a join secret lets a box in: pure. The reason is logged and counted; the box itself is told one sentence for all of
//! them, so that nobody can feel his way along tokens.

use mainstay_shared::time_source::UnixMs;
use ring::digest;

/// A join token as stored; the secret is kept as its SHA-256 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    pub(crate) token_id: String,
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    pub(crate) product: String,
    pub(crate) duty: String,
    pub(crate) secret_hash: String,
    pub(crate) uses_left: i64,
    pub(crate) created_at: UnixMs,
    pub(crate) expires_at: UnixMs,
}

/// What the same attempt got before, if it was here: an answer may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EarlierAttempt {
    pub(crate) appliance_id: String,
    /// Keys of the certificates that this appliance holds.
    pub(crate) public_keys: Vec<String>,
}

/// The answer to a join request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JoinDecision {
    /// A new appliance; one use of the token is spent.
    Enrol,
    /// The same attempt with the same key came again: the same appliance gets its answer again.
    AnswerAgain { appliance_id: String },
    /// No.
    Refuse(JoinRefusal),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinRefusal {
    /// No such token.
    UnknownToken,
    /// Not its secret.
    WrongSecret,
    /// Its time is over.
    Expired,
    /// All its uses are spent.
    UsedUp,
    /// The attempt was answered before, for another key.
    OtherKey,
}

impl JoinRefusal {
    /// The word in logs and counters.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "unknown_token",
            Self::WrongSecret => "wrong_secret",
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::OtherKey => "other_key",
        }
    }
}

/// Decides on a join request.
pub(crate) fn decide(
    token: Option<&JoinToken>,
    secret: &str,
    public_key: &str,
    earlier: Option<EarlierAttempt>,
    now: UnixMs,
) -> JoinDecision {
    let Some(token) = token else { return JoinDecision::Refuse(JoinRefusal::UnknownToken) };
    if !same_secret(&token.secret_hash, &secret_hash(secret)) {
        return JoinDecision::Refuse(JoinRefusal::WrongSecret);
    }
    if now >= token.expires_at {
        return JoinDecision::Refuse(JoinRefusal::Expired);
    }
    match earlier {
        Some(earlier) if earlier.public_keys.iter().any(|key| key == public_key) => {
            JoinDecision::AnswerAgain { appliance_id: earlier.appliance_id }
        }
        Some(_) => JoinDecision::Refuse(JoinRefusal::OtherKey),
        None if token.uses_left <= 0 => JoinDecision::Refuse(JoinRefusal::UsedUp),
        None => JoinDecision::Enrol,
    }
}

/// How a secret is stored. It is 128 random bits or more, so a plain hash holds.
pub(crate) fn secret_hash(secret: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

/// Compares two hashes in a time that tells nothing of where they differ.
fn same_secret(stored: &str, given: &str) -> bool {
    let differing = stored.bytes().zip(given.bytes()).fold(0_u8, |differing, (a, b)| differing | (a ^ b));
    stored.len() == given.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_apart() {
        let token = JoinToken {
            token_id: "t".into(),
            tenant_id: "a".into(),
            site_id: "s".into(),
            product: "p".into(),
            duty: "single".into(),
            secret_hash: secret_hash("good"),
            uses_left: 1,
            created_at: UnixMs(0),
            expires_at: UnixMs(100),
        };
        let used = JoinToken { uses_left: 0, ..token.clone() };
        let before = || Some(EarlierAttempt { appliance_id: "x".into(), public_keys: vec!["k".into()] });
        let refuse = JoinDecision::Refuse;
        let rows = [
            ("a good secret enrols", decide(Some(&token), "good", "k", None, UnixMs(1)), JoinDecision::Enrol),
            ("no such token", decide(None, "good", "k", None, UnixMs(1)), refuse(JoinRefusal::UnknownToken)),
            ("a wrong secret", decide(Some(&token), "bad", "k", None, UnixMs(1)), refuse(JoinRefusal::WrongSecret)),
            (
                "a wrong secret of a used token tells nothing else",
                decide(Some(&used), "x", "k", None, UnixMs(1)),
                refuse(JoinRefusal::WrongSecret),
            ),
            ("an expired token", decide(Some(&token), "good", "k", None, UnixMs(100)), refuse(JoinRefusal::Expired)),
            ("a used token", decide(Some(&used), "good", "k", None, UnixMs(1)), refuse(JoinRefusal::UsedUp)),
            (
                "the same attempt again",
                decide(Some(&used), "good", "k", before(), UnixMs(1)),
                JoinDecision::AnswerAgain { appliance_id: "x".into() },
            ),
            (
                "the same attempt, another key",
                decide(Some(&used), "good", "l", before(), UnixMs(1)),
                refuse(JoinRefusal::OtherKey),
            ),
        ];
        for (sentence, got, expected) in rows {
            assert_eq!(got, expected, "{sentence}");
        }
    }
}
