//! Service groups: "the business needs k of these n members". They live at the collector and span appliances.
//!
//! Types and SQL; what a group means for severity is decided in `tickets/severity.rs`.

use std::fmt;

use mainstay_shared::ids::ApplianceId;
use serde::Serialize;
use sqlx::Row as _;

use crate::db::Conn;

/// One service on one appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    pub(crate) appliance_id: String,
    pub(crate) service: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.appliance_id, self.service)
    }
}

/// A service group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    pub(crate) tenant_id: String,
    pub(crate) group_id: String,
    pub(crate) name: String,
    /// How many healthy members the business needs.
    pub(crate) needs: i64,
    pub(crate) members: Vec<Member>,
}

/// Reads `APPLIANCE-ID:SERVICE`.
pub(crate) fn member(text: &str) -> Result<Member, String> {
    text.split_once(':')
        .filter(|(appliance_id, service)| appliance_id.parse::<ApplianceId>().is_ok() && !service.is_empty())
        .map(|(appliance_id, service)| Member { appliance_id: appliance_id.to_owned(), service: service.to_owned() })
        .ok_or_else(|| format!("member {text:?}: expected APPLIANCE-ID:SERVICE, the id as `appliance list` shows it"))
}

/// Writes a group whole, in place of the one of that id.
pub(crate) async fn set(tx: &mut Conn, group: &Group) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO service_groups (tenant_id, group_id, name, needs) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, group_id) DO UPDATE SET name = excluded.name, needs = excluded.needs",
    )
    .bind(&group.tenant_id)
    .bind(&group.group_id)
    .bind(&group.name)
    .bind(group.needs)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM service_group_members WHERE tenant_id = $1 AND group_id = $2")
        .bind(&group.tenant_id)
        .bind(&group.group_id)
        .execute(&mut *tx)
        .await?;
    for member in &group.members {
        sqlx::query("INSERT INTO service_group_members (tenant_id, group_id, appliance_id, service) VALUES ($1, $2, $3, $4)")
            .bind(&group.tenant_id)
            .bind(&group.group_id)
            .bind(&member.appliance_id)
            .bind(&member.service)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// A customer's groups by id.
pub(crate) async fn list(conn: &mut Conn, tenant_id: &str) -> Result<Vec<Group>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM service_groups WHERE tenant_id = $1 ORDER BY group_id")
        .bind(tenant_id)
        .fetch_all(&mut *conn)
        .await?;
    let mut groups = Vec::with_capacity(rows.len());
    for row in &rows {
        groups.push(Group {
            tenant_id: row.try_get("tenant_id")?,
            group_id: row.try_get("group_id")?,
            name: row.try_get("name")?,
            needs: row.try_get("needs")?,
            members: Vec::new(),
        });
    }
    let rows = sqlx::query("SELECT * FROM service_group_members WHERE tenant_id = $1 ORDER BY appliance_id, service")
        .bind(tenant_id)
        .fetch_all(conn)
        .await?;
    for row in &rows {
        let group_id: String = row.try_get("group_id")?;
        let member = Member { appliance_id: row.try_get("appliance_id")?, service: row.try_get("service")? };
        groups.iter_mut().filter(|group| group.group_id == group_id).for_each(|group| group.members.push(member.clone()));
    }
    Ok(groups)
}
