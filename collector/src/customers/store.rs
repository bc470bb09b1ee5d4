//! The SQL of customers, sites, contacts and staff. Callers decide what commits together.
//!
//! Rows of a tenant are asked for with its id, always (R23). Secrets leave only as [`Secrets`], which has no `Debug`.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Contact, Customer, Language, Role, Serving, Site, Staff};
use crate::db::Conn;

/// What proves an account. Never logged, never serialised.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) password_hash: String,
    pub(crate) totp_secret: String,
    /// The newest TOTP step used.
    pub(crate) totp_last_step: i64,
    /// Failed sign-ins since the last good one.
    pub(crate) failed_count: i64,
    pub(crate) locked_until_at: Option<UnixMs>,
}

/// Writes a customer.
pub(crate) async fn add_customer(tx: &mut Conn, customer: &Customer) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO customers (tenant_id, name, language, created_at) VALUES ($1, $2, $3, $4)")
        .bind(&customer.tenant_id)
        .bind(&customer.name)
        .bind(customer.language.as_str())
        .bind(customer.created_at.0)
        .execute(tx)
        .await
        .map(drop)
}

/// All tenants by id, the vendor among them.
pub(crate) async fn customers(conn: &mut Conn) -> Result<Vec<Customer>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM customers ORDER BY tenant_id").fetch_all(conn).await?;
    rows.iter().map(customer_of).collect()
}

/// One tenant.
pub(crate) async fn customer(conn: &mut Conn, tenant_id: &str) -> Result<Option<Customer>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM customers WHERE tenant_id = $1").bind(tenant_id).fetch_optional(conn).await?;
    row.as_ref().map(customer_of).transpose()
}

/// Writes a site.
pub(crate) async fn add_site(tx: &mut Conn, site: &Site) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO sites (tenant_id, site_id, name, city, time_zone) VALUES ($1, $2, $3, $4, $5)")
        .bind(&site.tenant_id)
        .bind(&site.site_id)
        .bind(&site.name)
        .bind(&site.city)
        .bind(&site.time_zone)
        .execute(tx)
        .await
        .map(drop)
}

/// A customer's sites by id.
pub(crate) async fn sites(conn: &mut Conn, tenant_id: &str) -> Result<Vec<Site>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM sites WHERE tenant_id = $1 ORDER BY site_id").bind(tenant_id).fetch_all(conn).await?;
    rows.iter().map(site_of).collect()
}

/// One site.
pub(crate) async fn site(conn: &mut Conn, tenant_id: &str, site_id: &str) -> Result<Option<Site>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM sites WHERE tenant_id = $1 AND site_id = $2")
        .bind(tenant_id)
        .bind(site_id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(site_of).transpose()
}

/// Writes a contact.
pub(crate) async fn add_contact(tx: &mut Conn, contact: &Contact) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO contacts (tenant_id, contact_id, site_id, name, email, phone, language) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&contact.tenant_id)
    .bind(&contact.contact_id)
    .bind(contact.site_id.clone())
    .bind(&contact.name)
    .bind(&contact.email)
    .bind(&contact.phone)
    .bind(contact.language.as_str())
    .execute(tx)
    .await
    .map(drop)
}

/// A customer's contacts by name.
pub(crate) async fn contacts(conn: &mut Conn, tenant_id: &str) -> Result<Vec<Contact>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM contacts WHERE tenant_id = $1 ORDER BY name, contact_id")
        .bind(tenant_id)
        .fetch_all(conn)
        .await?;
    rows.iter().map(contact_of).collect()
}

/// Writes an account.
pub(crate) async fn add_staff(tx: &mut Conn, staff: &Staff, secrets: &Secrets) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO staff (staff_id, username, name, email, phone, role, language, password_hash, totp_secret, totp_last_step,
         failed_count, locked_until_at, created_at, disabled_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, $11)",
    )
    .bind(&staff.staff_id)
    .bind(&staff.username)
    .bind(&staff.name)
    .bind(&staff.email)
    .bind(&staff.phone)
    .bind(staff.role.as_str())
    .bind(staff.language.as_str())
    .bind(&secrets.password_hash)
    .bind(&secrets.totp_secret)
    .bind(secrets.totp_last_step)
    .bind(None::<i64>)
    .bind(staff.created_at.0)
    .execute(tx)
    .await
    .map(drop)
}

/// All accounts by user name, disabled ones too.
pub(crate) async fn all_staff(conn: &mut Conn) -> Result<Vec<Staff>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM staff ORDER BY username").fetch_all(conn).await?;
    rows.iter().map(staff_of).collect()
}

/// One account.
pub(crate) async fn staff(conn: &mut Conn, staff_id: &str) -> Result<Option<Staff>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM staff WHERE staff_id = $1").bind(staff_id).fetch_optional(conn).await?;
    row.as_ref().map(staff_of).transpose()
}

/// The account of a user name and what proves it.
pub(crate) async fn staff_to_sign_in(conn: &mut Conn, username: &str) -> Result<Option<(Staff, Secrets)>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM staff WHERE username = $1").bind(username).fetch_optional(conn).await?;
    row.as_ref().map(|row| Ok((staff_of(row)?, secrets_of(row)?))).transpose()
}

