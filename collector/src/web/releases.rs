//! The repository's page: who runs what as a picture first, then the files, then until when signatures last; and an appliance's receipt
//! that was carried by hand.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::shell::{PageError, PageResult, Said, Shell, back_to, page, said};
use super::ticket::After;
use super::upload;
use crate::api::access::{Principal, Viewer};
use crate::flow::World;
use crate::flow::receipt_is_read::receipt_is_read;
use crate::releases::{FileState, ReleaseFile, files, kind_name, problems, reports};
use crate::words::{Words, when};

/// The picture is so wide.
const WIDTH: i64 = 720;
const DAY_MS: i64 = 86_400_000;

/// The versions of one product.
struct Product {
    name: String,
    total: i64,
    bars: Vec<Bar>,
}

/// One version's share.
struct Bar {
    version: String,
    count: i64,
    x: i64,
    width: i64,
    shade: usize,
}

struct FileRow {
    file: String,
    kind: String,
    product: String,
    version: String,
    state: &'static str,
    refusal: String,
    bytes: u64,
    until: String,
    security: bool,
}

struct End {
    role: String,
    version: i64,
    at: String,
    /// `good`, `warn`, `bad`.
    mood: &'static str,
    left_days: i64,
}

#[derive(Template)]
#[template(path = "releases.html")]
struct ReleasesPage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    set_up: bool,
    products: Vec<Product>,
    files: Vec<FileRow>,
    ends: Vec<End>,
    problems: Vec<Trouble>,
    works: bool,
}

/// Something that is wrong with the repository.
struct Trouble {
    about: String,
    what: String,
    why: String,
    since: String,
}

/// `GET /releases`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(after): Query<After>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "releases", "/releases");
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let versions = reports::versions(&mut conn, None).await?;
    let found = files::list(&mut conn).await?;
    let ends = files::expiries(&mut conn).await?;
    let problems = problems::list(&mut conn).await?;
    let title = w.t("releases.title");
    page(&ReleasesPage {
        said: said(w, after.said.as_deref()),
        now: now.0,
        set_up: world.config.releases.is_some(),
        products: products(&versions),
        files: found.iter().rev().filter(|file| file.state != FileState::Gone).map(|file| file_row(w, file)).collect(),
        ends: ends
            .into_iter()
            .map(|(role, version, at)| {
                let left_days = at.since_ms(now).div_euclid(DAY_MS);
                let mood = if left_days < 7 {
                    "bad"
                } else if left_days < 30 {
                    "warn"
                } else {
                    "good"
                };
                End { role, version, at: when::moment(at, "UTC"), mood, left_days }
            })
            .collect(),
        problems: problems
            .into_iter()
            .map(|kept| Trouble {
                what: w.of("repository_problem", kept.problem.what.as_str()).into_owned(),
                about: kept.problem.about,
                why: kept.problem.why,
                since: when::moment(kept.since_at, "UTC"),
            })
            .collect(),
        works: principal.role.works_on_tickets(),
        shell: shell.titled(title),
    })
}

fn products(versions: &[(String, String, i64)]) -> Vec<Product> {
    versions
        .chunk_by(|one, other| one.0 == other.0)
        .map(|of_product| {
            let total: i64 = of_product.iter().map(|(_, _, count)| count).sum();
            let mut before = 0;
            let bars = of_product
                .iter()
                .enumerate()
                .map(|(place, (_, version, count))| {
                    let x = before * WIDTH / total.max(1);
                    before += count;
                    let width = (before * WIDTH / total.max(1) - x).max(1);
                    Bar { version: version.clone(), count: *count, x, width, shade: place % 4 }
                })
                .collect();
            Product { name: of_product.first().map(|(product, ..)| product.clone()).unwrap_or_default(), total, bars }
        })
        .collect()
}

fn file_row(w: Words, file: &ReleaseFile) -> FileRow {
    let manifest = file.manifest.as_ref();
    FileRow {
        file: file.file.clone(),
        kind: w.of("patch_kind", kind_name(file.kind())).into_owned(),
        product: manifest.map(|manifest| manifest.subject().to_owned()).unwrap_or_default(),
        version: manifest.map(|manifest| manifest.version.to_string()).unwrap_or_default(),
        state: file.state.as_str(),
        refusal: file.refusal.clone(),
        bytes: file.bytes,
        until: if manifest.is_some() { when::moment(file.expires_at, "UTC") } else { String::new() },
        security: file.patch().is_some_and(|patch| patch.security_fix),
    }
}

/// `POST /releases/receipts`.
pub(crate) async fn receipt(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let file = upload::part(&headers, &body, "receipt").unwrap_or_default();
    match receipt_is_read(&world, principal.tenant.as_deref(), file).await? {
        Ok(read) => Ok(back_to(&format!("/appliances/{}", read.appliance_id), "done_receipt")),
        Err(not) => {
            tracing::info!(why = %not, "a receipt was refused");
            Ok(back_to("/releases", "refused_receipt"))
        }
    }
}
