//! An appliance says what became of a signed file: by a record of the fault lane, or by a receipt that somebody carried.
//!
//! Runs inside the transaction that takes it. The same report by both ways is taken once. A patch that rolled back or failed opens a
//! ticket with what its scripts said; a later good one of the product lets it recover. Nothing here asks anything of the box.

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::fault::FaultGrounds;
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::{AGENT, PatchKind, PatchProgress, PatchReport, PatchStep};
use mainstay_shared::time_source::UnixMs;

use super::collector_faults::{self, Found};
use super::faults_arrive::ArrivedFrom;
use super::record::{Desk, happened};
use crate::appliances::{ApplianceEvent, PatchNews, subject};
use crate::audit;
use crate::config::Config;
use crate::db::Conn;
use crate::releases::reports::{self, Way};
use crate::releases::{CODE_FAILED, CODE_ROLLED_BACK, OfferRow, component_of, kind_name, life, offers, step_name};
use crate::tickets::{Ticket, TicketEvent, store as tickets};

/// Of a script's output, what an event of the chain keeps; the whole stands with the report.
const EVENT_OUTPUT_CHARS: usize = 4_096;

/// Takes one cleaned report of `who`; `false`: it was known.
pub(crate) async fn patch_is_reported(
    tx: &mut Conn,
    config: &Config,
    who: &ArrivedFrom,
    report: &PatchReport,
    way: Way,
    (occurred_at, now): (UnixMs, UnixMs),
) -> anyhow::Result<bool> {
    let key = (who.tenant_id.as_str(), who.appliance_id.as_str());
    if !reports::add(tx, key, report, way, (occurred_at, now)).await? {
        return Ok(false);
    }
    let offer = find_offer(tx, key, report).await?;
    let news = news(report, offer.as_ref());
    let actor = subject(&who.appliance_id);
    audit::append(tx, key.0, now, &actor, &actor, &ApplianceEvent::Patch(news.clone())).await?;
    if let Some(offer) = &offer {
        move_offer(tx, offer.clone(), report, now).await?;
    }
    note_version(tx, key, report, now).await?;
    let desk = Desk { config, now, actor: &actor };
    let mut told = None;
    if let Some(offer) = offer.filter(|offer| !offer.ticket_id.is_empty())
        && let Some(mut ticket) = tickets::get(tx, key.0, &offer.ticket_id).await?
    {
        tell(tx, desk, &mut ticket, &who.appliance_id, &news).await?;
        told = Some(ticket.ticket_id);
    }
    faults(tx, desk, who, report, &news, told).await?;
    Ok(true)
}

/// A heartbeat tells how far a file is; whether that is news.
pub(crate) async fn patch_progresses(
    tx: &mut Conn,
    (tenant_id, appliance_id): (&str, &str),
    progress: &PatchProgress,
    now: UnixMs,
) -> anyhow::Result<bool> {
    let found = offers::get(tx, tenant_id, &progress.offer_id).await?;
    let Some(mut offer) = found.filter(|offer| offer.appliance_id == appliance_id) else { return Ok(false) };
    let percent = i64::from(progress.percent.min(100));
    let Some(state) = life::progressed(offer.state, progress.step) else { return Ok(false) };
    if (state, percent) == (offer.state, offer.percent) {
        return Ok(false);
    }
    (offer.state, offer.percent, offer.changed_at) = (state, percent, now);
    offers::update(tx, &offer).await?;
    Ok(true)
}

/// The offer that it names, if it is this appliance's and of this file; else the file's own offer to it.
async fn find_offer(tx: &mut Conn, key: (&str, &str), report: &PatchReport) -> anyhow::Result<Option<OfferRow>> {
    if let Some(offer_id) = &report.offer_id {
        let named = offers::get(tx, key.0, offer_id).await?;
        let its = |offer: &OfferRow| offer.appliance_id == key.1 && offer.sha256 == report.sha256;
        if let Some(offer) = named.filter(its) {
            return Ok(Some(offer));
        }
    }
    Ok(offers::of_file(tx, key, &report.sha256).await?)
}

