//! Customers by API: who they are, where, who is told, what their business needs, and whether their records are whole.

use axum::{Extension, Json, extract::State};

use super::access::Principal;
use super::answers::{ApiError, ApiPath, ErrorShape};
use crate::audit;
use crate::customers::{Contact, Customer, Site, listing, store};
use crate::faults::groups;
use crate::flow::World;

/// Customers by name.
#[utoipa::path(get, path = "/api/v1/customers", tag = "customers",
    responses((status = 200, body = Vec<Object>), (status = 401, body = ErrorShape)))]
pub(crate) async fn list(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<Customer>>, ApiError> {
    let mut conn = world.db.read().await?;
    Ok(Json(listing::customers(&mut conn, principal.tenant.as_deref()).await?))
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
