//! Signed files of one appliance by API: what runs, what was offered, what it told; entitlement; receipts carried by hand.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::{Extension, Json, extract::State};
use mainstay_shared::patch_receipt::SignedReceipt;
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Principal;
use super::answers::{ApiError, ApiJson, ApiPath, ErrorShape};
use super::appliances::seen;
use crate::entitlements::{self, Entitlement};
use crate::flow::World;
use crate::flow::appliance_acts::{Acted, ApplianceAct, act};
use crate::flow::file_is_offered::{TakenBack, take_back as taken_back};
use crate::flow::receipt_is_read::receipt_is_read;
use crate::releases::{OfferRow, offers, reports};

/// Offers and reports that are shown.
const MOST: i64 = 200;

/// Everything about signed files on one appliance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppliancePatches {
    /// What runs, as it said; absent if it never did.
    #[schema(value_type = Option<Object>)]
    installed: Option<reports::InstalledRow>,
    #[schema(value_type = Option<Object>)]
    entitlement: Option<Entitlement>,
    /// Newest first.
    #[schema(value_type = Vec<Object>)]
    offers: Vec<OfferRow>,
    /// What the appliance told, newest first.
    #[schema(value_type = Vec<Object>)]
    reports: Vec<reports::ReportRow>,
}

/// Signed files on an appliance.
#[utoipa::path(get, path = "/api/v1/appliances/{appliance}/patches", params(("appliance" = String, Path)), tag = "releases",
    responses((status = 200, body = AppliancePatches), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn of_appliance(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<AppliancePatches>, ApiError> {
    let appliance = seen(&world, &principal, &id).await?;
    let (tenant, mut conn) = (appliance.tenant_id, world.db.read().await?);
    Ok(Json(AppliancePatches {
        installed: reports::installed(&mut conn, &tenant, &id).await?,
        entitlement: entitlements::store::get(&mut conn, &tenant, &id).await?,
        offers: offers::of_appliance(&mut conn, &tenant, &id, MOST).await?,
        reports: reports::newest(&mut conn, &tenant, &id, MOST).await?,
    }))
}

/// Takes an offer back, unless the appliance has begun or it is over.
#[utoipa::path(post, path = "/api/v1/appliances/{appliance}/offers/{offer}/take-back",
    params(("appliance" = String, Path), ("offer" = String, Path)), tag = "releases",
    responses((status = 204), (status = 401, body = ErrorShape), (status = 403, body = ErrorShape), (status = 404, body = ErrorShape),
        (status = 409, body = ErrorShape)))]
pub(crate) async fn take_back(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath((id, offer)): ApiPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let appliance = seen(&world, &principal, &id).await?;
    let its = offers::get(&mut *world.db.read().await?, &appliance.tenant_id, &offer).await?;
    if its.is_none_or(|its| its.appliance_id != id) {
        return Err(ApiError::NotFound);
    }
    match taken_back(&world, &principal.actor(), &appliance.tenant_id, &offer).await? {
        TakenBack::Done => Ok(StatusCode::NO_CONTENT),
        TakenBack::NoOffer => Err(ApiError::NotFound),
        TakenBack::TooLate => {
            let message = "the appliance has begun, or it is over".to_owned();
            Err(ApiError::Conflict { word: "too_late", message })
        }
    }
}

/// What a customer is entitled to for an appliance. Times are ms since 1970; absent: none recorded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntitlementBody {
    /// End of the software warranty.
    software_until_at: Option<i64>,
    /// End of the hardware warranty.
    hardware_until_at: Option<i64>,
    /// End of the service period bought.
    service_until_at: Option<i64>,
    /// Paid features bought.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    features: BTreeSet<String>,
}

/// Records what a customer is entitled to for an appliance.
#[utoipa::path(post, path = "/api/v1/appliances/{appliance}/entitlement", params(("appliance" = String, Path)),
    request_body = EntitlementBody, tag = "releases",
    responses((status = 204), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape), (status = 403, body = ErrorShape),
        (status = 404, body = ErrorShape), (status = 409, body = ErrorShape), (status = 413, body = ErrorShape),
        (status = 415, body = ErrorShape)))]
pub(crate) async fn entitle(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(id): ApiPath<String>,
    ApiJson(body): ApiJson<EntitlementBody>,
) -> Result<StatusCode, ApiError> {
    let appliance = seen(&world, &principal, &id).await?;
    if body.features.len() > 100 || body.features.iter().any(|feature| !mainstay_shared::limits::is_good_name(feature)) {
        return Err(ApiError::Bad("features: expected at most 100 names".to_owned()));
    }
    let entitlement = Entitlement {
        software_until_at: body.software_until_at.map(UnixMs),
        hardware_until_at: body.hardware_until_at.map(UnixMs),
        service_until_at: body.service_until_at.map(UnixMs),
        features: body.features,
    };
    match act(&world, &principal.actor(), (&appliance.tenant_id, &id), &ApplianceAct::Entitle(entitlement)).await? {
        Acted::Done => Ok(StatusCode::NO_CONTENT),
        Acted::NoAppliance => Err(ApiError::NotFound),
        Acted::NothingToDo => Err(ApiError::Conflict { word: "nothing_to_decide", message: "it is recorded so".to_owned() }),
    }
}

/// A `.mreceipt`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiptBody {
    /// The receipt's JSON, as it was signed.
    signed: String,
    /// Base64.
    signature: String,
    /// SHA-256 of the signing certificate, hex.
    certificate: String,
}

/// What a receipt brought.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiptRead {
    appliance: String,
    /// Reports in it.
    reports: usize,
    /// Of these, not known before.
    new: usize,
}

/// Takes an appliance's signed receipt that somebody carried. The same one again changes nothing.
#[utoipa::path(post, path = "/api/v1/receipts", request_body = ReceiptBody, tag = "releases",
    responses((status = 200, body = ReceiptRead), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape),
        (status = 403, body = ErrorShape), (status = 413, body = ErrorShape), (status = 415, body = ErrorShape)))]
pub(crate) async fn receipt(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiJson(body): ApiJson<ReceiptBody>,
) -> Result<Json<ReceiptRead>, ApiError> {
    let signed = SignedReceipt { signed: body.signed, signature: body.signature, certificate: body.certificate };
    let read = receipt_is_read(&world, principal.tenant.as_deref(), &serde_json::to_vec(&signed)?).await?;
    let read = read.map_err(|not| ApiError::Bad(not.to_string()))?;
    Ok(Json(ReceiptRead { appliance: read.appliance_id, reports: read.reports, new: read.new }))
}
