//! Sign-in, sessions and bearer tokens: who asks. A browser's cookie and a client's token are opaque ids; the rows decide, at every
//! request and on open streams (R14). `rules.rs` judges, `store.rs` and `tokens.rs` keep, `sign_in.rs` tells the story of a sign-in.
//! Nothing here knows routes or pages.

pub(crate) mod rules;
pub(crate) mod sign_in;
pub(crate) mod store;
pub(crate) mod tokens;

use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;
use ring::digest;
use ring::rand::SecureRandom;

use crate::customers::{Language, Role};
use crate::flow::World;

/// How far a sign-in has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The password was right; the code is missing.
    Password,
    /// Both were right.
    Full,
}

impl Stage {
    /// The name in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Full => "full",
        }
    }
}

/// A browser's session with the account behind it, as both stand now.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) session_hash: String,
    pub(crate) staff_id: String,
    pub(crate) username: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) language: Language,
    pub(crate) stage: Stage,
    /// What every form of this session carries.
    pub(crate) csrf_token: String,
    pub(crate) created_at: UnixMs,
    pub(crate) last_seen_at: UnixMs,
    pub(crate) expires_at: UnixMs,
    pub(crate) disabled_at: Option<UnixMs>,
}

/// A fresh opaque id of 256 random bits, as hex. It leaves in a cookie or is shown once; only its hash is kept.
pub(crate) fn fresh_secret(rng: &dyn SecureRandom) -> String {
    random_hex_128(rng) + &random_hex_128(rng)
}

/// SHA-256 of an opaque id, hex: the row's key. The ids are random, so no slow hash is needed.
pub(crate) fn hash_of(secret: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

/// The session of that hash, if it counts now: asked at every request and, on open streams, again and again (R14).
///
/// # Errors
/// If the database refuses.
pub(crate) async fn standing(world: &World, session_hash: &str) -> anyhow::Result<Option<Session>> {
    let mut conn = world.db.read().await?;
    let session = store::load(&mut conn, session_hash).await?;
    Ok(session.filter(|session| rules::judge_session(session, world.time.now()) == rules::SessionVerdict::Good))
}

#[cfg(test)]
mod tests;
