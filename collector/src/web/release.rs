//! A file of the repository: what it is, where it was offered and how far it is there, and the form that offers it to appliances. What is
//! offered, `flow::file_is_offered` decides; the page says what came of it.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use mainstay_shared::patch::PatchStep;
use serde::Deserialize;

use super::offers_view::{self, OfferLine};
use super::overview::{Named, Names};
use super::shell::{PageError, PageResult, Said, Shell, back_to, page, said};
use crate::api::access::{Principal, Viewer};
use crate::api::tickets::by;
use crate::appliances::listing;
use crate::flow::World;
use crate::flow::file_is_offered::{self, Wish};
use crate::notices::patch_mail::{notes_of, title_of};
use crate::releases::life::OfferState;
use crate::releases::{FileState, ReleaseFile, files, offers};
use crate::words::when;

/// Offers shown, and appliances to choose from.
const MOST: i64 = 200;

/// An appliance to choose.
struct Choice {
    id: String,
    label: String,
}

#[derive(Template)]
#[template(path = "release.html")]
struct ReleasePage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    outcomes: Vec<(String, String)>,
    name: String,
    notes: String,
    file: ReleaseFile,
    kind: String,
    state: &'static str,
    until: String,
    /// (state's key, count), for the tiles.
    counts: Vec<(&'static str, &'static str, usize)>,
    offers: Vec<OfferLine>,
    choices: Vec<Choice>,
    works: bool,
    can_offer: bool,
}

/// What the address may say of the offer before.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct After {
    said: Option<String>,
    /// Words of refusals with their counts: `charged.3-other_version.1`.
    not: Option<String>,
}

/// `GET /releases/{file}`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Query(after): Query<After>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "releases", &format!("/releases/{name}"));
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let Some(file) = files::get(&mut conn, &name).await? else { return Err(PageError::NotFound(viewer.language)) };
    let found = offers::of_name(&mut conn, &name, principal.tenant.as_deref(), MOST).await?;
    let mut named = Named::default();
    for offer in &found {
        named.tenants.insert(offer.tenant_id.clone());
        named.appliances.insert(offer.appliance_id.clone());
    }
    let names = Names::load(&mut conn, &named).await?;
    let boxes = listing::list(&mut conn, principal.tenant.as_deref(), "", MOST).await?;
    let customers = Names::of_appliances(&mut conn, &boxes).await?;
    let text = |map: &std::collections::HashMap<String, String>, id: &String| map.get(id).cloned().unwrap_or_default();
    let lines = found.iter().map(|offer| {
        let (appliance, customer) = (text(&names.appliance, &offer.appliance_id), text(&names.customer, &offer.tenant_id));
        offers_view::line(w, offer, &appliance, &customer, "UTC")
    });
    let title = title_of(w, &file);
    page(&ReleasePage {
        said: said(w, after.said.as_deref()),
        outcomes: not_offered(w, after.not.as_deref().unwrap_or_default()),
        now: now.0,
        notes: notes_of(w, &file),
        kind: w.of("patch_kind", crate::releases::kind_name(file.kind())).into_owned(),
        state: file.state.as_str(),
        until: when::moment(file.expires_at, "UTC"),
        counts: counts(&found),
        offers: lines.collect(),
        choices: boxes
            .iter()
            .filter(|a| a.state == "active")
            .map(|a| Choice {
                id: a.appliance_id.clone(),
                label: format!("{} / {} {}", text(&customers.customer, &a.tenant_id), a.name, a.serial).trim_end().to_owned(),
            })
            .collect(),
        works: principal.role.works_on_tickets(),
        can_offer: file.state == FileState::Good && file.expires_at > now,
        shell: shell.titled(title.clone()),
        name: title,
        file,
    })
}

fn counts(offers: &[crate::releases::OfferRow]) -> Vec<(&'static str, &'static str, usize)> {
    let of = |wanted: fn(&OfferState) -> bool| offers.iter().filter(|offer| wanted(&offer.state)).count();
    let bad = |state: &OfferState| {
        matches!(state, OfferState::Box(PatchStep::RolledBack | PatchStep::Failed | PatchStep::Refused | PatchStep::Unknown))
    };
    vec![
        ("release.under_way", "warn", of(|state| !state.is_over())),
        ("patch_step.done", "good", of(|state| *state == OfferState::Box(PatchStep::Done))),
        ("release.went_wrong", "critical", of(bad)),
    ]
}

/// Refusals of the offer before, as the address brings them: known words and numbers only.
pub(crate) fn not_offered(w: crate::words::Words, text: &str) -> Vec<(String, String)> {
    text.split('-')
        .filter_map(|part| part.split_once('.'))
        .filter_map(|(word, count)| {
            let count: u32 = count.parse().ok()?;
            let told = w.t(&format!("not_offered.{word}"));
            (word.len() < 40 && !told.starts_with("not_offered.")).then(|| (told.into_owned(), count.to_string()))
        })
        .collect()
}

/// What the form sends: each chosen appliance in a field of its own.
pub(crate) fn wish(fields: Vec<(String, String)>) -> Wish {
    let mut wish = Wish::default();
    for (name, value) in fields {
        match name.as_str() {
            "appliance" => wish.appliances.push(value),
            "file" => wish.file = value,
            "ordered" => wish.ordered = true,
            "mail" => wish.by_mail = true,
            _ => {}
        }
    }
    wish
}

/// `POST /releases/{file}/offers`.
pub(crate) async fn offer(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    axum::extract::Form(fields): axum::extract::Form<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let wish = Wish { file: name.clone(), ..wish(fields) };
    offered(&world, &principal, &wish, &format!("/releases/{name}")).await
}

/// Offers, and goes back to `page` with what came of it.
pub(crate) async fn offered(world: &World, principal: &Principal, wish: &Wish, page: &str) -> Result<Response, PageError> {
    let told = match file_is_offered::offer(world, &by(principal), principal.tenant.as_deref(), wish).await? {
        Ok(told) => told,
        Err(refused) => {
            tracing::info!(why = %refused, "a file was not offered");
            return Ok(back_to(page, "refused_offer"));
        }
    };
    let mut not: BTreeMap<&str, usize> = BTreeMap::new();
    for word in told.iter().filter_map(|offered| offered.outcome.as_ref().err()).map(crate::releases::rules::NotOffered::word) {
        *not.entry(word).or_default() += 1;
    }
    if not.is_empty() {
        return Ok(back_to(page, "done_offered"));
    }
    let word = if told.iter().any(|offered| offered.outcome.is_ok()) { "done_offered" } else { "refused_offer" };
    let not: Vec<String> = not.iter().map(|(word, count)| format!("{word}.{count}")).collect();
    Ok(back_to(page, &format!("{word}&not={}", not.join("-"))))
}
