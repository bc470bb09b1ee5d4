//! What the console and the API list across customers: read-only, for the vendor's staff who serve them all. Everything about one
//! customer is read through `store.rs` with its id (R23).

use std::collections::{BTreeSet, HashMap};

use sqlx::AssertSqlSafe;

use super::{Contact, Customer, Site, VENDOR_TENANT, store};
use crate::db::Conn;
use crate::db::multi_row;

/// Which customers a page lists; everything unset means all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// The one that a token is bound to.
    pub(crate) only: Option<&'a str>,
    /// A part of the name or the id, in letters of either case.
    pub(crate) find: &'a str,
    /// The last id of the page before.
    pub(crate) after: &'a str,
}

/// A page of customers by name, without the vendor's own tenant.
pub(crate) async fn page(conn: &mut Conn, wanted: Wanted<'_>, limit: i64) -> Result<Vec<Customer>, sqlx::Error> {
    let mut text = format!("SELECT * FROM customers WHERE tenant_id <> '{VENDOR_TENANT}'");
    let mut values = Vec::new();
    if let Some(only) = wanted.only {
        values.push(only.to_owned());
        text.push_str(&format!(" AND tenant_id = ${}", values.len() + 1));
    }
    if !wanted.find.is_empty() {
        values.push(containing(wanted.find));
        let place = values.len() + 1;
        text.push_str(&format!(" AND (LOWER(name) LIKE ${place} ESCAPE '!' OR LOWER(tenant_id) LIKE ${place} ESCAPE '!')"));
    }
    if let Some(last) = store::customer(conn, wanted.after).await? {
        text.push_str(&format!(" AND (name, tenant_id) > (${}, ${})", values.len() + 2, values.len() + 3));
        values.extend([last.name, last.tenant_id]);
    }
    text.push_str(" ORDER BY name, tenant_id LIMIT $1");
    let query = values.into_iter().fold(sqlx::query(AssertSqlSafe(text)).bind(limit), |query, value| query.bind(value));
    query.fetch_all(conn).await?.iter().map(store::customer_of).collect()
}

/// The pattern of what holds `part`.
fn containing(part: &str) -> String {
    let literal = part.to_lowercase().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{literal}%")
}

/// The names of these tenants by id, the vendor's own left out.
pub(crate) async fn names(conn: &mut Conn, tenants: &BTreeSet<String>) -> anyhow::Result<HashMap<String, String>> {
    let keys: Vec<Vec<String>> = tenants.iter().filter(|id| *id != VENDOR_TENANT).map(|id| vec![id.clone()]).collect();
    let rows = multi_row::tuples(conn, "tenant_id, name", "FROM customers WHERE (tenant_id)", &keys).await?;
    Ok(rows.into_iter().collect())
}

/// A site's name and time zone by (customer, site).
pub(crate) type SiteNames = HashMap<(String, String), (String, String)>;

/// The names of these sites.
pub(crate) async fn site_names(conn: &mut Conn, keys: &BTreeSet<(String, String)>) -> anyhow::Result<SiteNames> {
    let keys: Vec<Vec<String>> = keys.iter().map(|(tenant_id, site_id)| vec![tenant_id.clone(), site_id.clone()]).collect();
    let from = "FROM sites WHERE (tenant_id, site_id)";
    let rows = multi_row::tuples(conn, "tenant_id, site_id, name, time_zone", from, &keys).await?;
    Ok(rows.into_iter().map(|(tenant_id, site_id, name, zone)| ((tenant_id, site_id), (name, zone))).collect())
}

/// The sites of these customers, by id.
pub(crate) async fn sites_of(conn: &mut Conn, tenants: &[Vec<String>]) -> Result<Vec<Site>, sqlx::Error> {
    let rows = multi_row::select(conn, "SELECT * FROM sites WHERE (tenant_id)", tenants).await?;
    let mut sites: Vec<Site> = rows.iter().map(store::site_of).collect::<Result<_, _>>()?;
    sites.sort_by(|a, b| a.site_id.cmp(&b.site_id));
    Ok(sites)
}

/// The contacts of these customers, by name.
pub(crate) async fn contacts_of(conn: &mut Conn, tenants: &[Vec<String>]) -> Result<Vec<Contact>, sqlx::Error> {
    let rows = multi_row::select(conn, "SELECT * FROM contacts WHERE (tenant_id)", tenants).await?;
    let mut contacts: Vec<Contact> = rows.iter().map(store::contact_of).collect::<Result<_, _>>()?;
    contacts.sort_by(|a, b| (&a.name, &a.contact_id).cmp(&(&b.name, &b.contact_id)));
    Ok(contacts)
}

#[cfg(test)]
mod tests;
