//! An appliance's page: how it stands, its health drawn over time, present values, certificates, open tickets; and what an
//! operator decides about it: releasing a held one, letting an expired certificate renew.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use mainstay_shared::time_source::UnixMs;
use serde::Deserialize;

use super::appliances::{ServiceDot, dots};
use super::drawing;
use super::health::{self, Health};
use super::offers_view::{self, OfferLine};
use super::overview::Names;
use super::shell::{PageError, PageResult, Said, Shell, back_to, page, said};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing::{self, ApplianceNow, CertificateLine};
use crate::entitlements::{self, Entitlement};
use crate::faults;
use crate::flow::World;
use crate::flow::appliance_acts::{Acted, ApplianceAct, act};
use crate::flow::file_is_offered::{self, TakenBack};
use crate::releases::offers;
use crate::releases::reports::{self, InstalledRow, ReportRow};
use crate::tickets::{self, Ticket};
use crate::words::Words;
use crate::words::when;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    /// `day` (the default), `six-hours` or `week`.
    span: Option<String>,
    said: Option<String>,
}

struct Certificate {
    fingerprint: String,
    issued: String,
    until: String,
    mood: &'static str,
}

#[derive(Template)]
#[template(path = "appliance.html")]
struct AppliancePage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    a: ApplianceNow,
    standing: &'static str,
    customer: String,
    site: String,
    last_seen: String,
    enrolled: String,
    expected_back: String,
    services: Vec<ServiceDot>,
    values: Vec<(String, String, String)>,
    health: Health,
    span: &'static str,
    spans: [&'static str; 3],
    certificates: Vec<Certificate>,
    renewal: String,
    /// With their headlines.
    tickets: Vec<(Ticket, String)>,
    administers: bool,
    works: bool,
    installed: Option<InstalledRow>,
    /// Text keys and what is recorded.
    entitled: Vec<(&'static str, String)>,
    offers: Vec<OfferLine>,
    history: Vec<HistoryLine>,
}

/// A step that the box told of.
struct HistoryLine {
    at: String,
    step: String,
    tone: &'static str,
    versions: String,
    reason: String,
    way: String,
    /// Untrusted text.
    detail: String,
    output: String,
}

const SPANS: [&str; 3] = ["six-hours", "day", "week"];

/// `GET /appliances/{appliance}`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "appliances", &format!("/appliances/{id}"));
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let found = listing::find(&mut conn, &id).await?.filter(|appliance| principal.sees(&appliance.tenant_id));
    let Some(a) = found else { return Err(PageError::NotFound(viewer.language)) };
    let names = Names::of_appliances(&mut conn, std::slice::from_ref(&a)).await?;
    let (site, zone) = names.site(&a.tenant_id, &a.site_id);
    let span = SPANS.into_iter().find(|span| wish.span.as_deref() == Some(span)).unwrap_or("day");
    let from = now.plus_ms(-span_ms(span));
    let samples = listing::samples(&mut conn, &a.tenant_id, &id, (from, now)).await?;
    let declared = listing::declared(&mut conn, &a.tenant_id, &id).await?;
    let episodes = faults::store::of_appliance_between(&mut conn, &a.tenant_id, &id, from, now).await?;
    let certificates = listing::certificates(&mut conn, &a.tenant_id, &id).await?;
    let renewal = listing::waiting_renewal(&mut conn, &a.tenant_id, &id).await?;
    let filter = tickets::store::Filter {
        tenant_id: Some(a.tenant_id.clone()),
        appliance_id: Some(id.clone()),
        not_closed: true,
        ..Default::default()
    };
    let tickets = tickets::store::list(&mut conn, &filter, None, 50).await?;
    let installed = reports::installed(&mut conn, &a.tenant_id, &id).await?;
    let entitlement = entitlements::store::get(&mut conn, &a.tenant_id, &id).await?;
    let offers = offers::of_appliance(&mut conn, &a.tenant_id, &id, 20).await?;
    let history = reports::newest(&mut conn, &a.tenant_id, &id, 30).await?;
    let title = a.name.clone();
    page(&AppliancePage {
        said: said(w, wish.said.as_deref()),
        now: now.0,
        standing: a.standing().as_str(),
        customer: names.customer.get(&a.tenant_id).cloned().unwrap_or_default(),
        last_seen: a.last_seen_at.map(|at| when::ago(w, now, at)).unwrap_or_default(),
        enrolled: when::moment(a.enrolled_at, &zone),
        expected_back: a.expected_back_at.map(|at| when::moment(at, &zone)).unwrap_or_default(),
        services: dots(&a),
        values: values(w, &a),
        health: health::health(
            w,
            &samples,
            &declared,
            &episodes,
            &health::Window { from, to: now, enrolled_at: a.enrolled_at, zone: &zone },
        ),
        span,
        spans: SPANS,
        certificates: certificates.iter().map(|c| certificate(c, now, &zone)).collect(),
        renewal: renewal.map(|at| when::moment(at, &zone)).unwrap_or_default(),
        tickets: tickets
            .into_iter()
            .map(|ticket| {
                let headline = ticket.headline(w, &a.name);
                (ticket, headline)
            })
            .collect(),
        administers: principal.role.administers(),
        works: principal.role.works_on_tickets(),
        installed,
        entitled: entitlement.map(|recorded| entitled(w, &recorded, &zone)).unwrap_or_default(),
        offers: offers.iter().map(|offer| offers_view::line(w, offer, "", "", &zone)).collect(),
        history: history.iter().map(|report| history_line(w, report, &zone)).collect(),
        site,
        shell: shell.titled(title),
        a,
    })
}

