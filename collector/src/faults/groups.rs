//! Service groups: "needs k of n members", spanning appliances, kept at the collector because no appliance sees the others.
//!
//! A service that stands in no group is a group of one. Staff create groups; an appliance only declares its services.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::db::{Conn, multi_row};

/// A group as staff declare it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) tenant_id: String,
    /// A short word, unique for the customer.
    pub(crate) group_id: String,
    pub(crate) name: String,
    /// How many healthy members the customer's business needs.
    pub(crate) needs: u32,
    pub(crate) members: Vec<GroupMember>,
}

/// One member: a declared service on an appliance. It stands in one group at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupMember {
    pub(crate) appliance_id: String,
    pub(crate) service: String,
}

/// Why a group can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadGroup {
    /// It would always or never be below its need.
    #[error("service group {group_id:?}: needs {needs} of {members} members; expected 1 to {members}")]
    Needs { group_id: String, needs: u32, members: usize },
    /// Named twice.
    #[error("service group {group_id:?}: service {service:?} of appliance {appliance_id} is named twice")]
    Twice { group_id: String, appliance_id: String, service: String },
}

/// Whether `group` makes sense.
///
/// # Errors
/// With what is wrong and what is accepted.
pub(crate) fn check(group: &Group) -> Result<(), BadGroup> {
    let members = group.members.len();
    if group.needs == 0 || usize::try_from(group.needs).unwrap_or(usize::MAX) > members {
        return Err(BadGroup::Needs { group_id: group.group_id.clone(), needs: group.needs, members });
    }
    let mut seen = BTreeSet::new();
    match group.members.iter().find(|member| !seen.insert(*member)) {
        None => Ok(()),
        Some(twice) => Err(BadGroup::Twice {
            group_id: group.group_id.clone(),
            appliance_id: twice.appliance_id.clone(),
            service: twice.service.clone(),
        }),
    }
}

const COLUMNS: &str = "g.tenant_id, g.group_id, g.name, g.needs, m.appliance_id, m.service";
const BY_CUSTOMER: &str = "FROM service_groups g JOIN service_group_members m ON m.tenant_id = g.tenant_id AND m.group_id = g.group_id WHERE (g.tenant_id)";
const BY_KEY: &str = "FROM service_groups g JOIN service_group_members m ON m.tenant_id = g.tenant_id AND m.group_id = g.group_id \
     WHERE (g.tenant_id, g.group_id)";

/// A customer's groups with their members.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn list(conn: &mut Conn, tenant_id: &str) -> anyhow::Result<Vec<Group>> {
    of_customers(conn, &[vec![tenant_id.to_owned()]]).await
}

/// The groups of these customers with their members.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn of_customers(conn: &mut Conn, tenants: &[Vec<String>]) -> anyhow::Result<Vec<Group>> {
    Ok(gathered(multi_row::tuples(conn, COLUMNS, BY_CUSTOMER, tenants).await?))
}

/// A customer's groups in which any of these appliances stands, with all their members.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn touching(conn: &mut Conn, tenant_id: &str, appliances: &BTreeSet<String>) -> anyhow::Result<Vec<Group>> {
    let keys: Vec<Vec<String>> = appliances.iter().map(|id| vec![tenant_id.to_owned(), id.clone()]).collect();
    let from = "FROM service_group_members WHERE (tenant_id, appliance_id)";
    let touched: BTreeSet<Vec<String>> = multi_row::tuples(conn, "tenant_id, group_id", from, &keys).await?.into_iter().collect();
    let keys: Vec<Vec<String>> = touched.into_iter().collect();
    Ok(gathered(multi_row::tuples(conn, COLUMNS, BY_KEY, &keys).await?))
}

/// A member with its group: customer, group, its name, its need, appliance, service.
type MemberRow = (String, String, String, u32, String, String);

fn gathered(rows: Vec<MemberRow>) -> Vec<Group> {
    let mut found: BTreeMap<(String, String), Group> = BTreeMap::new();
    for (tenant_id, group_id, name, needs, appliance_id, service) in rows {
        let group = found.entry((tenant_id.clone(), group_id.clone())).or_insert_with(|| Group {
            tenant_id,
            group_id,
            name,
            needs,
            members: Vec::new(),
        });
        group.members.push(GroupMember { appliance_id, service });
    }
    let mut groups: Vec<Group> = found.into_values().collect();
    groups.iter_mut().for_each(|group| group.members.sort());
    groups
}

/// Writes a group and its members, whether it existed or not. The caller audits it and marks the change.
///
/// # Errors
/// If the group makes no sense ([`BadGroup`]), a member stands in another group or on an unknown appliance, or the database refuses.
pub(crate) async fn upsert_group(tx: &mut Conn, group: &Group) -> anyhow::Result<()> {
    check(group)?;
    sqlx::query(
        "INSERT INTO service_groups (tenant_id, group_id, name, needs) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, group_id) DO UPDATE SET name = excluded.name, needs = excluded.needs",
    )
    .bind(&group.tenant_id)
    .bind(&group.group_id)
    .bind(&group.name)
    .bind(i64::from(group.needs))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::both_databases;
    use crate::db::{Db, Turn, transact};
    use crate::flow::testing::Stage;

    both_databases!(a_group_is_written_whole_and_again);

    fn group(needs: u32, members: &[&str]) -> Group {
        let member = |name: &&str| GroupMember { appliance_id: (*name).into(), service: "web".into() };
        let members = members.iter().map(member).collect();
        Group { tenant_id: "bank".into(), group_id: "pair".into(), name: "Pair".into(), needs, members }
    }

    #[test]
    fn a_group_needs_some_of_its_members_and_names_each_once() {
        let rows = [
            ("one of two", group(1, &["a", "b"]), None),
            ("none", group(0, &["a"]), Some("service group \"pair\": needs 0 of 1 members; expected 1 to 1")),
            ("three of two", group(3, &["a", "b"]), Some("service group \"pair\": needs 3 of 2 members; expected 1 to 2")),
            ("twice", group(1, &["a", "a"]), Some("service group \"pair\": service \"web\" of appliance a is named twice")),
        ];
        for (sentence, group, expected) in rows {
            assert_eq!(check(&group).err().map(|bad| bad.to_string()).as_deref(), expected, "{sentence}");
        }
    }

    async fn write(db: &Db, group: &Group) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| { upsert_group(tx, group).await });
        Ok(())
    }

    async fn a_group_is_written_whole_and_again(db: Db) {
        let stage = Stage::new(db).await;
        stage.customer("bank", &[("a", &["web"]), ("b", &["web"]), ("c", &["web"])]).await;
        let db = &stage.world.db;
        write(db, &group(1, &["a", "b"])).await.expect("writes");
        write(db, &group(2, &["b", "c"])).await.expect("writes again");
        assert!(write(db, &group(1, &["a", "nobody"])).await.is_err());
        let mut conn = db.read().await.expect("reads");
        assert_eq!(list(&mut conn, "bank").await.expect("lists"), [group(2, &["b", "c"])]);
        assert!(list(&mut conn, "town").await.expect("lists").is_empty());
    }
}
