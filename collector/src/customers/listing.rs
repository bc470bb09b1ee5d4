//! What the console and the API list across customers: read-only, for the vendor's staff who serve them all. Everything about one
//! customer is read through `store.rs` with its id (R23).

use sqlx::Row as _;

use super::{Customer, Site, VENDOR_TENANT, store};
use crate::db::Conn;

/// Customers by name, without the vendor's own tenant; or the one that a token is bound to.
pub(crate) async fn customers(conn: &mut Conn, only: Option<&str>) -> Result<Vec<Customer>, sqlx::Error> {
    let mut found = store::customers(conn).await?;
    found.retain(|customer| customer.tenant_id != VENDOR_TENANT && only.is_none_or(|only| only == customer.tenant_id));
    found.sort_by(|a, b| (&a.name, &a.tenant_id).cmp(&(&b.name, &b.tenant_id)));
    Ok(found)
}

/// All sites, for names in lists.
pub(crate) async fn all_sites(conn: &mut Conn) -> Result<Vec<Site>, sqlx::Error> {
    let rows = sqlx::query("SELECT tenant_id, site_id, name, city, time_zone FROM sites ORDER BY tenant_id, site_id")
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Site {
                tenant_id: row.try_get("tenant_id")?,
                site_id: row.try_get("site_id")?,
                name: row.try_get("name")?,
                city: row.try_get("city")?,
                time_zone: row.try_get("time_zone")?,
            })
        })
        .collect()
}