/// Takes an account's access away: its sessions and tokens end with it.
pub(crate) async fn disable_staff(tx: &mut Conn, staff_id: &str, now: UnixMs) -> Result<(), sqlx::Error> {
    for sql in [
        "UPDATE staff SET disabled_at = $2 WHERE staff_id = $1 AND disabled_at IS NULL",
        "UPDATE sessions SET expires_at = $2 WHERE staff_id = $1 AND expires_at > $2",
        "UPDATE api_tokens SET revoked_at = $2 WHERE staff_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(sql).bind(staff_id).bind(now.0).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Gives an account a new password and TOTP secret; its sessions end.
pub(crate) async fn reset_staff(tx: &mut Conn, staff_id: &str, secrets: &Secrets, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE staff SET password_hash = $2, totp_secret = $3, totp_last_step = $4, failed_count = 0, locked_until_at = NULL
         WHERE staff_id = $1",
    )
    .bind(staff_id)
    .bind(&secrets.password_hash)
    .bind(&secrets.totp_secret)
    .bind(secrets.totp_last_step)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE sessions SET expires_at = $2 WHERE staff_id = $1 AND expires_at > $2")
        .bind(staff_id)
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
}

/// Stores the outcome of a sign-in step: failures so far, the lock, and the TOTP step used.
pub(crate) async fn store_sign_in(
    tx: &mut Conn,
    staff_id: &str,
    failed_count: i64,
    locked_until_at: Option<UnixMs>,
    totp_last_step: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE staff SET failed_count = $2, locked_until_at = $3, totp_last_step = $4 WHERE staff_id = $1")
        .bind(staff_id)
        .bind(failed_count)
        .bind(locked_until_at.map(|at| at.0))
        .bind(totp_last_step)
        .execute(tx)
        .await
        .map(drop)
}

/// Lets an account serve a customer in a role; doing so twice is no error.
pub(crate) async fn serve(tx: &mut Conn, tenant_id: &str, staff_id: &str, role: Role) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO customer_staff (tenant_id, staff_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(tenant_id)
        .bind(staff_id)
        .bind(role.as_str())
        .execute(tx)
        .await
        .map(drop)
}

/// Ends it, in every role. Whether the account served the customer.
pub(crate) async fn serve_no_more(tx: &mut Conn, tenant_id: &str, staff_id: &str) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query("DELETE FROM customer_staff WHERE tenant_id = $1 AND staff_id = $2")
        .bind(tenant_id)
        .bind(staff_id)
        .execute(tx)
        .await?;
    Ok(ended.rows_affected() > 0)
}

/// Who of the active staff serves a customer, in which role.
pub(crate) async fn serving(conn: &mut Conn, tenant_id: &str) -> Result<Vec<Serving>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT staff.*, customer_staff.role AS serving_role FROM customer_staff JOIN staff ON staff.staff_id = customer_staff.staff_id
         WHERE customer_staff.tenant_id = $1 AND staff.disabled_at IS NULL ORDER BY staff.username, customer_staff.role",
    )
    .bind(tenant_id)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(Serving { staff: staff_of(row)?, role: role_of(row, "serving_role")? })).collect()
}

pub(super) fn customer_of(row: &AnyRow) -> Result<Customer, sqlx::Error> {
    Ok(Customer {
        tenant_id: row.try_get("tenant_id")?,
        name: row.try_get("name")?,
        language: language_of(row)?,
        created_at: UnixMs(row.try_get("created_at")?),
    })
}

pub(super) fn site_of(row: &AnyRow) -> Result<Site, sqlx::Error> {
    Ok(Site {
        tenant_id: row.try_get("tenant_id")?,
        site_id: row.try_get("site_id")?,
        name: row.try_get("name")?,
        city: row.try_get("city")?,
        time_zone: row.try_get("time_zone")?,
    })
}

pub(super) fn contact_of(row: &AnyRow) -> Result<Contact, sqlx::Error> {
    Ok(Contact {
        tenant_id: row.try_get("tenant_id")?,
        contact_id: row.try_get("contact_id")?,
        site_id: row.try_get("site_id")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        phone: row.try_get("phone")?,
        language: language_of(row)?,
    })
}

fn staff_of(row: &AnyRow) -> Result<Staff, sqlx::Error> {
    Ok(Staff {
        staff_id: row.try_get("staff_id")?,
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        phone: row.try_get("phone")?,
        role: role_of(row, "role")?,
        language: language_of(row)?,
        created_at: UnixMs(row.try_get("created_at")?),
        disabled_at: row.try_get::<Option<i64>, _>("disabled_at")?.map(UnixMs),
    })
}

fn secrets_of(row: &AnyRow) -> Result<Secrets, sqlx::Error> {
    Ok(Secrets {
        password_hash: row.try_get("password_hash")?,
        totp_secret: row.try_get("totp_secret")?,
        totp_last_step: row.try_get("totp_last_step")?,
        failed_count: row.try_get("failed_count")?,
        locked_until_at: row.try_get::<Option<i64>, _>("locked_until_at")?.map(UnixMs),
    })
}

fn language_of(row: &AnyRow) -> Result<Language, sqlx::Error> {
    let code: String = row.try_get("language")?;
    Language::from_code(&code).ok_or_else(|| sqlx::Error::Decode(format!("language {code:?}: expected zh or en").into()))
}

fn role_of(row: &AnyRow, column: &str) -> Result<Role, sqlx::Error> {
    let name: String = row.try_get(column)?;
    Role::from_name(&name).ok_or_else(|| sqlx::Error::Decode(format!("role {name:?}: expected one of C8's").into()))
}

#[cfg(test)]
mod tests;
