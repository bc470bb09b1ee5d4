//! The browsers' and API clients' router: handlers at their routes, and outside of it the one authentication layer that reads the
//! route table. Nothing reaches a handler but through that layer.

pub(crate) mod routes;
mod headers;
mod refusal;
mod guard;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tower::ServiceBuilder;

use crate::api;
use crate::flow::World;
use crate::web;

/// The whole web listener. `watched` brings `/metrics` and `/healthz`.
pub(crate) fn web(world: &World, watched: Router<World>) -> Router {
    let inside = Router::new()
        .merge(pages())
        .merge(api::router())
        .merge(watched)
        .layer(Extension(web::events::Streams::default()))
        .layer(DefaultBodyLimit::max(guard::MAX_BODY_BYTES))
        .with_state(world.clone());
    let guarded = ServiceBuilder::new().layer(from_fn_with_state(world.clone(), guard::guard)).service(inside);
    Router::new().fallback_service(guarded)
}

fn pages() -> Router<World> {
    Router::new()
        .route("/assets/{name}", get(web::assets::serve))
        .route("/sign-in", get(web::sign_in::ask).post(web::sign_in::password))
        .route("/sign-in/code", get(web::sign_in::ask_code).post(web::sign_in::code))
        .route("/sign-out", post(web::sign_in::out))
        .route("/language", post(web::sign_in::language))
        .route("/events", get(web::events::stream))
        .route("/", get(web::overview::show))
        .route("/tickets/open", get(web::open_ticket::ask).post(web::open_ticket::open))
        .route("/tickets/{ticket}", get(web::ticket::show))
        .route("/tickets/{ticket}/acts", post(web::ticket::act))
        .route("/appliances", get(web::appliances::show))
        .route("/appliances/{appliance}", get(web::appliance::show))
        .route("/appliances/{appliance}/release", post(web::appliance::release))
        .route("/appliances/{appliance}/approve-renewal", post(web::appliance::approve_renewal))
        .route("/appliances/{appliance}/offers/{offer}/take-back", post(web::appliance::take_back))
        .route("/tickets/{ticket}/offers", post(web::ticket::offer))
        .route("/releases", get(web::releases::show))
        .route("/releases/receipts", post(web::releases::receipt).layer(DefaultBodyLimit::max(guard::MAX_RECEIPT_BYTES)))
        .route("/releases/{file}", get(web::release::show))
        .route("/releases/{file}/offers", post(web::release::offer))
        .route("/p/{token}", get(web::link::show))
        .route("/p/{token}/approve", post(web::link::approve))
        .route("/p/{token}/refuse", post(web::link::refuse))
        .route("/p/{token}/download", post(web::link::download))
        .route("/p/{token}/receipt", post(web::link::receipt).layer(DefaultBodyLimit::max(guard::MAX_RECEIPT_BYTES)))
        .route("/customers", get(web::customers::show))
        .route("/account", get(web::account::show))
        .route("/account/sessions/end-others", post(web::account::end_others))
        .route("/account/tokens", post(web::account::make_token))
        .route("/account/tokens/{token}/revoke", post(web::account::revoke_token))
}

#[cfg(test)]
mod plans;
#[cfg(test)]
mod tests;
