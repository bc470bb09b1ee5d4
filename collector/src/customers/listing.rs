//! Customers as the console and the API show them: read-only. A tenant's rows are never read without its id (R23); only
//! [`customers`], [`all_sites`] and [`staff`] look across, for the vendor's staff.

use mainstay_shared::time_source::UnixMs;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::VENDOR_TENANT;
use crate::db::Conn;

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CustomerLine {
    pub(crate) tenant_id: String,
    pub(crate) name: String,
    /// `zh` or `en`.
    pub(crate) language: String,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct SiteLine {
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) city: String,
    /// IANA name.
    pub(crate) time_zone: String,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ContactLine {
    pub(crate) contact_id: String,
    pub(crate) site_id: Option<String>,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) phone: String,
    /// `zh` or `en`.
    pub(crate) language: String,
}

/// A member of staff, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StaffLine {
    pub(crate) staff_id: String,
    pub(crate) name: String,
    pub(crate) role: String,
    #[schema(value_type = Option<i64>)]
    pub(crate) disabled_at: Option<UnixMs>,
}

/// All customers by name, without the vendor's own tenant; or the one that a token is bound to.
pub(crate) async fn customers(conn: &mut Conn, only: Option<&str>) -> Result<Vec<CustomerLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, name, language FROM customers WHERE tenant_id <> $1 AND ($2 = '' OR tenant_id = $2) ORDER BY name",
    )
    .bind(VENDOR_TENANT)
    .bind(only.unwrap_or_default().to_owned())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(CustomerLine {
                tenant_id: row.try_get("tenant_id")?,
                name: row.try_get("name")?,
                language: row.try_get("language")?,
            })
        })
        .collect()
}

/// A customer's sites by name.
pub(crate) async fn sites(conn: &mut Conn, tenant_id: &str) -> Result<Vec<SiteLine>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM sites WHERE tenant_id = $1 ORDER BY name, site_id").bind(tenant_id).fetch_all(conn).await?;
    rows.iter().map(site).collect()
}

/// All sites, for names in lists of the vendor's staff.
pub(crate) async fn all_sites(conn: &mut Conn) -> Result<Vec<SiteLine>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM sites ORDER BY tenant_id, site_id").fetch_all(conn).await?;
    rows.iter().map(site).collect()
}

fn site(row: &AnyRow) -> Result<SiteLine, sqlx::Error> {
    Ok(SiteLine {
        tenant_id: row.try_get("tenant_id")?,
        site_id: row.try_get("site_id")?,
        name: row.try_get("name")?,
        city: row.try_get("city")?,
        time_zone: row.try_get("time_zone")?,
    })
}

/// A customer's contacts by name.
pub(crate) async fn contacts(conn: &mut Conn, tenant_id: &str) -> Result<Vec<ContactLine>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM contacts WHERE tenant_id = $1 ORDER BY name, contact_id")
        .bind(tenant_id)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(ContactLine {
                contact_id: row.try_get("contact_id")?,
                site_id: row.try_get("site_id")?,
                name: row.try_get("name")?,
                email: row.try_get("email")?,
                phone: row.try_get("phone")?,
                language: row.try_get("language")?,
            })
        })
        .collect()
}

/// The vendor's staff by name, the disabled among them: old acts still name them.
pub(crate) async fn staff(conn: &mut Conn) -> Result<Vec<StaffLine>, sqlx::Error> {
    let rows = sqlx::query("SELECT staff_id, name, role, disabled_at FROM staff ORDER BY name, staff_id").fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(StaffLine {
                staff_id: row.try_get("staff_id")?,
                name: row.try_get("name")?,
                role: row.try_get("role")?,
                disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(UnixMs),
            })
        })
        .collect()
}