fn entitled(w: Words, recorded: &Entitlement, zone: &str) -> Vec<(&'static str, String)> {
    let dates = [
        ("appliance.software_until", recorded.software_until_at),
        ("appliance.hardware_until", recorded.hardware_until_at),
        ("appliance.service_until", recorded.service_until_at),
    ];
    let mut lines: Vec<_> = dates.into_iter().filter_map(|(key, at)| Some((key, when::moment(at?, zone)))).collect();
    if !recorded.features.is_empty() {
        let features: Vec<&str> = recorded.features.iter().map(String::as_str).collect();
        lines.push(("appliance.features", features.join(&w.t("mail.comma"))));
    }
    lines
}

fn history_line(w: Words, report: &ReportRow, zone: &str) -> HistoryLine {
    let tone = match report.step.as_str() {
        "done" => "good",
        "rolled_back" | "failed" | "refused" | "unknown" => "bad",
        _ => "plain",
    };
    HistoryLine {
        at: when::moment(report.occurred_at, zone),
        step: offers_view::step_words(w, &report.kind, &report.step),
        tone,
        versions: match report.kind.as_str() {
            "patch" => format!("{} {} → {}", report.product, report.from_version, report.to_version),
            kind => format!("{} {} {}", w.of("patch_kind", kind), report.product, report.to_version),
        },
        reason: if report.reason.is_empty() { String::new() } else { w.of("patch_reason", &report.reason).into_owned() },
        way: if report.way == "receipt" { w.t("appliance.by_receipt").into_owned() } else { String::new() },
        detail: report.detail.clone(),
        output: report.output.clone(),
    }
}

/// `POST /appliances/{appliance}/offers/{offer}/take-back`.
pub(crate) async fn take_back(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path((id, offer)): Path<(String, String)>,
) -> Result<Response, PageError> {
    let found = listing::find(&mut *world.db.read().await?, &id).await?.filter(|appliance| principal.sees(&appliance.tenant_id));
    let Some(appliance) = found else { return Ok(back_to("/appliances", "")) };
    let back = file_is_offered::take_back(&world, &principal.actor(), &appliance.tenant_id, &offer).await?;
    let word = if back == TakenBack::Done { "done_act" } else { "refused_too_late" };
    Ok(back_to(&format!("/appliances/{id}"), word))
}

fn span_ms(span: &str) -> i64 {
    match span {
        "six-hours" => 6 * 3_600_000,
        "week" => 7 * 86_400_000,
        _ => 86_400_000,
    }
}

/// Present values as (component, metric, figure), at most 120: a hostile box may send more.
fn values(w: Words, a: &ApplianceNow) -> Vec<(String, String, String)> {
    let line = |(name, value): (&String, &f64)| {
        let (component, metric) = name.rsplit_once('.').unwrap_or((name, ""));
        let figure = drawing::figure(*value, drawing::unit_of(metric));
        (w.component(component), w.of("metric", metric).into_owned(), figure)
    };
    a.values.iter().take(120).map(line).collect()
}

fn certificate(found: &CertificateLine, now: UnixMs, zone: &str) -> Certificate {
    let left = found.not_after_at.since_ms(now);
    let mood = match found.revoked_at {
        Some(_) => "revoked",
        None if left <= 0 => "expired",
        None if left < 14 * 86_400_000 => "ending",
        None => "good",
    };
    Certificate {
        fingerprint: found.fingerprint.get(..16).unwrap_or(&found.fingerprint).to_owned(),
        issued: when::moment(found.issued_at, zone),
        until: when::moment(found.not_after_at, zone),
        mood,
    }
}

/// `POST /appliances/{appliance}/release`.
pub(crate) async fn release(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    after(&world, &principal, &id, ApplianceAct::Release { why: String::new() }).await
}

/// `POST /appliances/{appliance}/approve-renewal`.
pub(crate) async fn approve_renewal(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    after(&world, &principal, &id, ApplianceAct::ApproveRenewal).await
}

async fn after(world: &World, principal: &Principal, id: &str, wish: ApplianceAct) -> Result<Response, PageError> {
    let found = listing::find(&mut *world.db.read().await?, id).await?.filter(|appliance| principal.sees(&appliance.tenant_id));
    let Some(appliance) = found else { return Ok(back_to("/appliances", "")) };
    let acted = act(world, &principal.actor(), (&appliance.tenant_id, id), &wish).await?;
    let word = if acted == Acted::Done { "done_act" } else { "refused_nothing_to_decide" };
    Ok(back_to(&format!("/appliances/{id}"), word))
}
