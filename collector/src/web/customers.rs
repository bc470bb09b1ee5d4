//! Customers with their sites, contacts and service groups: who is served, where, and what their business needs.

use std::collections::HashMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing::names;
use crate::customers::{Contact, Customer, Site, listing, store};
use crate::faults::groups;
use crate::flow::World;

struct GroupCard {
    name: String,
    needs: u32,
    members: Vec<(String, String, String)>,
}

struct Card {
    customer: Customer,
    sites: Vec<Site>,
    contacts: Vec<Contact>,
    groups: Vec<GroupCard>,
}

#[derive(Template)]
#[template(path = "customers.html")]
struct CustomersPage {
    shell: Shell,
    now: i64,
    cards: Vec<Card>,
    next: Option<usize>,
}

/// Customers of a page.
const PAGE: usize = 20;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    /// Counts from 0.
    page: Option<usize>,
}

/// `GET /customers`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(wish): Query<Wish>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "customers", "/customers");
    let mut conn = world.db.snapshot().await?;
    let customers = listing::customers(&mut conn, None).await?;
    let from = wish.page.unwrap_or_default().min(customers.len() / PAGE);
    let next = (customers.len() > (from + 1) * PAGE).then_some(from + 1);
    let mut cards = Vec::new();
    for customer in customers.into_iter().skip(from * PAGE).take(PAGE) {
        let groups = groups::list(&mut conn, &customer.tenant_id).await?;
        let members = groups.iter().flat_map(|group| &group.members).map(|member| member.appliance_id.clone());
        let names = names(&mut conn, &members.collect()).await?;
        cards.push(Card {
            sites: store::sites(&mut conn, &customer.tenant_id).await?,
            contacts: store::contacts(&mut conn, &customer.tenant_id).await?,
            groups: groups.into_iter().map(|group| card(group, &names)).collect(),
            customer,
        });
    }
    let title = shell.w.t("customers.title");
    page(&CustomersPage { now: world.time.now().0, shell: shell.titled(title), cards, next })
}

fn card(group: groups::Group, names: &HashMap<String, String>) -> GroupCard {
    let member = |member: groups::GroupMember| {
        let name = names.get(&member.appliance_id).cloned().unwrap_or_default();
        (member.appliance_id, name, member.service)
    };
    GroupCard { name: group.name, needs: group.needs, members: group.members.into_iter().map(member).collect() }
}
