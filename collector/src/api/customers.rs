//! Customers by API: who they are, where, who is told, what their business needs, and whether their records are whole.

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Principal;
use super::answers::{ApiError, ApiPath, ApiQuery, ErrorShape};
use crate::audit;
use crate::customers::listing::Wanted;
use crate::customers::{Contact, Customer, Site, listing, store};
use crate::faults::groups;
use crate::flow::World;

/// The largest page.
const MAX_PAGE: i64 = 200;

/// Which page of customers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// A part of the name or the id, in letters of either case.
    find: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Customers a page, 1 to 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// A page of customers by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CustomerPage {
    #[schema(value_type = Vec<Object>)]
    customers: Vec<Customer>,
    /// The cursor of the next page; absent on the last.
    next: Option<String>,
}

/// Customers by name.
#[utoipa::path(get, path = "/api/v1/customers", params(ListQuery), tag = "customers",
    responses((status = 200, body = CustomerPage), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape)))]
pub(crate) async fn list(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<CustomerPage>, ApiError> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::Bad(format!("limit = {limit}: expected 1 to {MAX_PAGE}")));
    }
    let (find, after) = (query.find.unwrap_or_default(), query.cursor.unwrap_or_default());
    let wanted = Wanted { only: principal.tenant.as_deref(), find: find.trim(), after: &after };
    let mut conn = world.db.read().await?;
    let customers = listing::page(&mut conn, wanted, limit).await?;
    let full = i64::try_from(customers.len()).is_ok_and(|count| count == limit);
    let next = customers.last().filter(|_| full).map(|customer| customer.tenant_id.clone());
    Ok(Json(CustomerPage { customers, next }))
}

fn seen(principal: &Principal, customer: &str) -> Result<(), ApiError> {
    if principal.sees(customer) { Ok(()) } else { Err(ApiError::NotFound) }
}

/// A customer's sites.
#[utoipa::path(get, path = "/api/v1/customers/{customer}/sites", params(("customer" = String, Path)), tag = "customers",
    responses((status = 200, body = Vec<Object>), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn sites(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(customer): ApiPath<String>,
) -> Result<Json<Vec<Site>>, ApiError> {
    seen(&principal, &customer)?;
    let mut conn = world.db.read().await?;
    Ok(Json(store::sites(&mut conn, &customer).await?))
}

/// A customer's contacts.
#[utoipa::path(get, path = "/api/v1/customers/{customer}/contacts", params(("customer" = String, Path)), tag = "customers",
    responses((status = 200, body = Vec<Object>), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn contacts(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(customer): ApiPath<String>,
) -> Result<Json<Vec<Contact>>, ApiError> {
    seen(&principal, &customer)?;
    let mut conn = world.db.read().await?;
    Ok(Json(store::contacts(&mut conn, &customer).await?))
}

/// A customer's service groups with their members.
#[utoipa::path(get, path = "/api/v1/customers/{customer}/groups", params(("customer" = String, Path)), tag = "customers",
    responses((status = 200, body = Vec<Object>), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn groups(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(customer): ApiPath<String>,
) -> Result<Json<Vec<groups::Group>>, ApiError> {
    seen(&principal, &customer)?;
    let mut conn = world.db.read().await?;
    Ok(Json(groups::list(&mut conn, &customer).await?))
}

/// Walks a customer's chain of events and says whether every link holds (`vendor`: the vendor's own).
#[utoipa::path(get, path = "/api/v1/customers/{customer}/audit/verify", params(("customer" = String, Path)), tag = "customers",
    responses((status = 200, body = Object), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn verify_audit(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(customer): ApiPath<String>,
) -> Result<Json<audit::Verdict>, ApiError> {
    seen(&principal, &customer)?;
    Ok(Json(audit::verify(&world.db, &customer).await?))
}
