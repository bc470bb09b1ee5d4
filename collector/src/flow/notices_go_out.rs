//! Notices go out: due rows are claimed, handed to the mail server aside of any transaction, and settled by its answer.
//!
//! It runs when something changed and on a period. What is cut off here is sent again after its lease, with the same
//! Message-ID; "sent" is stored on acknowledgement only (R32).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_shared::time_source::UnixMs;
use tokio::sync::mpsc;

use super::World;
use crate::db::{Turn, transact};
use crate::lifecycle::{Lifecycle, Stop};
use crate::notices::mail::Way;
use crate::notices::outbox::{self, Notice, Outcome, Settled};

/// How often the outbox is looked at when nothing seems to have changed.
const PERIOD: Duration = Duration::from_secs(5);

/// How many mails are under way at once.
const BATCH: i64 = 8;

/// How long it is tried to record that a mail was taken, and how often.
const SETTLES_WITHIN: Duration = Duration::from_secs(3600);
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// Starts the story, if there is a way out for mail.
///
/// # Errors
/// If a file that the settings name can't be used.
pub(crate) fn run(world: &World, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let Some(mail) = &world.config.mail else {
        tracing::warn!("no [mail] in the settings: notices wait");
        return Ok(());
    };
    let (way, world, stop) = (Way::open(mail)?, world.clone(), lifecycle.stop());
    lifecycle.spawn("notices go out", async move {
        let mut changes = world.changes.clone();
        while !stop.is_stopping() {
            if let Err(error) = once(&world, &way, &stop).await {
                tracing::warn!(error = %format!("{error:#}"), "notices wait for the next turn");
            }
            tokio::select! {
                () = stop.stopping() => {}
                // Its sender lives as long as the process; without it the period alone drives.
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        Ok(())
    });
    Ok(())
}

/// Sends what is due until nothing is, or the soft stop comes. Answers how many were acknowledged.
pub(crate) async fn once(world: &World, way: &Way, stop: &Stop) -> anyhow::Result<usize> {
    let mut sent = 0;
    while !stop.is_stopping() {
        let claimed = claim(world).await?;
        if claimed.is_empty() {
            break;
        }
        let settled = send_all(world, way, stop, &claimed).await?;
        sent += settled.iter().filter(|settled| **settled == Settled::Sent).count();
    }
    Ok(sent)
}

async fn claim(world: &World) -> anyhow::Result<Vec<Notice>> {
    let due: Option<i64> = sqlx::query_scalar("SELECT MIN(next_try_at) FROM outbox WHERE next_try_at IS NOT NULL")
        .fetch_one(&mut *world.db.read().await?)
        .await?;
    let now = world.time.now();
    if due.is_none_or(|due| due > now.0) {
        return Ok(Vec::new());
    }
    Ok(transact!(world.db, Turn::Intake, |tx| { Ok(outbox::claim(tx, now, BATCH).await?) }))
}

/// Hands all of them over at once. What is answered while earlier answers are being recorded is recorded together, next: one after
/// the other at the end of a customer's chain of events, not side by side against each other.
async fn send_all(world: &World, way: &Way, stop: &Stop, claimed: &[Notice]) -> anyhow::Result<Vec<Settled>> {
    let (done, mut answers) = mpsc::channel(claimed.len().max(1));
    let handing = async move {
        let each = claimed.iter().map(|notice| async {
            let answer = hand_over(world, way, notice).await;
            // The other side listens until all have answered.
            done.send(answer).await
        });
        join_all(each).await
    };
    let recording = async {
        let (mut settled, mut failed, mut batch) = (Vec::new(), Ok(()), Vec::new());
        while answers.recv_many(&mut batch, claimed.len()).await > 0 {
            match record(world, stop, std::mem::take(&mut batch)).await {
                Ok(recorded) => settled.extend(recorded),
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| settled)
    };
    let (handed, settled) = tokio::join!(handing, recording);
    anyhow::ensure!(handed.iter().all(Result::is_ok), "an answer of the mail server was not recorded");
    settled
}

/// Records what the mail server said. What it took is recorded in one transaction; anything else carries the server's own words and
/// stands alone, so that it can't hold up the others.
async fn record(world: &World, stop: &Stop, answers: Vec<(Outcome, Notice)>) -> anyhow::Result<Vec<Settled>> {
    let (taken, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(outcome, _)| *outcome == Outcome::Acknowledged);
    let mut settled = if taken.is_empty() { Vec::new() } else { record_taken(world, stop, &taken).await? };
    for other in others {
        settled.extend(settle(world, std::slice::from_ref(&other)).await?);
    }
    Ok(settled)
}

async fn record_taken(world: &World, stop: &Stop, taken: &[(Outcome, Notice)]) -> anyhow::Result<Vec<Settled>> {
    let begun = world.time.monotonic();
    loop {
        match settle(world, taken).await {
            // What the server took must not be forgotten because the database is away: it would be sent again.
            Err(error) if !stop.is_stopping() && within(world, begun) => {
                let notices: Vec<&str> = taken.iter().map(|(_, notice)| notice.notice_id.as_str()).collect();
                tracing::warn!(?notices, error = %format!("{error:#}"), "taken by the mail server, not recorded yet");
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            settled => return settled,
        }
    }
}

async fn settle(world: &World, answers: &[(Outcome, Notice)]) -> anyhow::Result<Vec<Settled>> {
    let now = world.time.now();
    let settled = transact!(world.db, Turn::Intake, |tx| {
        let mut settled = Vec::with_capacity(answers.len());
        for (outcome, notice) in answers {
            settled.push(outbox::settle(tx, now, notice, outcome).await?);
        }
        Ok(settled)
    });
    for ((outcome, notice), settled) in answers.iter().zip(&settled) {
        tracing::info!(notice = %notice.notice_id, kind = %notice.kind, subject = %notice.subject_id, tries = notice.tries, ?outcome, ?settled, "notice");
    }
    Ok(settled)
}

fn within(world: &World, begun: Duration) -> bool {
    world.time.monotonic().saturating_sub(begun) < SETTLES_WITHIN
}

/// Goes on with the hand-over only while the row is ours: a node that stood still must not end a mail that another has sent since.
/// When the lease is over and nobody has claimed the row, it is leased again. Answers the notice as it is leased at the end.
async fn hand_over(world: &World, way: &Way, notice: &Notice) -> (Outcome, Notice) {
    let mut held = notice.clone();
    let mut sending = pin!(way.send(notice));
    loop {
        let ends_at = held.next_try_at;
        let step = poll_fn(|context| match ends_at {
            Some(ends_at) if world.time.now() >= ends_at => Poll::Ready(None),
            _ => sending.as_mut().poll(context).map(Some),
        });
        if let Some(outcome) = step.await {
            return (outcome, held);
        }
        match renew(world, &held).await {
            Ok(Some(until)) => held.next_try_at = Some(until),
            Ok(None) => return (Outcome::NotNow("another collector has claimed it meanwhile".to_owned()), held),
            Err(error) => return (Outcome::NotNow(format!("its lease is over: {error:#}")), held),
        }
    }
}

async fn renew(world: &World, held: &Notice) -> anyhow::Result<Option<UnixMs>> {
    let now = world.time.now();
    Ok(transact!(world.db, Turn::Intake, |tx| { Ok(outbox::renew(tx, now, held).await?) }))
}

#[cfg(test)]
mod tests;
