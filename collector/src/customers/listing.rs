//! What the console and the API list across customers: read-only, for the vendor's staff who serve them all. Everything about one
//! customer is read through `store.rs` with its id (R23).

use std::collections::{BTreeSet, HashMap};

use sqlx::Row as _;

use super::{Customer, VENDOR_TENANT, store};
use crate::db::Conn;
use crate::db::multi_row;

/// Customers by name, without the vendor's own tenant; or the one that a token is bound to.
pub(crate) async fn customers(conn: &mut Conn, only: Option<&str>) -> Result<Vec<Customer>, sqlx::Error> {
    let mut found = store::customers(conn).await?;
    found.retain(|customer| customer.tenant_id != VENDOR_TENANT && only.is_none_or(|only| only == customer.tenant_id));
    found.sort_by(|a, b| (&a.name, &a.tenant_id).cmp(&(&b.name, &b.tenant_id)));
    Ok(found)
}

/// The names of these tenants by id, the vendor's own left out.
pub(crate) async fn names(conn: &mut Conn, tenants: &BTreeSet<String>) -> Result<HashMap<String, String>, sqlx::Error> {
    let keys: Vec<Vec<String>> = tenants.iter().filter(|id| *id != VENDOR_TENANT).map(|id| vec![id.clone()]).collect();
    let rows = multi_row::select(conn, "SELECT tenant_id, name FROM customers WHERE (tenant_id)", &keys).await?;
    rows.iter().map(|row| Ok((row.try_get("tenant_id")?, row.try_get("name")?))).collect()
}

/// A site's name and time zone by (customer, site), for these sites.
pub(crate) async fn sites(
    conn: &mut Conn,
    keys: &BTreeSet<(String, String)>,
) -> Result<HashMap<(String, String), (String, String)>, sqlx::Error> {
    let keys: Vec<Vec<String>> = keys.iter().map(|(tenant_id, site_id)| vec![tenant_id.clone(), site_id.clone()]).collect();
    let text = "SELECT tenant_id, site_id, name, time_zone FROM sites WHERE (tenant_id, site_id)";
    let rows = multi_row::select(conn, text, &keys).await?;
    rows.iter()
        .map(|row| {
            let key = (row.try_get("tenant_id")?, row.try_get("site_id")?);
            Ok((key, (row.try_get("name")?, row.try_get("time_zone")?)))
        })
        .collect()
}
