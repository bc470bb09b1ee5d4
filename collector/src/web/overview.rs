//! The first page: what matters first. Counts, then every ticket that is not closed, critical and unanswered on top with its clock
//! counting down; closed ones on request. Loading only; the order is `rank`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use mainstay_shared::severity::Severity;
use mainstay_shared::time_source::UnixMs;
use serde::Deserialize;

use super::choice::Choice;
use super::clock_view::{self, ClockView};
use super::shell::{PageResult, Said, Shell, page, said};
use crate::api::access::{Principal, Viewer};
use crate::appliances::{self, listing::ApplianceNow};
use crate::clocks::{self, Clock};
use crate::customers::{listing, store as people};
use crate::db::Conn;
use crate::flow::World;
use crate::tickets::store::{self, Counts, Filter};
use crate::tickets::{Ticket, TicketState};
use crate::words::when;

/// Open tickets shown at once, the most urgent; more are said to exist.
const MANY: usize = 200;
/// Customers whose open tickets are counted below the list, those with the most critical ones.
const CUSTOMERS: usize = 20;
/// Closed ones a page.
const PAGE: i64 = 50;

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    /// `closed` shows the closed ones.
    show: Option<String>,
    customer: Option<String>,
    find: Option<String>,
    below: Option<i64>,
    said: Option<String>,
}

/// One line of the list.
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) severity: &'static str,
    pub(crate) state: &'static str,
    pub(crate) presumed: bool,
    pub(crate) headline: String,
    pub(crate) reason: String,
    pub(crate) customer: String,
    pub(crate) site: String,
    pub(crate) appliance: String,
    pub(crate) appliance_id: String,
    pub(crate) who: String,
    pub(crate) answered: bool,
    pub(crate) opened: String,
    pub(crate) opened_full: String,
    pub(crate) clock: Option<ClockView>,
}

/// How one customer stands.
struct CustomerCount {
    tenant_id: String,
    name: String,
    critical: usize,
    general: usize,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    closed: bool,
    choice: Choice,
    counts: Counts,
    overdue: usize,
    rows: Vec<Row>,
    cut: bool,
    next: Option<i64>,
    by_customer: Vec<CustomerCount>,
    more_customers: usize,
}

/// `GET /`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(wish): Query<Wish>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "tickets", "/");
    let (w, now) = (shell.w, world.time.now());
    let closed = wish.show.as_deref() == Some("closed");
    let mut conn = world.db.snapshot().await?;
    let choice = Choice::load(&mut conn, wish.customer, wish.find).await?;
    let customer = choice.only();
    let (mut tickets, next) = match closed {
        true => closed_page(&mut conn, customer.map(str::to_owned), wish.below).await?,
        false => (store::urgent(&mut conn, customer, MANY).await?, None),
    };
    let keys: Vec<_> = tickets.iter().map(|ticket| vec![ticket.tenant_id.clone(), ticket.ticket_id.clone()]).collect();
    let clocks = clocks::store::unanswered(&mut conn, &keys).await?;
    if !closed {
        tickets.sort_by_key(|ticket| rank(ticket, clocks.get(&ticket.ticket_id)));
    }
    let names = Names::of_tickets(&mut conn, &tickets).await?;
    let counts = store::counts(&mut conn, customer).await?;
    let rows: Vec<Row> = tickets.iter().map(|ticket| row(w, ticket, clocks.get(&ticket.ticket_id), now, &names)).collect();
    let overdue = rows.iter().filter(|row| row.clock.as_ref().is_some_and(|clock| clock.mood == "over")).count();
    let title = w.t("overview.title");
    let mut by_customer = if closed { Vec::new() } else { by_customer(&tickets, &names) };
    let more_customers = by_customer.len().saturating_sub(CUSTOMERS);
    by_customer.truncate(CUSTOMERS);
    page(&Overview {
        by_customer,
        more_customers,
        said: said(w, wish.said.as_deref()),
        shell: shell.titled(title),
        now: now.0,
        closed,
        choice,
        counts,
        overdue,
        rows,
        cut: !closed && tickets.len() == MANY,
        next,
    })
}

/// A page of closed tickets, and where the next begins.
async fn closed_page(
    conn: &mut Conn,
    tenant_id: Option<String>,
    below: Option<i64>,
) -> Result<(Vec<Ticket>, Option<i64>), sqlx::Error> {
    let filter = Filter { tenant_id, state: Some(TicketState::Closed), ..Filter::default() };
    let tickets = store::list(conn, &filter, below, PAGE).await?;
    let full = i64::try_from(tickets.len()).is_ok_and(|count| count == PAGE);
    let next = tickets.last().filter(|_| full).map(|ticket| ticket.number);
    Ok((tickets, next))
}

/// What stands on top: open before recovered, critical before general, unanswered before answered, then the nearest deadline.
fn rank(ticket: &Ticket, clock: Option<&Clock>) -> (bool, bool, bool, i64, i64) {
    (
        ticket.state != TicketState::Open,
        ticket.severity != Severity::Critical,
        clock.is_none(),
        clock.map_or(i64::MAX, |clock| clock.due_at.0),
        -ticket.number,
    )
}

