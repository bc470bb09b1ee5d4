//! Tickets by API: list, one with all that stands behind it, acts, and opening one for a customer.

use axum::http::StatusCode;
use axum::{Extension, Json, extract::State};
use mainstay_shared::severity::{BusinessImpact, Severity};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Principal;
use super::answers::{ApiError, ApiJson, ApiPath, ApiQuery, ErrorShape};
use crate::clocks;
use crate::faults;
use crate::flow::World;
use crate::flow::staff_acts::{self, CustomerRequest};
use crate::notices::listing::{NoticeLine, of_subject};
use crate::tickets::acts::{Act, By, Refused};
use crate::tickets::store::{self, Filter};
use crate::tickets::{Ticket, TicketState};

/// The largest page.
const MAX_PAGE: i64 = 200;

/// Which tickets, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// `open`, `recovered` or `closed`.
    state: Option<String>,
    /// `critical` or `general`.
    severity: Option<String>,
    /// A customer's id.
    customer: Option<String>,
    /// An appliance's id.
    appliance: Option<String>,
    /// The `next` of the page before.
    #[param(minimum = 1)]
    cursor: Option<i64>,
    /// Tickets a page, 1 to 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A ticket as the API shows it. Times are ms since 1970 UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TicketView {
    ticket_id: String,
    number: i64,
    customer: String,
    /// `agent`, `silence`, `human`, `internal`.
    source: String,
    state: &'static str,
    severity: &'static str,
    /// `none`, `slight`, `severe`, `interrupted`.
    impact: &'static str,
    presumed: bool,
    /// Why this impact: a stable word.
    reason: String,
    attribution: &'static str,
    site_id: String,
    appliance_id: String,
    component: String,
    code: String,
    summary: String,
    assigned_to: Option<String>,
    taken_by: Option<String>,
    responded_by: Option<String>,
    opened_at: i64,
    fault_at: i64,
    responded_at: Option<i64>,
    recovered_at: Option<i64>,
    closed_at: Option<i64>,
    changed_at: i64,
}

impl From<Ticket> for TicketView {
    fn from(ticket: Ticket) -> Self {
        Self {
            ticket_id: ticket.ticket_id,
            number: ticket.number,
            customer: ticket.tenant_id,
            source: ticket.source,
            state: ticket.state.as_str(),
            severity: ticket.severity.as_str(),
            impact: ticket.impact.as_str(),
            presumed: ticket.presumed,
            reason: ticket.reason,
            attribution: ticket.attribution.as_str(),
            site_id: ticket.site_id,
            appliance_id: ticket.appliance_id,
            component: ticket.component,
            code: ticket.code,
            summary: ticket.summary,
            assigned_to: ticket.assigned_to,
            taken_by: ticket.taken_by,
            responded_by: ticket.responded_by,
            opened_at: ticket.opened_at.0,
            fault_at: ticket.fault_at.0,
            responded_at: ticket.responded_at.map(|at| at.0),
            recovered_at: ticket.recovered_at.map(|at| at.0),
            closed_at: ticket.closed_at.map(|at| at.0),
            changed_at: ticket.changed_at.0,
        }
    }
}

/// A page of tickets, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TicketPage {
    tickets: Vec<TicketView>,
    /// The cursor of the next page; absent on the last.
    next: Option<i64>,
}

/// A ticket with all that stands behind it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeTicket {
    ticket: TicketView,
    /// What the decision rests on.
    #[schema(value_type = Object)]
    grounds: serde_json::Value,
    #[schema(value_type = Vec<Object>)]
    clocks: Vec<clocks::Clock>,
    #[schema(value_type = Vec<Object>)]
    episodes: Vec<faults::Episode>,
    #[schema(value_type = Vec<Object>)]
    timeline: Vec<store::TimelineEntry>,
}

/// Tickets, newest first.
#[utoipa::path(get, path = "/api/v1/tickets", params(ListQuery), tag = "tickets",
    responses((status = 200, body = TicketPage), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape)))]
pub(crate) async fn list(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<TicketPage>, ApiError> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::Bad(format!("limit = {limit}: expected 1 to {MAX_PAGE}")));
    }
    let filter = Filter {
        tenant_id: principal.tenant.clone().or(query.customer.clone()),
        state: known(query.state.as_deref(), TicketState::from_name, "state", "open, recovered or closed")?,
        severity: known(query.severity.as_deref(), Severity::from_name, "severity", "critical or general")?,
        appliance_id: query.appliance,
        ..Filter::default()
    };
    if query.customer.is_some_and(|customer| !principal.sees(&customer)) {
        return Ok(Json(TicketPage { tickets: Vec::new(), next: None }));
    }
    let mut conn = world.db.read().await?;
    let tickets = store::list(&mut conn, &filter, query.cursor, limit).await?;
    let full = i64::try_from(tickets.len()).is_ok_and(|count| count == limit);
    let next = tickets.last().filter(|_| full).map(|ticket| ticket.number);
    Ok(Json(TicketPage { tickets: tickets.into_iter().map(TicketView::from).collect(), next }))
}

