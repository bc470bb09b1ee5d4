//! The REST API under `/api/v1`: thin handlers over the stores and stories that the console uses too, described by OpenAPI. Callers
//! come with bearer tokens; the layer in `router` has let them in before a handler runs. No SQL and no decision stands here.

pub(crate) mod sessions;
pub(crate) mod access;
pub(crate) mod answers;
pub(crate) mod tickets;
pub(crate) mod appliances;
pub(crate) mod releases;
pub(crate) mod patches;
pub(crate) mod customers;
pub(crate) mod me;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::flow::World;

/// The largest receipt, with what its JSON adds to it.
const MAX_RECEIPT_BYTES: usize = mainstay_shared::patch_receipt::MAX_BYTES + (16 << 10);

/// The API's name, version and security scheme; the paths come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Mainstay collector", version = "1", description = "Tickets, appliances, customers and records. Times are ms since 1970 UTC."),
    components(schemas(answers::ErrorShape)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        if let Some(components) = openapi.components.as_mut() {
            components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        }
    }
}

/// The API's routes and their description.
pub(crate) fn parts() -> (Router<World>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(tickets::list, tickets::open))
        .routes(routes!(tickets::get))
        .routes(routes!(tickets::act))
        .routes(routes!(tickets::notices))
        .routes(routes!(appliances::list))
        .routes(routes!(appliances::get))
        .routes(routes!(appliances::health))
        .routes(routes!(appliances::release))
        .routes(routes!(appliances::approve_renewal))
        .routes(routes!(appliances::report_now))
        .routes(routes!(patches::of_appliance))
        .routes(routes!(patches::take_back))
        .routes(routes!(patches::entitle))
        .merge(OpenApiRouter::new().routes(routes!(patches::receipt)).layer(DefaultBodyLimit::max(MAX_RECEIPT_BYTES)))
        .routes(routes!(releases::list))
        .routes(routes!(releases::get))
        .routes(routes!(releases::offer))
        .routes(routes!(customers::list))
        .routes(routes!(customers::sites))
        .routes(routes!(customers::contacts))
        .routes(routes!(customers::groups))
        .routes(routes!(customers::verify_audit))
        .routes(routes!(me::show))
        .routes(routes!(me::tokens))
        .routes(routes!(me::revoke_token))
        .split_for_parts()
}

/// The API's routes, its description among them.
pub(crate) fn router() -> Router<World> {
    let (router, description) = parts();
    router.route("/api/v1/openapi.json", get(move || async move { Json(description) }))
}