/// Names by id of what a page shows.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) customer: HashMap<String, String>,
    pub(crate) site: listing::SiteNames,
    pub(crate) appliance: HashMap<String, String>,
    pub(crate) staff: HashMap<String, String>,
}

/// Whose names a page needs.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) tenants: BTreeSet<String>,
    /// (customer, site).
    pub(crate) sites: BTreeSet<(String, String)>,
    pub(crate) appliances: BTreeSet<String>,
}

impl Names {
    /// The names of what is shown, never of all there is.
    pub(crate) async fn load(conn: &mut Conn, named: &Named) -> anyhow::Result<Self> {
        Ok(Self {
            customer: listing::names(conn, &named.tenants).await?,
            site: listing::site_names(conn, &named.sites).await?,
            appliance: appliances::listing::names(conn, &named.appliances).await?,
            staff: people::all_staff(conn).await?.into_iter().map(|s| (s.staff_id, s.name)).collect(),
        })
    }

    /// The names that a list of tickets shows.
    pub(crate) async fn of_tickets(conn: &mut Conn, tickets: &[Ticket]) -> anyhow::Result<Self> {
        let named = Named {
            tenants: tickets.iter().map(|ticket| ticket.tenant_id.clone()).collect(),
            sites: tickets.iter().map(|ticket| (ticket.tenant_id.clone(), ticket.site_id.clone())).collect(),
            appliances: tickets.iter().map(|ticket| ticket.appliance_id.clone()).collect(),
        };
        Self::load(conn, &named).await
    }

    /// The names that a list of appliances shows.
    pub(crate) async fn of_appliances(conn: &mut Conn, appliances: &[ApplianceNow]) -> anyhow::Result<Self> {
        let named = Named {
            tenants: appliances.iter().map(|appliance| appliance.tenant_id.clone()).collect(),
            sites: appliances.iter().map(|appliance| (appliance.tenant_id.clone(), appliance.site_id.clone())).collect(),
            appliances: BTreeSet::new(),
        };
        Self::load(conn, &named).await
    }

    /// Where a ticket's fault is when its component does not say: the appliance, or the site.
    pub(crate) fn place(&self, ticket: &Ticket) -> &str {
        let site = || self.site.get(&(ticket.tenant_id.clone(), ticket.site_id.clone())).map_or("", |(name, _)| name);
        self.appliance.get(&ticket.appliance_id).map_or_else(site, String::as_str)
    }

    /// A site's name and zone; empty and UTC when it has none.
    pub(crate) fn site(&self, tenant_id: &str, site_id: &str) -> (String, String) {
        self.site.get(&(tenant_id.to_owned(), site_id.to_owned())).cloned().unwrap_or_else(|| (String::new(), "UTC".to_owned()))
    }
}

fn row(w: crate::words::Words, ticket: &Ticket, clock: Option<&Clock>, now: UnixMs, names: &Names) -> Row {
    let (site, zone) = names.site(&ticket.tenant_id, &ticket.site_id);
    let who = ticket.taken_by.as_ref().or(ticket.assigned_to.as_ref());
    Row {
        id: ticket.ticket_id.clone(),
        severity: ticket.severity.as_str(),
        state: ticket.state.as_str(),
        presumed: ticket.presumed,
        headline: ticket.headline(w, names.place(ticket)),
        reason: w.of("reason", &ticket.reason).into_owned(),
        customer: names.customer.get(&ticket.tenant_id).cloned().unwrap_or_else(|| w.t("overview.internal").into_owned()),
        site,
        appliance: names.appliance.get(&ticket.appliance_id).cloned().unwrap_or_default(),
        appliance_id: ticket.appliance_id.clone(),
        who: who.and_then(|id| names.staff.get(id)).cloned().unwrap_or_default(),
        answered: ticket.responded_at.is_some(),
        opened: when::brief(ticket.opened_at, &zone),
        opened_full: when::moment(ticket.opened_at, &zone),
        clock: clock.map(|clock| clock_view::view(w, clock, now, &zone)),
    }
}

fn by_customer(tickets: &[Ticket], names: &Names) -> Vec<CustomerCount> {
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ticket in tickets.iter().filter(|ticket| ticket.state == TicketState::Open) {
        let entry = found.entry(&ticket.tenant_id).or_default();
        match ticket.severity {
            Severity::Critical => entry.0 += 1,
            Severity::General => entry.1 += 1,
        }
    }
    let mut counts: Vec<CustomerCount> = found
        .into_iter()
        .filter_map(|(tenant_id, (critical, general))| {
            let name = names.customer.get(tenant_id)?.clone();
            Some(CustomerCount { tenant_id: tenant_id.to_owned(), name, critical, general })
        })
        .collect();
    counts.sort_by_key(|count| (std::cmp::Reverse(count.critical), std::cmp::Reverse(count.general)));
    counts
}
