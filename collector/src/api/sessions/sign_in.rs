//! The story of a sign-in: password, then code, then a session with a new id. Unknown, disabled and resting accounts get the same
//! answer after the same work, so that nothing can be learnt from it; every end is in the vendor's audit chain.

use std::sync::LazyLock;

use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::store::{self, NewSession};
use super::tokens::{self, Token};
use super::{Session, Stage, fresh_secret, hash_of, rules};
use crate::audit;
use crate::customers::credentials::{self, CodeVerdict};
use crate::customers::store::{Secrets, staff_to_sign_in, store_sign_in};
use crate::customers::{Language, Role, Staff, VENDOR_TENANT};
use crate::db::{Conn, Turn, mark_change, transact};
use crate::flow::World;

/// Hashing takes 19 MiB and a core: more than two at once would let strangers starve intake.
static HASHING: Semaphore = Semaphore::const_new(2);
/// What an unknown user's password is compared with, so that the answer takes as long as for a known one.
static NOBODY: LazyLock<String> = LazyLock::new(|| credentials::hash_password("nobody").unwrap_or_default());

/// The longest user name and password looked at.
const MAX_CHARS: usize = 256;

/// How one step of a sign-in ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Right: this cookie is the (new) session's.
    Right { cookie: String },
    /// Wrong name, password or code, or the account is disabled or rests: the person learns only that.
    Refused,
}

