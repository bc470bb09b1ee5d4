//! Customers with their sites, contacts and service groups: who is served, where, and what their business needs.

use askama::Template;
use axum::Extension;
use axum::extract::State;

use super::overview::Names;
use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::customers::{Contact, Customer, Site, store};
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
}

/// `GET /customers`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "customers", "/customers");
    let mut conn = world.db.snapshot().await?;
    let names = Names::load(&mut conn).await?;
    let mut cards = Vec::new();
    for customer in &names.customers {
        let groups = groups::list(&mut conn, &customer.tenant_id).await?;
        cards.push(Card {
            sites: store::sites(&mut conn, &customer.tenant_id).await?,
            contacts: store::contacts(&mut conn, &customer.tenant_id).await?,
            groups: groups.into_iter().map(|group| card(group, &names)).collect(),
            customer: customer.clone(),
        });
    }
    let title = shell.w.t("customers.title");
    page(&CustomersPage { now: world.time.now().0, shell: shell.titled(title), cards })
}

fn card(group: groups::Group, names: &Names) -> GroupCard {
    let member = |member: groups::GroupMember| {
        let name = names.appliance.get(&member.appliance_id).cloned().unwrap_or_default();
        (member.appliance_id, name, member.service)
    };
    GroupCard { name: group.name, needs: group.needs, members: group.members.into_iter().map(member).collect() }
}
