//! The rules of signing in, pure: how long a session lives, when an account rests after wrong guesses, and which rights a
//! token may carry. Whether a password or code is right is `customers::credentials`' question. Nothing here reads a clock or a row.

use std::time::Duration;

use mainstay_shared::time_source::UnixMs;

use super::Session;
use crate::customers::Role;

/// A signed-in browser signs in anew after a shift.
pub(crate) const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Between password and code.
pub(crate) const HALF_SESSION_LIFE: Duration = Duration::from_secs(300);
/// Without any request for this long a session is over. An open page's stream is no request of a person's.
pub(crate) const SESSION_IDLE: Duration = Duration::from_secs(2 * 3600);
/// `last_seen_at` is written at most this often.
pub(crate) const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// A token lives at most a year (R9).
pub(crate) const MAX_TOKEN_DAYS: u32 = 365;
/// Wrong guesses that cost nothing.
const FREE_GUESSES: i64 = 4;
/// The longest rest: long enough against guessing, short enough that nobody is locked out of a critical fault for a shift.
const LONGEST_REST: Duration = Duration::from_secs(900);

/// What a session is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionVerdict {
    /// It counts.
    Good,
    /// Its life is over.
    Expired,
    /// Nobody used it for [`SESSION_IDLE`].
    Idle,
    /// The account was disabled.
    Disabled,
}

/// Judges a session at `now`.
pub(crate) fn judge_session(session: &Session, now: UnixMs) -> SessionVerdict {
    if session.disabled_at.is_some() {
        SessionVerdict::Disabled
    } else if now >= session.expires_at {
        SessionVerdict::Expired
    } else if now >= session.last_seen_at.plus(SESSION_IDLE) {
        SessionVerdict::Idle
    } else {
        SessionVerdict::Good
    }
}

/// How long an account rests after its `failed_count`-th wrong guess in a row: nothing for the first four, then 30 s, doubling to
/// 15 minutes.
pub(crate) fn rest_after(failed_count: i64) -> Option<Duration> {
    let over = u32::try_from((failed_count - FREE_GUESSES).min(10)).ok().filter(|over| *over > 0)?;
    Some((Duration::from_secs(30) * 2_u32.pow(over - 1)).min(LONGEST_REST))
}

/// Whether `maker` may hand `wanted` to a token: its rights must be a subset of the maker's (R9).
pub(crate) fn covers(maker: Role, wanted: Role) -> bool {
    let rights = |role: Role| [role.works_on_tickets(), role.lowers_impact(), role.administers()];
    rights(maker).iter().zip(rights(wanted)).all(|(has, wants)| *has || !wants)
}

/// What a token is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenVerdict {
    /// It counts.
    Good,
    /// Its life is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its maker's account was disabled.
    MakerDisabled,
    /// Its maker may no longer do what it may.
    MakerLostRights,
}

/// Judges a token at `now`.
pub(crate) fn judge_token(token: &super::tokens::Token, now: UnixMs) -> TokenVerdict {
    if token.revoked_at.is_some() {
        TokenVerdict::Revoked
    } else if now >= token.expires_at {
        TokenVerdict::Expired
    } else if token.maker_disabled_at.is_some() {
        TokenVerdict::MakerDisabled
    } else if covers(token.maker_role, token.role) {
        TokenVerdict::Good
    } else {
        TokenVerdict::MakerLostRights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_rests_longer_with_every_wrong_guess_and_never_longer_than_a_quarter_of_an_hour() {
        let rows: [(i64, Option<u64>, &str); 7] = [
            (0, None, "no guess"),
            (4, None, "four guesses cost nothing"),
            (5, Some(30), "the fifth rests half a minute"),
            (6, Some(60), "then a minute"),
            (8, Some(240), "doubling"),
            (10, Some(900), "to a quarter of an hour"),
            (i64::MAX, Some(900), "and never longer"),
        ];
        for (failed, rest, why) in rows {
            assert_eq!(rest_after(failed).map(|d| d.as_secs()), rest, "{why}");
        }
    }

    #[test]
    fn a_token_never_may_more_than_its_maker() {
        assert!(covers(Role::SupportManager, Role::SystemEngineer));
        assert!(covers(Role::SystemEngineer, Role::AccountManager));
        assert!(!covers(Role::SystemEngineer, Role::SupportManager));
        assert!(!covers(Role::SupportManager, Role::Operator));
        assert!(!covers(Role::Operator, Role::SystemEngineer));
    }
}
