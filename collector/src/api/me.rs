//! The caller itself by API: who it is and which tokens its maker has. New tokens are made in the console, with a fresh code.

use axum::http::StatusCode;
use axum::{Extension, Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Principal;
use super::answers::{ApiError, ApiPath, ErrorShape};
use super::sessions::sign_in;
use super::sessions::tokens::{self, Token};
use crate::flow::World;

/// Who calls.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    staff_id: String,
    name: String,
    /// The token's role.
    role: &'static str,
    /// The one customer that the token is bound to.
    customer: Option<String>,
}

/// Who calls.
#[utoipa::path(get, path = "/api/v1/me", tag = "me", responses((status = 200, body = Me), (status = 401, body = ErrorShape)))]
pub(crate) async fn show(Extension(principal): Extension<Principal>) -> Json<Me> {
    Json(Me { staff_id: principal.staff_id, name: principal.name, role: principal.role.as_str(), customer: principal.tenant })
}

/// The maker's tokens; never their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "me", responses((status = 200, body = Vec<Object>), (status = 401, body = ErrorShape)))]
pub(crate) async fn tokens(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<Token>>, ApiError> {
    let mut conn = world.db.read().await?;
    let mut found = tokens::of_staff(&mut conn, &principal.staff_id).await?;
    found.retain(|token| is_seen(&principal, token));
    Ok(Json(found))
}

/// A token bound to a customer learns of no other's.
fn is_seen(principal: &Principal, token: &Token) -> bool {
    principal.tenant.is_none() || token.tenant_id == principal.tenant
}

/// Revokes one of the maker's tokens, its own included.
#[utoipa::path(post, path = "/api/v1/tokens/{token}/revoke", params(("token" = String, Path)), tag = "me",
    responses((status = 204), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn revoke_token(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(token_id): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    // A token bound to a customer ends no other's.
    let own = {
        let mut conn = world.db.read().await?;
        let found = tokens::of_staff(&mut conn, &principal.staff_id).await?;
        found.into_iter().any(|token| token.token_id == token_id && is_seen(&principal, &token))
    };
    if !own {
        return Err(ApiError::NotFound);
    }
    let done = sign_in::revoke_token(&world, &principal.staff_id, &token_id).await?;
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::NotFound) }
}
