//! Customers with their sites, contacts and service groups: who is served, where, and what their business needs.

use std::collections::HashMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing::names;
use crate::customers::listing::Wanted;
use crate::customers::{Contact, Customer, Site, listing};
use crate::db::Conn;
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
    /// The name is asked for: more than a page, or it was typed.
    many: bool,
    find: String,
    next: Option<String>,
}

/// Customers of a page.
const PAGE: usize = 10;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    /// A part of the name or the id.
    #[serde(default)]
    find: String,
    /// The last id of the page before.
    #[serde(default)]
    after: String,
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
    let find = wish.find.trim().to_owned();
    let wanted = Wanted { find: &find, after: &wish.after, only: None };
    let mut customers = listing::page(&mut conn, wanted, i64::try_from(PAGE + 1).unwrap_or(i64::MAX)).await?;
    let more = customers.len() > PAGE;
    customers.truncate(PAGE);
    let next = customers.last().filter(|_| more).map(|customer| customer.tenant_id.clone());
    let title = shell.w.t("customers.title");
    page(&CustomersPage {
        now: world.time.now().0,
        shell: shell.titled(title),
        cards: cards(&mut conn, customers).await?,
        many: more || !find.is_empty() || !wish.after.is_empty(),
        find,
        next,
    })
}

/// What belongs to these customers, read for all of them at once.
async fn cards(conn: &mut Conn, customers: Vec<Customer>) -> anyhow::Result<Vec<Card>> {
    let tenants: Vec<Vec<String>> = customers.iter().map(|customer| vec![customer.tenant_id.clone()]).collect();
    let sites = listing::sites_of(conn, &tenants).await?;
    let contacts = listing::contacts_of(conn, &tenants).await?;
    let groups = groups::of_customers(conn, &tenants).await?;
    let members = groups.iter().flat_map(|group| &group.members).map(|member| member.appliance_id.clone());
    let names = names(conn, &members.collect()).await?;
    let card = |customer: Customer| {
        let id = &customer.tenant_id;
        Card {
            sites: sites.iter().filter(|site| &site.tenant_id == id).cloned().collect(),
            contacts: contacts.iter().filter(|contact| &contact.tenant_id == id).cloned().collect(),
            groups: groups.iter().filter(|group| &group.tenant_id == id).map(|group| group_card(group, &names)).collect(),
            customer,
        }
    };
    Ok(customers.into_iter().map(card).collect())
}

fn group_card(group: &groups::Group, names: &HashMap<String, String>) -> GroupCard {
    let member = |member: &groups::GroupMember| {
        let name = names.get(&member.appliance_id).cloned().unwrap_or_default();
        (member.appliance_id.clone(), name, member.service.clone())
    };
    GroupCard { name: group.name.clone(), needs: group.needs, members: group.members.iter().map(member).collect() }
}
