//! Time passes: clocks warn and run out, appliances fall silent, recovered tickets close, old rows go.
//!
//! Idempotent, without input: it runs on a period and when nudged, on any node; what a node claims, no other does.

use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Context as _;
use mainstay_shared::time_source::UnixMs;
use serde::Serialize;

use super::World;
use super::explain::explain_ticket;
use super::record::{Desk, happened, happened_quietly};
use super::silence_falls;
use crate::audit;
use crate::clocks::{Clock, ClockState, store as clocks};
use crate::db::{Conn, Turn, transact};
use crate::faults::links;
use crate::retention;
use crate::tickets::{Ticket, TicketEvent, TicketState, store as tickets};

/// Recovered tickets looked at in one pass.
const CLOSE_AT_ONCE: i64 = 200;

/// Silence is judged so many times within the time after which it counts: each look reads all that is unheard or excused.
const LOOKS_AT_SILENCE: u32 = 60;

/// Appliances whose old samples go in one transaction.
const PRUNED_AT_ONCE: usize = 16;

/// When a node last looked at the time, and at silence, in ms since 1970; 0 before the first time.
#[derive(Debug, Default)]
pub(crate) struct LastLook {
    time: AtomicI64,
    silence: AtomicI64,
}

/// One pass. A pause of the collector itself (its machine stood still, the database was away) counts like a
/// start: agents are given the time to be heard again before anybody is called silent.
///
/// # Errors
/// If the database refuses; the next period is the retry.
pub(crate) async fn once(world: &World, last: &LastLook) -> anyhow::Result<()> {
    let (now, before) = (world.time.now(), last.time.load(Ordering::Relaxed));
    if before != 0 && now > UnixMs(before).plus(world.config.silence_after / 2) {
        tracing::warn!(last_look_at = %UnixMs(before), "the collector stood still: silence is not judged for a while");
        collector_starts(world).await?;
    }
    clocks_and_silence(world, last, now).await?;
    last.time.store(now.0, Ordering::Relaxed);
    closing_and_nightly(world).await
}

/// By the time that was looked at above: a pause in between must not make anybody silent.
async fn clocks_and_silence(world: &World, last: &LastLook, now: UnixMs) -> anyhow::Result<()> {
    clocks_run(world, now).await.context("telling of clocks")?;
    let looked_at = UnixMs(last.silence.load(Ordering::Relaxed));
    // A clock set back looks again at once.
    if looked_at <= now && now < looked_at.plus(world.config.silence_after / LOOKS_AT_SILENCE) {
        return Ok(());
    }
    silence_falls::once(world, now).await.context("judging silence")?;
    last.silence.store(now.0, Ordering::Relaxed);
    Ok(())
}

async fn closing_and_nightly(world: &World) -> anyhow::Result<()> {
    recovered_tickets_close(world).await.context("closing recovered tickets")?;
    let now = world.time.now();
    if retention::day_is_done(&mut *world.db.read().await?, now).await? {
        return Ok(());
    }
    if transact!(world.db, Turn::Console, |tx| { Ok(retention::claim_day(tx, now).await?) }) {
        nightly(world).await.context("the day's work")?;
    }
    Ok(())
}

/// Notes that the collector starts now: silence is not judged before twice the longest interval has passed. The first policy is
/// written if none is.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn collector_starts(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    transact!(world.db, Turn::Console, |tx| {
        links::collector_starts(tx, now).await?;
        clocks::seed_policy(tx).await
    });
    Ok(())
}

async fn clocks_run(world: &World, now: UnixMs) -> anyhow::Result<()> {
    if clocks::next_due(&mut *world.db.read().await?).await?.is_none_or(|due| due >= now) {
        return Ok(());
    }
    transact!(world.db, Turn::Intake, |tx| {
        for clock in clocks::claim_due(tx, now).await? {
            tell_clock(tx, world, now, &clock).await?;
        }
        Ok(())
    });
    world.look_now.notify_one();
    Ok(())
}