/// A query's word as what it names, or what would have been accepted.
fn known<T>(given: Option<&str>, read: impl Fn(&str) -> Option<T>, name: &str, accepted: &str) -> Result<Option<T>, ApiError> {
    let Some(word) = given else { return Ok(None) };
    read(word).map(Some).ok_or_else(|| ApiError::Bad(format!("{name}: expected {accepted}")))
}

/// A ticket with grounds, clocks, faults and timeline.
#[utoipa::path(get, path = "/api/v1/tickets/{ticket}", params(("ticket" = String, Path, description = "`T-000042`")), tag = "tickets",
    responses((status = 200, body = WholeTicket), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn get(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(ticket_id): ApiPath<String>,
) -> Result<Json<WholeTicket>, ApiError> {
    let mut conn = world.db.snapshot().await?;
    let ticket = seen(store::find(&mut conn, &ticket_id).await?, &principal)?;
    let tenant = &ticket.tenant_id;
    Ok(Json(WholeTicket {
        clocks: clocks::store::of_ticket(&mut conn, tenant, &ticket_id).await?,
        episodes: faults::store::of_ticket(&mut conn, tenant, &ticket_id).await?,
        timeline: store::timeline(&mut conn, tenant, &ticket_id).await?,
        grounds: serde_json::from_str(&ticket.grounds).unwrap_or_default(),
        ticket: ticket.into(),
    }))
}

fn seen(found: Option<Ticket>, principal: &Principal) -> Result<Ticket, ApiError> {
    found.filter(|ticket| principal.sees(&ticket.tenant_id)).ok_or(ApiError::NotFound)
}

pub(crate) fn by(principal: &Principal) -> By {
    By { actor: principal.actor(), staff_id: principal.staff_id.clone(), name: principal.name.clone(), role: principal.role }
}

/// An act's refusal as an answer.
fn refusal(refused: Refused) -> ApiError {
    let (word, message) = (refused.word(), refused.to_string());
    match refused {
        Refused::NoSuchTicket { .. } => ApiError::NotFound,
        Refused::Role { .. } => ApiError::Refused { word, message },
        Refused::NoSuch { .. } | Refused::NoSuchColleague { .. } | Refused::Empty { .. } => ApiError::Bad(message),
        Refused::Closed | Refused::StillFailing { .. } | Refused::NotAnswered | Refused::CauseIsOpen { .. } => {
            ApiError::Conflict { word, message }
        }
    }
}

/// Does one act: take, respond, assign, note, attribute, change_impact, close, reopen.
#[utoipa::path(post, path = "/api/v1/tickets/{ticket}/acts", params(("ticket" = String, Path)), request_body = Act, tag = "tickets",
    responses((status = 200, body = TicketView), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape),
        (status = 403, body = ErrorShape), (status = 404, body = ErrorShape), (status = 409, body = ErrorShape),
        (status = 413, body = ErrorShape), (status = 415, body = ErrorShape)))]
pub(crate) async fn act(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(ticket_id): ApiPath<String>,
    ApiJson(act): ApiJson<Act>,
) -> Result<Json<TicketView>, ApiError> {
    {
        let mut conn = world.db.read().await?;
        seen(store::find(&mut conn, &ticket_id).await?, &principal)?;
    }
    Ok(Json(staff_acts::act(&world, &by(&principal), &ticket_id, act).await?.map_err(refusal)?.into()))
}

/// What a customer said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenBody {
    customer: String,
    site_id: String,
    /// The appliance that it is about, if known.
    #[serde(default)]
    appliance_id: String,
    /// A detailed description of the fault.
    summary: String,
    /// The customer's answer to "is your business interrupted?": `none`, `slight`, `severe`, `interrupted`.
    #[schema(value_type = String)]
    impact: BusinessImpact,
}

/// Opens a ticket for a customer who called, wrote or filled in a form.
#[utoipa::path(post, path = "/api/v1/tickets", request_body = OpenBody, tag = "tickets",
    responses((status = 201, body = TicketView), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape),
        (status = 403, body = ErrorShape), (status = 404, body = ErrorShape), (status = 413, body = ErrorShape),
        (status = 415, body = ErrorShape)))]
pub(crate) async fn open(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiJson(body): ApiJson<OpenBody>,
) -> Result<(StatusCode, Json<TicketView>), ApiError> {
    if !principal.sees(&body.customer) {
        return Err(ApiError::NotFound);
    }
    let request = CustomerRequest {
        tenant_id: body.customer,
        site_id: body.site_id,
        appliance_id: body.appliance_id,
        summary: body.summary,
        impact: body.impact,
    };
    let ticket = staff_acts::open_for_customer(&world, &by(&principal), request).await?.map_err(refusal)?;
    Ok((StatusCode::CREATED, Json(ticket.into())))
}

/// The notices about a ticket.
#[utoipa::path(get, path = "/api/v1/tickets/{ticket}/notices", params(("ticket" = String, Path)), tag = "tickets",
    responses((status = 200, body = Vec<NoticeLine>), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn notices(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(ticket_id): ApiPath<String>,
) -> Result<Json<Vec<NoticeLine>>, ApiError> {
    let mut conn = world.db.read().await?;
    let ticket = seen(store::find(&mut conn, &ticket_id).await?, &principal)?;
    Ok(Json(of_subject(&mut conn, &ticket.tenant_id, &ticket_id).await?))
}
