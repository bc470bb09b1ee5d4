//! Appliances by API: list, one, its health, and what an operator decides about it.

use axum::{Extension, Json, extract::State};
use mainstay_shared::directive::Ask;
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Principal;
use super::answers::{ApiError, ApiPath, ApiQuery, ErrorShape};
use crate::appliances::listing::{self, ApplianceNow, CertificateLine, DeclaredLine, Sample};
use crate::flow::World;
use crate::flow::appliance_acts::{Acted, ApplianceAct, act};

/// The largest page.
const MAX_PAGE: i64 = 200;
/// The longest span of health asked at once: a week.
const MAX_SPAN_MS: i64 = 7 * 86_400_000;

/// Which page of appliances.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// A customer's id.
    customer: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Appliances a page, 1 to 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of appliances by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppliancePage {
    #[schema(value_type = Vec<Object>)]
    appliances: Vec<ApplianceView>,
    /// The cursor of the next page; absent on the last.
    next: Option<String>,
}

/// An appliance with how it stands: `held`, `silent`, `faulty`, `away`, `never_heard`, `well`, `retired`.
#[derive(Debug, Serialize)]
pub(crate) struct ApplianceView {
    standing: &'static str,
    #[serde(flatten)]
    appliance: ApplianceNow,
}

impl From<ApplianceNow> for ApplianceView {
    fn from(appliance: ApplianceNow) -> Self {
        Self { standing: appliance.standing().as_str(), appliance }
    }
}

/// An appliance with its services and certificates.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeAppliance {
    #[schema(value_type = Object)]
    appliance: ApplianceView,
    #[schema(value_type = Vec<Object>)]
    services: Vec<DeclaredLine>,
    #[schema(value_type = Vec<Object>)]
    certificates: Vec<CertificateLine>,
    /// When a renewal that waits for an operator was asked for.
    renewal_waits_since: Option<i64>,
}

/// Appliances by id.
#[utoipa::path(get, path = "/api/v1/appliances", params(ListQuery), tag = "appliances",
    responses((status = 200, body = AppliancePage), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape)))]
pub(crate) async fn list(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<AppliancePage>, ApiError> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::Bad(format!("limit = {limit}: expected 1 to {MAX_PAGE}")));
    }
    if query.customer.as_ref().is_some_and(|customer| !principal.sees(customer)) {
        return Ok(Json(AppliancePage { appliances: Vec::new(), next: None }));
    }
    let tenant = principal.tenant.or(query.customer);
    let mut conn = world.db.read().await?;
    let found = listing::list(&mut conn, tenant.as_deref(), &query.cursor.unwrap_or_default(), limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| full).map(|appliance| appliance.appliance_id.clone());
    Ok(Json(AppliancePage { appliances: found.into_iter().map(ApplianceView::from).collect(), next }))
}

pub(crate) async fn seen(world: &World, principal: &Principal, id: &str) -> Result<ApplianceNow, ApiError> {
    let mut conn = world.db.read().await?;
    let found = listing::find(&mut conn, id).await?;
    found.filter(|appliance| principal.sees(&appliance.tenant_id)).ok_or(ApiError::NotFound)
}

/// An appliance.
#[utoipa::path(get, path = "/api/v1/appliances/{appliance}", params(("appliance" = String, Path)), tag = "appliances",
    responses((status = 200, body = WholeAppliance), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn get(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<WholeAppliance>, ApiError> {
    let appliance = seen(&world, &principal, &id).await?;
    let mut conn = world.db.read().await?;
    let tenant = appliance.tenant_id.clone();
    Ok(Json(WholeAppliance {
        services: listing::declared(&mut conn, &tenant, &id).await?,
        certificates: listing::certificates(&mut conn, &tenant, &id).await?,
        renewal_waits_since: listing::waiting_renewal(&mut conn, &tenant, &id).await?.map(|at| at.0),
        appliance: appliance.into(),
    }))
}

/// Which span of health.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HealthQuery {
    /// Begin of the span, ms since 1970; a day before its end if absent.
    from: Option<i64>,
    /// End of the span; now if absent. At most a week after `from`.
    to: Option<i64>,
}

/// An appliance's samples, folded over five minutes each.
#[utoipa::path(get, path = "/api/v1/appliances/{appliance}/health", params(("appliance" = String, Path), HealthQuery), tag = "appliances",
    responses((status = 200, body = Vec<Object>), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape),
        (status = 404, body = ErrorShape)))]
pub(crate) async fn health(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<HealthQuery>,
) -> Result<Json<Vec<Sample>>, ApiError> {
    let to = query.to.map_or_else(|| world.time.now(), UnixMs);
    let from = query.from.map_or_else(|| to.plus_ms(-86_400_000), UnixMs);
    if !(0..=MAX_SPAN_MS).contains(&to.since_ms(from)) {
        return Err(ApiError::Bad("from, to: expected a span of at most a week, from before to".to_owned()));
    }
    let appliance = seen(&world, &principal, &id).await?;
    let mut conn = world.db.read().await?;
    Ok(Json(listing::samples(&mut conn, &appliance.tenant_id, &id, (from, to)).await?))
}

/// Releases a held appliance: the operator has made sure that there is one of it.
#[utoipa::path(post, path = "/api/v1/appliances/{appliance}/release", params(("appliance" = String, Path)), tag = "appliances",
    responses((status = 204), (status = 401, body = ErrorShape), (status = 403, body = ErrorShape), (status = 404, body = ErrorShape),
        (status = 409, body = ErrorShape)))]
pub(crate) async fn release(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
) -> Result<axum::http::StatusCode, ApiError> {
    decide(&world, &principal, &id, ApplianceAct::Release { why: String::new() }).await
}

/// Lets an appliance whose certificate has expired renew it (R26).
#[utoipa::path(post, path = "/api/v1/appliances/{appliance}/approve-renewal", params(("appliance" = String, Path)), tag = "appliances",
    responses((status = 204), (status = 401, body = ErrorShape), (status = 403, body = ErrorShape), (status = 404, body = ErrorShape),
        (status = 409, body = ErrorShape)))]
pub(crate) async fn approve_renewal(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
) -> Result<axum::http::StatusCode, ApiError> {
    decide(&world, &principal, &id, ApplianceAct::ApproveRenewal).await
}

/// Asks an appliance to measure and report now; it hears of it through its long poll.
#[utoipa::path(post, path = "/api/v1/appliances/{appliance}/report-now", params(("appliance" = String, Path)), tag = "appliances",
    responses((status = 204), (status = 401, body = ErrorShape), (status = 403, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn report_now(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
) -> Result<axum::http::StatusCode, ApiError> {
    decide(&world, &principal, &id, ApplianceAct::Ask(Ask::ReportNow)).await
}

async fn decide(world: &World, principal: &Principal, id: &str, wish: ApplianceAct) -> Result<axum::http::StatusCode, ApiError> {
    let appliance = seen(world, principal, id).await?;
    match act(world, &principal.actor(), (&appliance.tenant_id, id), &wish).await? {
        Acted::Done => Ok(axum::http::StatusCode::NO_CONTENT),
        Acted::NoAppliance => Err(ApiError::NotFound),
        Acted::NothingToDo => {
            Err(ApiError::Conflict { word: "nothing_to_decide", message: "nothing waits for this decision".to_owned() })
        }
    }
}
