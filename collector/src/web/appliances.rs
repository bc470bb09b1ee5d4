//! The list of appliances: how each stands, worst first, with its services and what it runs.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::overview::Names;
use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing::{self, ApplianceNow};
use crate::customers::Customer;
use crate::flow::World;
use crate::words::Words;
use crate::words::when;

/// Lines shown at once.
const MANY: i64 = 1000;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    customer: Option<String>,
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
    customer: String,
    customers: Vec<Customer>,
    standings: Vec<(&'static str, usize)>,
    rows: Vec<Row>,
    cut: bool,
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
    let customer = wish.customer.filter(|customer| !customer.is_empty());
    let mut conn = world.db.snapshot().await?;
    let mut found = listing::list(&mut conn, customer.as_deref(), "", MANY).await?;
    let names = Names::load(&mut conn).await?;
    let cut = i64::try_from(found.len()).unwrap_or(i64::MAX) == MANY;
    found.sort_by(|a, b| (a.standing(), &a.name, &a.appliance_id).cmp(&(b.standing(), &b.name, &b.appliance_id)));
    let mut standings = BTreeMap::new();
    for appliance in &found {
        *standings.entry(appliance.standing()).or_default() += 1;
    }
    let title = w.t("appliances.title");
    page(&AppliancesPage {
        shell: shell.titled(title),
        now: now.0,
        customer: customer.unwrap_or_default(),
        standings: standings.into_iter().map(|(standing, count): (_, usize)| (standing.as_str(), count)).collect(),
        rows: found.iter().map(|appliance| row(w, appliance, &names, now)).collect(),
        customers: names.customers,
        cut,
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
