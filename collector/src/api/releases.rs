//! The repository by API: its files, who runs what, until when signatures last; and offering a file to appliances.

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Principal;
use super::answers::{ApiError, ApiJson, ApiPath, ErrorShape};
use super::tickets::by;
use crate::flow::World;
use crate::flow::file_is_offered::{self, Refused, Wish};
use crate::releases::{OfferRow, ReleaseFile, files, kind_name, offers, reports};

/// Offers of a file that are shown.
const MOST_OFFERS: i64 = 500;

/// A file of the repository.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileView {
    file: String,
    sha256: String,
    bytes: u64,
    /// `patch`, `action`, `policy`, `profile`, `licence`, `withdrawal`, `support_key`.
    kind: &'static str,
    product: String,
    version: String,
    /// `good`, `refused`, `withdrawn`, `gone`.
    state: &'static str,
    /// Why it is refused.
    refusal: String,
    /// When its signatures end.
    expires_at: i64,
}

impl From<&ReleaseFile> for FileView {
    fn from(file: &ReleaseFile) -> Self {
        let manifest = file.manifest.as_ref();
        Self {
            file: file.file.clone(),
            sha256: file.sha256.clone(),
            bytes: file.bytes,
            kind: kind_name(file.kind()),
            product: manifest.map(|manifest| manifest.product.clone()).unwrap_or_default(),
            version: manifest.map(|manifest| manifest.version.to_string()).unwrap_or_default(),
            state: file.state.as_str(),
            refusal: file.refusal.clone(),
            expires_at: file.expires_at.0,
        }
    }
}

/// How many appliances run a version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionCount {
    product: String,
    version: String,
    appliances: i64,
}

/// Until when what a role signed offline lasts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningEnd {
    role: String,
    version: i64,
    expires_at: i64,
}

/// The repository.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Repository {
    files: Vec<FileView>,
    versions: Vec<VersionCount>,
    signatures: Vec<SigningEnd>,
}

/// A file with its manifest and its offers, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeFile {
    file: FileView,
    #[schema(value_type = Object)]
    manifest: serde_json::Value,
    #[schema(value_type = Vec<Object>)]
    offers: Vec<OfferRow>,
}

/// The repository's files, the versions that run, the ends of signatures.
#[utoipa::path(get, path = "/api/v1/releases", tag = "releases",
    responses((status = 200, body = Repository), (status = 401, body = ErrorShape)))]
pub(crate) async fn list(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Repository>, ApiError> {
    let mut conn = world.db.read().await?;
    let versions = reports::versions(&mut conn, principal.tenant.as_deref()).await?;
    let signatures = files::expiries(&mut conn).await?;
    Ok(Json(Repository {
        files: files::list(&mut conn).await?.iter().map(FileView::from).collect(),
        versions: versions
            .into_iter()
            .map(|(product, version, appliances)| VersionCount { product, version, appliances })
            .collect(),
        signatures: signatures
            .into_iter()
            .map(|(role, version, expires_at)| SigningEnd { role, version, expires_at: expires_at.0 })
            .collect(),
    }))
}

/// A file of the repository.
#[utoipa::path(get, path = "/api/v1/releases/{file}", params(("file" = String, Path)), tag = "releases",
    responses((status = 200, body = WholeFile), (status = 401, body = ErrorShape), (status = 404, body = ErrorShape)))]
pub(crate) async fn get(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<WholeFile>, ApiError> {
    let mut conn = world.db.read().await?;
    let file = files::get(&mut conn, &name).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(WholeFile {
        manifest: serde_json::to_value(&file.manifest)?,
        offers: offers::of_name(&mut conn, &name, principal.tenant.as_deref(), MOST_OFFERS).await?,
        file: FileView::from(&file),
    }))
}

/// To whom, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfferBody {
    /// Ids of appliances, 1 to 500.
    appliances: Vec<String>,
    /// The ticket that it is offered from.
    #[serde(default)]
    ticket: String,
    /// It is charged, and the customer ordered it.
    #[serde(default)]
    ordered: bool,
    /// Sends the customers' contacts a mail with a link.
    #[serde(default)]
    mail: bool,
}

/// What became of it for one appliance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OfferOutcome {
    appliance: String,
    /// The offer; absent if it was not made.
    offer_id: Option<String>,
    /// Why it was not made: a stable word.
    not_offered: Option<&'static str>,
    /// The same for a person.
    message: Option<String>,
}

/// Offers a file to appliances; each has its outcome.
#[utoipa::path(post, path = "/api/v1/releases/{file}/offers", params(("file" = String, Path)), request_body = OfferBody, tag = "releases",
    responses((status = 200, body = Vec<OfferOutcome>), (status = 400, body = ErrorShape), (status = 401, body = ErrorShape),
        (status = 403, body = ErrorShape), (status = 404, body = ErrorShape), (status = 413, body = ErrorShape),
        (status = 415, body = ErrorShape)))]
pub(crate) async fn offer(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    ApiPath(file): ApiPath<String>,
    ApiJson(body): ApiJson<OfferBody>,
) -> Result<Json<Vec<OfferOutcome>>, ApiError> {
    let wish = Wish { file, appliances: body.appliances, ticket_id: body.ticket, ordered: body.ordered, by_mail: body.mail };
    let told = file_is_offered::offer(&world, &by(&principal), principal.tenant.as_deref(), &wish).await?;
    let told = told.map_err(|refused| match refused {
        Refused::Role => ApiError::Refused { word: "role_refused", message: refused.to_string() },
        Refused::NoFile(_) | Refused::NoTicket(_) => ApiError::NotFound,
        Refused::Count(_) => ApiError::Bad(refused.to_string()),
    })?;
    let outcome = |offered: file_is_offered::Offered| OfferOutcome {
        appliance: offered.appliance_id,
        not_offered: offered.outcome.as_ref().err().map(crate::releases::rules::NotOffered::word),
        message: offered.outcome.as_ref().err().map(ToString::to_string),
        offer_id: offered.outcome.ok(),
    };
    Ok(Json(told.into_iter().map(outcome).collect()))
}
