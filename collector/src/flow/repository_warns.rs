//! What the operators must know of the repository: signatures that end, 30 and 7 days ahead, and what is wrong with it once that lasts.
//!
//! Each is told once, by mail; the page shows all of it at once. Nothing here stops anything.

use std::collections::BTreeMap;

use mainstay_shared::time_source::UnixMs;

use super::World;
use crate::customers::{Role as StaffRole, VENDOR_TENANT, store as customers};
use crate::db::{Conn, Turn, mark_change, transact};
use crate::notices::{Recipient, outbox, patch_mail, texts::Text};
use crate::releases::files;
use crate::releases::problems::{self, Problem};
use crate::releases::standing::Newest;

/// Days ahead of an end at which it is told of.
const WARNED_DAYS: [i64; 2] = [30, 7];
const DAY_MS: i64 = 86_400_000;
/// A problem is told by mail once it has lasted so long: a repository that is being copied is whole again soon.
const LASTS_MS: i64 = 10 * 60_000;

/// Tells of signatures that end, and notes until when each role lasts.
///
/// # Errors
/// If the database refuses.
pub(super) async fn warn_of_ends(world: &World, newest: &BTreeMap<String, Newest>) -> anyhow::Result<()> {
    let now = world.time.now();
    let known = files::expiries(&mut *world.db.read().await?).await?;
    for (role, newest) in newest {
        let version = i64::try_from(newest.version).unwrap_or(i64::MAX);
        let is_new = !known.iter().any(|(name, known, at)| name == role && *known == version && *at == newest.expires_at);
        let left_ms = newest.expires_at.since_ms(now);
        let warned = WARNED_DAYS.into_iter().filter(|days| left_ms <= days * DAY_MS).min();
        if is_new || warned.is_some() {
            transact!(world.db, Turn::Console, |tx| {
                if is_new {
                    files::put_expiry(tx, role, version, newest.expires_at).await?;
                    mark_change(tx).await?;
                }
                if let Some(days) = warned {
                    end_is_near(tx, world, (role, version, newest.expires_at), days, now).await?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

/// Once for each role, version and number of days: the notice's subject says so.
async fn end_is_near(
    tx: &mut Conn,
    world: &World,
    (role, version, expires_at): (&str, i64, UnixMs),
    days: i64,
    now: UnixMs,
) -> anyhow::Result<()> {
    let about = format!("{role}.{version}.{days}");
    let told: Option<String> =
        sqlx::query_scalar("SELECT notice_id FROM outbox WHERE tenant_id = $1 AND subject_id = $2 LIMIT 1")
            .bind(VENDOR_TENANT)
            .bind(format!("expiry:{about}"))
            .fetch_optional(&mut *tx)
            .await?;
    if told.is_some() {
        return Ok(());
    }
    let text = |language| patch_mail::signatures_end(language, &world.config.service_name, role, expires_at);
    tell_operators(tx, world, ("expiry", &about), text, now).await
}

async fn tell_operators(
    tx: &mut Conn,
    world: &World,
    (kind, about): (&str, &str),
    text: impl Fn(crate::customers::Language) -> Text,
    now: UnixMs,
) -> anyhow::Result<()> {
    let subject_id = format!("{kind}:{about}");
    for operator in customers::all_staff(tx).await? {
        if operator.role != StaffRole::Operator || operator.disabled_at.is_some() {
            continue;
        }
        let text = text(operator.language);
        let recipient = Recipient { name: operator.name, email: operator.email, language: operator.language };
        let row = outbox::New { tenant_id: VENDOR_TENANT, subject_id: &subject_id, about, kind, recipient: &recipient };
        outbox::enqueue(tx, &world.config, now, &row, &text).await?;
    }
    Ok(())
}

/// Keeps what is wrong now in place of what was, and tells of what lasts.
///
/// # Errors
/// If the database refuses.
pub(super) async fn keep_problems(world: &World, mut found: Vec<Problem>) -> anyhow::Result<()> {
    found.sort();
    found.dedup_by(|one, other| (one.what, &one.about) == (other.what, &other.about));
    let now = world.time.now();
    let known = problems::list(&mut *world.db.read().await?).await?;
    let over: Vec<&Problem> = known
        .iter()
        .map(|kept| &kept.problem)
        .filter(|old| !found.iter().any(|new| (new.what, &new.about) == (old.what, &old.about)))
        .collect();
    let news: Vec<&Problem> = found.iter().filter(|new| !known.iter().any(|kept| kept.problem == **new)).collect();
    let lasting = known.iter().filter(|kept| kept.told_at.is_none() && now.since_ms(kept.since_at) >= LASTS_MS);
    let lasting: Vec<&Problem> = lasting.map(|kept| &kept.problem).filter(|problem| !over.contains(problem)).collect();
    if over.is_empty() && news.is_empty() && lasting.is_empty() {
        return Ok(());
    }
    for problem in &news {
        let what = problem.what.as_str();
        tracing::warn!(what, about = problem.about, why = problem.why, "something is wrong with the repository");
    }
    transact!(world.db, Turn::Console, |tx| {
        for problem in &over {
            problems::remove(tx, problem).await?;
        }
        for problem in &news {
            problems::put(tx, problem, now).await?;
        }
        for problem in &lasting {
            let text = |language| patch_mail::repository_problem(language, &world.config.service_name, problem);
            let about = format!("{}:{}", problem.what.as_str(), problem.about);
            tell_operators(tx, world, ("repository", &about), text, now).await?;
            problems::told(tx, problem, now).await?;
        }
        mark_change(tx).await?;
        Ok(())
    });
    Ok(())
}