fn news(report: &PatchReport, offer: Option<&OfferRow>) -> PatchNews {
    let mut text = report.detail.clone();
    if !report.output.is_empty() {
        let skipped = report.output.chars().count().saturating_sub(EVENT_OUTPUT_CHARS);
        text.push('\n');
        text.extend(report.output.chars().skip(skipped));
    }
    PatchNews {
        offer_id: offer.map(|offer| offer.offer_id.clone()).unwrap_or_default(),
        kind: kind_name(report.kind).to_owned(),
        file: offer.map_or_else(|| format!("{} {}", report.product, report.to_version), |offer| offer.file.clone()),
        sha256: report.sha256.clone(),
        version: report.to_version.clone(),
        what: step_name(report.step).to_owned(),
        reason: report.reason.clone(),
        text: text.trim().to_owned(),
    }
}

async fn move_offer(tx: &mut Conn, mut offer: OfferRow, report: &PatchReport, now: UnixMs) -> anyhow::Result<()> {
    let number = reports::number_of(report);
    let Some(state) = life::reported(offer.state, offer.number, number, report.step) else { return Ok(()) };
    offer.percent = if state.is_over() { 100 } else { 0 };
    (offer.state, offer.number, offer.changed_at) = (state, number, now);
    (offer.reason, offer.detail) = (report.reason.clone(), report.detail.clone());
    offer.ended_at = state.is_over().then_some(now);
    offers::update(tx, &offer).await?;
    Ok(())
}

async fn note_version(tx: &mut Conn, key: (&str, &str), report: &PatchReport, now: UnixMs) -> anyhow::Result<()> {
    // The agent tells its own version at its start; the product's is not moved by it.
    let runs = match (report.kind, report.step) {
        _ if report.product == AGENT => None,
        (PatchKind::Patch, PatchStep::Done) => Some(report.to_version.as_str()),
        (PatchKind::Patch, PatchStep::RolledBack) => report.from_version.as_deref(),
        _ => None,
    };
    if let Some(version) = runs {
        reports::set_version(tx, key, (&report.product, version), reports::number_of(report), now).await?;
    }
    Ok(())
}

async fn tell(tx: &mut Conn, desk: Desk<'_>, ticket: &mut Ticket, appliance_id: &str, news: &PatchNews) -> anyhow::Result<()> {
    let event = TicketEvent::Patch { appliance_id: appliance_id.to_owned(), news: news.clone() };
    happened(tx, desk, ticket, &event).await
}

/// A patch that went wrong is a fault of the appliance; one that went well ends what an older one left.
async fn faults(
    tx: &mut Conn,
    desk: Desk<'_>,
    who: &ArrivedFrom,
    report: &PatchReport,
    news: &PatchNews,
    told: Option<String>,
) -> anyhow::Result<()> {
    if report.kind != PatchKind::Patch {
        return Ok(());
    }
    let component = component_of(&report.product);
    let code = match report.step {
        PatchStep::RolledBack => CODE_ROLLED_BACK,
        PatchStep::Failed => CODE_FAILED,
        PatchStep::Done => {
            for code in [CODE_ROLLED_BACK, CODE_FAILED] {
                collector_faults::clear(tx, desk.config, desk.now, who, &component, code, "patched").await?;
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    // The word of a rollback that an administrator asked for is no fault.
    if report.reason == "by_administrator" {
        return Ok(());
    }
    let summary = format!(
        "{} -> {}: {} {}",
        report.from_version.as_deref().unwrap_or("?"),
        report.to_version,
        report.reason,
        report.detail
    );
    let summary = clean_text(summary.trim(), MAX_TEXT_CHARS);
    let found = Found { component: &component, code, summary: &summary, grounds: grounds(report, desk.now), source: "agent" };
    let ticket = collector_faults::raise_found(tx, desk.config, desk.now, who, found).await?;
    match ticket {
        Some(mut ticket) if told.as_ref() != Some(&ticket.ticket_id) => {
            tell(tx, desk, &mut ticket, &who.appliance_id, news).await
        }
        _ => Ok(()),
    }
}

/// The end of what its scripts said, as the ticket's page shows tries.
fn grounds(report: &PatchReport, at: UnixMs) -> FaultGrounds {
    let skipped = report.output.chars().count().saturating_sub(MAX_TEXT_CHARS);
    let text: String = report.output.chars().skip(skipped).collect();
    let seen = CheckResult {
        check: format!("{} {}", report.product, report.to_version),
        kind: "patch".to_owned(),
        state: ServiceState::Down,
        reason: report.reason.clone(),
        text: clean_text(if text.is_empty() { &report.detail } else { &text }, MAX_TEXT_CHARS),
        took_ms: 0,
        attempt: 1,
        at,
        perf_data: String::new(),
    };
    FaultGrounds { checks: vec![seen], ..FaultGrounds::default() }
}