async fn tell_clock(tx: &mut Conn, world: &World, now: UnixMs, clock: &Clock) -> anyhow::Result<()> {
    let desk = Desk { config: &world.config, now, actor: audit::SYSTEM };
    let mut ticket = must_get(tx, &clock.tenant_id, &clock.ticket_id).await?;
    let (clock_no, kind, due_at) = (clock.clock_no, clock.kind.as_str().to_owned(), clock.due_at);
    let event = match clock.state {
        ClockState::Missed => TicketEvent::ClockMissed { clock_no, kind, due_at },
        ClockState::Running | ClockState::Met | ClockState::Void => TicketEvent::ClockWarned { clock_no, kind, due_at },
    };
    // Recorded always; told once per ticket that waits, and never for a closed one.
    let told_before = clocks::of_ticket(tx, &clock.tenant_id, &clock.ticket_id)
        .await?
        .iter()
        .any(|other| other.clock_no < clock.clock_no && other.is_unanswered());
    if told_before || ticket.state == TicketState::Closed {
        happened_quietly(tx, desk, &mut ticket, &event).await
    } else {
        happened(tx, desk, &mut ticket, &event).await
    }
}

/// A recovered ticket closes when nobody objected for `close_recovered_after` and no clock of it still runs.
async fn recovered_tickets_close(world: &World) -> anyhow::Result<()> {
    let (config, now) = (&*world.config, world.time.now());
    let wait_ms = i64::try_from(config.close_recovered_after.as_millis()).unwrap_or(i64::MAX);
    let due = tickets::recovered_before(&mut *world.db.read().await?, now.plus_ms(-wait_ms), CLOSE_AT_ONCE).await?;
    for Ticket { tenant_id, ticket_id, .. } in due {
        transact!(world.db, Turn::Console, |tx| {
            let mut ticket = must_get(tx, &tenant_id, &ticket_id).await?;
            let runs =
                clocks::of_ticket(tx, &tenant_id, &ticket_id).await?.iter().any(|clock| clock.state == ClockState::Running);
            if ticket.state == TicketState::Recovered && !runs {
                let why = "no_objection".to_owned();
                let desk = Desk { config, now, actor: audit::SYSTEM };
                happened(tx, desk, &mut ticket, &TicketEvent::Closed { why }).await?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// The nightly check: clock rows are a cache of the log; one that disagrees is repaired, and that is recorded.
async fn nightly(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    let mut gone = transact!(world.db, Turn::Console, |tx| { Ok(retention::prune(tx, now).await?) });
    let appliances = retention::sampled(&mut *world.db.read().await?).await?;
    for some in appliances.chunks(PRUNED_AT_ONCE) {
        // A few appliances a transaction: intake must not wait for a day's samples of all.
        gone += transact!(world.db, Turn::Console, |tx| {
            let mut gone = 0;
            for (tenant_id, appliance_id) in some {
                gone += retention::prune_samples(tx, tenant_id, appliance_id, now).await?;
            }
            Ok(gone)
        });
    }
    tracing::info!(gone, "old rows removed");
    let mut below = None;
    loop {
        let filter = tickets::Filter { not_closed: true, ..tickets::Filter::default() };
        let page = tickets::list(&mut *world.db.read().await?, &filter, below, 100).await?;
        let Some(last) = page.last() else { return Ok(()) };
        below = Some(last.number);
        for ticket in &page {
            // Nearly always they agree, and the writer is asked for nothing.
            if !explain_ticket(&mut *world.db.snapshot().await?, ticket).await?.rows_agree {
                transact!(world.db, Turn::Console, |tx| { repair_clocks(tx, ticket, now).await });
            }
        }
    }
}

/// What the nightly check repaired.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Repair<'a> {
    ClocksRepaired { ticket_id: &'a str, found: &'a [Clock], recomputed: &'a [Clock] },
}

async fn repair_clocks(tx: &mut Conn, ticket: &Ticket, now: UnixMs) -> anyhow::Result<()> {
    let explanation = explain_ticket(tx, ticket).await?;
    if explanation.rows_agree {
        return Ok(());
    }
    let found = clocks::of_ticket(tx, &ticket.tenant_id, &ticket.ticket_id).await?;
    tracing::error!(ticket = ticket.ticket_id, "clock rows disagree with the log: repaired from it");
    let repair = Repair::ClocksRepaired { ticket_id: &ticket.ticket_id, found: &found, recomputed: &explanation.clocks };
    audit::append(tx, &ticket.tenant_id, now, audit::SYSTEM, &format!("clocks:{}", ticket.ticket_id), &repair).await?;
    clocks::replace(tx, &ticket.tenant_id, &ticket.ticket_id, &explanation.clocks).await?;
    Ok(())
}

async fn must_get(tx: &mut Conn, tenant_id: &str, ticket_id: &str) -> anyhow::Result<Ticket> {
    tickets::get(tx, tenant_id, ticket_id).await?.with_context(|| format!("ticket {ticket_id} of {tenant_id} is gone"))
}
