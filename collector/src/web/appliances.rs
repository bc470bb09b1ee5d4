//! The list of appliances: how each stands, worst first, with its services and what it runs.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::choice::Choice;
use super::overview::Names;
use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing::{self, ApplianceNow};
use crate::flow::World;
use crate::words::Words;
use crate::words::when;

/// Lines of a page; on the first page the troubled ones stand before them.
const PAGE: i64 = 100;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    customer: Option<String>,
    find: Option<String>,
    /// The last id of the page before.
    after: Option<String>,
}

struct Row {
    id: String,
    standing: &'static str,
    name: String,
    customer: String,
    site: String,
    product: String,
    model: String,
    duty: String,
    services: Vec<ServiceDot>,
    blind: bool,
    last_seen: String,
    last_seen_full: String,
    version: String,
    open_tickets: i64,
}

#[derive(Template)]
#[template(path = "appliances.html")]
struct AppliancesPage {
    shell: Shell,
    now: i64,
    choice: Choice,
    standings: Vec<(&'static str, usize)>,
    rows: Vec<Row>,
    next: Option<String>,
}

/// A business service and its present state.
pub(crate) struct ServiceDot {
    pub(crate) name: String,
    pub(crate) state: &'static str,
}

/// An appliance's business services now.
pub(crate) fn dots(appliance: &ApplianceNow) -> Vec<ServiceDot> {
    appliance.services.iter().map(|(name, state)| ServiceDot { name: name.clone(), state: state.as_str() }).collect()
}

/// `GET /appliances`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(wish): Query<Wish>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "appliances", "/appliances");
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let choice = Choice::load(&mut conn, wish.customer, wish.find).await?;
    let after = wish.after.unwrap_or_default();
    let mut found = listing::list(&mut conn, choice.only(), &after, PAGE).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == PAGE);
    let next = found.last().filter(|_| full).map(|appliance| appliance.appliance_id.clone());
    let whole = after.is_empty() && !full;
    if after.is_empty() && full {
        let listed: BTreeSet<String> = found.iter().map(|appliance| appliance.appliance_id.clone()).collect();
        let troubled = listing::troubled(&mut conn, choice.only(), PAGE).await?;
        found.extend(troubled.into_iter().filter(|appliance| !listed.contains(&appliance.appliance_id)));
    }
    let names = Names::of_appliances(&mut conn, &found).await?;
    found.sort_by(|a, b| (a.standing(), &a.name, &a.appliance_id).cmp(&(b.standing(), &b.name, &b.appliance_id)));
    let mut standings = BTreeMap::new();
    // Counts are of the fleet, or none.
    for appliance in found.iter().filter(|_| whole) {
        *standings.entry(appliance.standing()).or_default() += 1;
    }
    let title = w.t("appliances.title");
    page(&AppliancesPage {
        shell: shell.titled(title),
        now: now.0,
        standings: standings.into_iter().map(|(standing, count): (_, usize)| (standing.as_str(), count)).collect(),
        rows: found.iter().map(|appliance| row(w, appliance, &names, now)).collect(),
        choice,
        next,
    })
}

fn row(w: Words, appliance: &ApplianceNow, names: &Names, now: mainstay_shared::time_source::UnixMs) -> Row {
    let (site, zone) = names.site(&appliance.tenant_id, &appliance.site_id);
    Row {
        id: appliance.appliance_id.clone(),
        standing: appliance.standing().as_str(),
        name: appliance.name.clone(),
        customer: names.customer.get(&appliance.tenant_id).cloned().unwrap_or_default(),
        site,
        product: appliance.product.clone(),
        model: appliance.model.clone(),
        duty: w.of("duty", &appliance.duty).into_owned(),
        services: dots(appliance),
        blind: appliance.declared_count == 0,
        last_seen: appliance.last_seen_at.map(|at| when::ago(w, now, at)).unwrap_or_default(),
        last_seen_full: appliance.last_seen_at.map(|at| when::moment(at, &zone)).unwrap_or_default(),
        version: appliance.agent_version.clone(),
        open_tickets: appliance.open_tickets,
    }
}