/// What stands in the audit chain, subject `staff:ID`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum SignInEvent<'a> {
    SignedIn,
    SignInFailed { step: &'a str, failed_count: i64, rests_until: Option<UnixMs> },
    SignedOut,
    OtherSessionsEnded { count: u64 },
    TokenMade { token_id: &'a str, name: &'a str, role: Role, tenant_id: Option<&'a str>, expires_at: UnixMs },
    TokenRevoked { token_id: &'a str },
}

async fn record(tx: &mut Conn, now: UnixMs, staff_id: &str, event: &SignInEvent<'_>) -> anyhow::Result<()> {
    let subject = format!("staff:{staff_id}");
    audit::append(tx, VENDOR_TENANT, now, &subject, &subject, event).await.map(drop)
}

/// First step: user name and password. Right opens a half session that can do nothing but ask for the code.
pub(crate) async fn password(world: &World, username: &str, password: &str) -> anyhow::Result<Outcome> {
    let known = {
        let mut conn = world.db.read().await?;
        staff_to_sign_in(&mut conn, username).await?
    };
    let hash = known.as_ref().map_or_else(|| NOBODY.clone(), |(_, secrets)| secrets.password_hash.clone());
    let right = username.chars().count() <= MAX_CHARS && verify(hash, password).await?;
    if known.is_none() {
        return Ok(Outcome::Refused);
    }
    let (now, rng) = (world.time.now(), &world.rng);
    Ok(transact!(world.db, Turn::Console, |tx| {
        let Some((staff, secrets)) = staff_to_sign_in(tx, username).await? else { return Ok(Outcome::Refused) };
        if !may_try(&staff, &secrets, now) {
            return Ok(Outcome::Refused);
        }
        if !right {
            failed(tx, now, &staff, &secrets, "password").await?;
            return Ok(Outcome::Refused);
        }
        let cookie = fresh_secret(rng);
        let expires_at = now.plus(rules::HALF_SESSION_LIFE);
        open(tx, &staff.staff_id, Stage::Password, &cookie, &random_hex_128(rng), (now, expires_at)).await?;
        Ok(Outcome::Right { cookie })
    }))
}

/// Second step: the code of the authenticator. Right replaces the half session by a whole one under a new id.
pub(crate) async fn code(world: &World, half: &Session, code: &str) -> anyhow::Result<Outcome> {
    let (now, rng) = (world.time.now(), &world.rng);
    Ok(transact!(world.db, Turn::Console, |tx| {
        if !use_code(tx, now, &half.username, code).await? {
            return Ok(Outcome::Refused);
        }
        store::delete(tx, &half.session_hash).await?;
        let cookie = fresh_secret(rng);
        let expires_at = now.plus(rules::SESSION_LIFE);
        open(tx, &half.staff_id, Stage::Full, &cookie, &random_hex_128(rng), (now, expires_at)).await?;
        record(tx, now, &half.staff_id, &SignInEvent::SignedIn).await?;
        Ok(Outcome::Right { cookie })
    }))
}

/// Ends a session; its open streams end with it.
pub(crate) async fn out(world: &World, session: &Session) -> anyhow::Result<()> {
    let now = world.time.now();
    transact!(world.db, Turn::Console, |tx| {
        store::delete(tx, &session.session_hash).await?;
        record(tx, now, &session.staff_id, &SignInEvent::SignedOut).await?;
        Ok(mark_change(tx).await?)
    });
    world.look_now.notify_one();
    Ok(())
}

/// Ends all other sessions of the same account.
pub(crate) async fn out_elsewhere(world: &World, session: &Session) -> anyhow::Result<u64> {
    let now = world.time.now();
    let count = transact!(world.db, Turn::Console, |tx| {
        let count = store::delete_others(tx, &session.staff_id, &session.session_hash).await?;
        record(tx, now, &session.staff_id, &SignInEvent::OtherSessionsEnded { count }).await?;
        mark_change(tx).await?;
        Ok(count)
    });
    world.look_now.notify_one();
    Ok(count)
}

/// Keeps the language of an account.
pub(crate) async fn read_in(world: &World, staff_id: &str, language: Language) -> anyhow::Result<()> {
    transact!(world.db, Turn::Console, |tx| { Ok(store::set_language(tx, staff_id, language).await?) });
    Ok(())
}

/// What a new token shall be.
#[derive(Debug, Clone)]
pub(crate) struct WantedToken {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) tenant_id: Option<String>,
    pub(crate) days: u32,
}

/// How making a token ended.
#[derive(Debug, Clone)]
pub(crate) enum TokenOutcome {
    /// Made: the secret is shown now and never again.
    Made { secret: String },
    /// The code was wrong or used (R12: step-up for keys).
    WrongCode,
    /// More rights than the maker has (R9).
    TooManyRights,
    /// No name, or a life outside 1 to [`rules::MAX_TOKEN_DAYS`] days.
    BadWish,
}

/// Makes a token for `session`'s account, after a fresh code.
pub(crate) async fn make_token(
    world: &World,
    session: &Session,
    wish: WantedToken,
    fresh_code: &str,
) -> anyhow::Result<TokenOutcome> {
    if !rules::covers(session.role, wish.role) {
        return Ok(TokenOutcome::TooManyRights);
    }
    if wish.name.is_empty() || wish.name.chars().count() > 64 || !(1..=rules::MAX_TOKEN_DAYS).contains(&wish.days) {
        return Ok(TokenOutcome::BadWish);
    }
    let (now, rng) = (world.time.now(), &world.rng);
    Ok(transact!(world.db, Turn::Console, |tx| {
        if !use_code(tx, now, &session.username, fresh_code).await? {
            return Ok(TokenOutcome::WrongCode);
        }
        let secret = format!("{}{}", tokens::PREFIX, fresh_secret(rng));
        let token = Token {
            token_id: random_hex_128(rng),
            name: wish.name.clone(),
            staff_id: session.staff_id.clone(),
            role: wish.role,
            tenant_id: wish.tenant_id.clone(),
            created_at: now,
            expires_at: now.plus_ms(i64::from(wish.days) * 86_400_000),
            revoked_at: None,
            maker_role: session.role,
            maker_name: session.name.clone(),
            maker_disabled_at: None,
        };
        tokens::insert(tx, &token, &hash_of(&secret)).await?;
        let event = SignInEvent::TokenMade {
            token_id: &token.token_id,
            name: &token.name,
            role: token.role,
            tenant_id: token.tenant_id.as_deref(),
            expires_at: token.expires_at,
        };
        record(tx, now, &session.staff_id, &event).await?;
        Ok(TokenOutcome::Made { secret })
    }))
}

/// Revokes one of the account's own tokens. `false`: there is none such.
pub(crate) async fn revoke_token(world: &World, staff_id: &str, token_id: &str) -> anyhow::Result<bool> {
    let now = world.time.now();
    Ok(transact!(world.db, Turn::Console, |tx| {
        let done = tokens::revoke(tx, staff_id, token_id, now).await?;
        if done {
            record(tx, now, staff_id, &SignInEvent::TokenRevoked { token_id }).await?;
        }
        Ok(done)
    }))
}

fn may_try(staff: &Staff, secrets: &Secrets, now: UnixMs) -> bool {
    staff.disabled_at.is_none() && secrets.locked_until_at.is_none_or(|until| now >= until)
}

/// Judges a code and uses it up; a wrong one counts as a wrong guess.
async fn use_code(tx: &mut Conn, now: UnixMs, username: &str, code: &str) -> anyhow::Result<bool> {
    let Some((staff, secrets)) = staff_to_sign_in(tx, username).await? else { return Ok(false) };
    if !may_try(&staff, &secrets, now) {
        return Ok(false);
    }
    // Authenticators show two groups of three.
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).take(MAX_CHARS).collect();
    match credentials::check_code(&secrets.totp_secret, &digits, secrets.totp_last_step, now) {
        CodeVerdict::Right { step } => {
            store_sign_in(tx, &staff.staff_id, 0, None, step).await?;
            Ok(true)
        }
        verdict @ (CodeVerdict::Used | CodeVerdict::Wrong) => {
            tracing::info!(staff_id = %staff.staff_id, ?verdict, "a sign-in code was refused");
            failed(tx, now, &staff, &secrets, "code").await?;
            Ok(false)
        }
    }
}

async fn failed(tx: &mut Conn, now: UnixMs, staff: &Staff, secrets: &Secrets, step: &str) -> anyhow::Result<()> {
    let failed_count = secrets.failed_count.saturating_add(1);
    let rests_until = rules::rest_after(failed_count).map(|rest| now.plus(rest));
    store_sign_in(tx, &staff.staff_id, failed_count, rests_until, secrets.totp_last_step).await?;
    record(tx, now, &staff.staff_id, &SignInEvent::SignInFailed { step, failed_count, rests_until }).await
}

async fn open(
    tx: &mut Conn,
    staff_id: &str,
    stage: Stage,
    cookie: &str,
    csrf_token: &str,
    (now, expires_at): (UnixMs, UnixMs),
) -> Result<(), sqlx::Error> {
    let session_hash = hash_of(cookie);
    store::insert(tx, NewSession { session_hash: &session_hash, staff_id, stage, csrf_token, now, expires_at }).await
}

/// Argon2id, beside the runtime's threads.
async fn verify(hash: String, password: &str) -> anyhow::Result<bool> {
    if password.chars().count() > MAX_CHARS {
        return Ok(false);
    }
    let _place = HASHING.acquire().await?;
    let password = password.to_owned();
    Ok(tokio::task::spawn_blocking(move || credentials::password_matches(&password, &hash)).await?)
}
