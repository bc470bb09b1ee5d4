//! What a customer's appliances, services and groups look like at one moment, as far as a decision may rest on them: what is told
//! of, what fails, and whoever shares a service group with one of these. The others of a large customer are not read.
//!
//! Loaded once per story, in its transaction; then asked, purely. What was not heard is unknown, never healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use mainstay_shared::fault::{CODE_CHECK_UNKNOWN, CODE_SERVICE_DOWN};
use mainstay_shared::time_source::UnixMs;

use super::groups::{self, Group, GroupMember};
use super::{Episode, store};
use crate::db::{Conn, multi_row};

/// The moment, for one customer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Landscape {
    /// Without retired ones.
    pub(crate) appliances: Vec<ApplianceNow>,
    pub(crate) declared: Vec<Declared>,
    pub(crate) groups: Vec<Group>,
    pub(crate) open_episodes: Vec<Episode>,
}

/// An appliance as it was last heard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApplianceNow {
    pub(crate) appliance_id: String,
    pub(crate) name: String,
    pub(crate) site_id: String,
    /// `None`: never heard.
    pub(crate) last_seen_at: Option<UnixMs>,
    /// Nothing was heard for too long, or it said goodbye: its services are unknown.
    pub(crate) silent: bool,
    /// Service states of its last heartbeat.
    pub(crate) heartbeat: BTreeMap<String, ServiceState>,
}

/// A declared service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) appliance_id: String,
    pub(crate) service: String,
    /// Component names of the same appliance.
    pub(crate) depends_on: Vec<String>,
}

impl Landscape {
    /// An appliance.
    pub(crate) fn appliance(&self, appliance_id: &str) -> Option<&ApplianceNow> {
        self.appliances.iter().find(|appliance| appliance.appliance_id == appliance_id)
    }

    /// It reports right now, whatever the link's row still says.
    pub(crate) fn hears(&mut self, appliance_id: &str, now: UnixMs) {
        for appliance in self.appliances.iter_mut().filter(|appliance| appliance.appliance_id == appliance_id) {
            (appliance.silent, appliance.last_seen_at) = (false, Some(now));
        }
    }

    /// The services that an appliance declared.
    pub(crate) fn declared_by<'a>(&'a self, appliance_id: &'a str) -> impl Iterator<Item = &'a Declared> {
        self.declared.iter().filter(move |declared| declared.appliance_id == appliance_id)
    }

    /// The group in which a service stands.
    pub(crate) fn group_of(&self, appliance_id: &str, service: &str) -> Option<&Group> {
        let is_it = |member: &GroupMember| member.appliance_id == appliance_id && member.service == service;
        self.groups.iter().find(|group| group.members.iter().any(is_it))
    }

    /// A service's state as far as it is known. The fault lane tells of down and degraded (a heartbeat may be a minute old);
    /// the heartbeat tells what no fault tells: that it could not be found out.
    pub(crate) fn state_of(&self, appliance_id: &str, service: &str) -> ServiceState {
        let component = format!("service:{service}");
        let told = self
            .open_episodes
            .iter()
            .filter(|episode| episode.appliance_id == appliance_id && episode.component == component)
            .map(|episode| state_of_code(&episode.code))
            .max();
        let Some(appliance) = self.appliance(appliance_id) else { return ServiceState::Unknown };
        let is_declared = self.declared_by(appliance_id).any(|declared| declared.service == service);
        match told {
            Some(ServiceState::Down) => ServiceState::Down,
            _ if appliance.silent || !is_declared => ServiceState::Unknown,
            Some(told) => told,
            None if appliance.heartbeat.get(service) == Some(&ServiceState::Unknown) => ServiceState::Unknown,
            None => ServiceState::Up,
        }
    }
}

/// The state that a fault on a service tells.
pub(crate) fn state_of_code(code: &str) -> ServiceState {
    match code {
        CODE_SERVICE_DOWN => ServiceState::Down,
        CODE_CHECK_UNKNOWN => ServiceState::Unknown,
        _ => ServiceState::Degraded,
    }
}

const HEARD: &str = "a.appliance_id, a.name, a.site_id, l.last_seen_at, l.services, l.silent_since_at, l.goodbye_at";
const HEARD_FROM: &str = "FROM appliances a LEFT JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id \
     WHERE a.state <> 'retired' AND (a.tenant_id, a.appliance_id)";
/// [`HEARD`].
type HeardRow = (String, String, String, Option<i64>, Option<String>, Option<i64>, Option<i64>);

/// Loads a customer's landscape at `now`, as far as it touches the appliances `about` or one with an open episode. An appliance
/// unheard for `silence_after`, counted from the collector's own start at the earliest, is silent here even before a ticket says so.
pub(crate) async fn load(
    conn: &mut Conn,
    tenant_id: &str,
    mut about: BTreeSet<String>,
    now: UnixMs,
    silence_after: Duration,
) -> anyhow::Result<Landscape> {
    let started_at: Option<i64> = sqlx::query_scalar("SELECT started_at FROM collector").fetch_optional(&mut *conn).await?;
    let since = UnixMs(started_at.unwrap_or_default());
    let open_episodes = store::open_of_tenant(conn, tenant_id).await?;
    about.extend(open_episodes.iter().map(|episode| episode.appliance_id.clone()));
    let groups = groups::touching(conn, tenant_id, &about).await?;
    about.extend(groups.iter().flat_map(|group| &group.members).map(|member| member.appliance_id.clone()));
    let keys: Vec<Vec<String>> = about.into_iter().map(|appliance_id| vec![tenant_id.to_owned(), appliance_id]).collect();
    let heard: Vec<HeardRow> = multi_row::tuples(conn, HEARD, HEARD_FROM, &keys).await?;
    let appliance = |(appliance_id, name, site_id, last_seen_at, services, silent_since_at, goodbye_at): HeardRow| {
        let last_seen_at = last_seen_at.map(UnixMs);
        let unheard = last_seen_at.is_none_or(|at| now > at.max(since).plus(silence_after));
        ApplianceNow {
            appliance_id,
            name,
            site_id,
            last_seen_at,
            silent: silent_since_at.is_some() || goodbye_at.is_some() || unheard,
            // A heartbeat that an older collector wrote differently tells nothing.
            heartbeat: services.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        }
    };
    let from = "FROM declared_services WHERE (tenant_id, appliance_id)";
    let declared = multi_row::tuples(conn, "appliance_id, service, depends_on", from, &keys).await?;
    let declaration = |(appliance_id, service, depends_on): (String, String, String)| Declared {
        appliance_id,
        service,
        depends_on: serde_json::from_str(&depends_on).unwrap_or_default(),
    };
    let mut landscape = Landscape {
        appliances: heard.into_iter().map(appliance).collect(),
        declared: declared.into_iter().map(declaration).collect(),
        groups,
        open_episodes,
    };
    landscape.appliances.sort_by(|a, b| a.appliance_id.cmp(&b.appliance_id));
    landscape.declared.sort_by(|a, b| (&a.service, &a.appliance_id).cmp(&(&b.service, &b.appliance_id)));
    Ok(landscape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing::both_databases;
    use crate::db::{Db, Turn, transact};
    use crate::flow::testing::Stage;

    both_databases!(only_what_a_fault_touches_is_read);

    async fn pair(db: &Db, one: &str, other: &str) -> anyhow::Result<()> {
        let member = |name: &str| GroupMember { appliance_id: name.into(), service: "web".into() };
        let members = vec![member(one), member(other)];
        let group = Group { tenant_id: "bank".into(), group_id: one.into(), name: one.into(), needs: 1, members };
        transact!(db, Turn::Console, |tx| { groups::upsert_group(tx, &group).await });
        Ok(())
    }

    async fn about(db: &Db, appliances: &[&str]) -> anyhow::Result<(Vec<String>, Vec<String>, Vec<String>)> {
        let about = appliances.iter().map(|id| (*id).to_owned()).collect();
        let found = load(&mut *db.read().await?, "bank", about, UnixMs(0), Duration::from_secs(300)).await?;
        let ids = found.appliances.into_iter().map(|appliance| appliance.appliance_id).collect();
        let groups = found.groups.into_iter().map(|group| group.group_id).collect();
        Ok((ids, groups, found.declared.into_iter().map(|declared| declared.appliance_id).collect()))
    }

    async fn only_what_a_fault_touches_is_read(db: Db) {
        let stage = Stage::new(db).await;
        let web: &[&str] = &["web"];
        stage.customer("bank", &[("a", web), ("b", web), ("c", web), ("d", web), ("e", web), ("f", web)]).await;
        let db = &stage.world.db;
        pair(db, "a", "b").await.expect("a group");
        pair(db, "c", "d").await.expect("a group");
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(about(db, &[]).await.expect("loads"), (of(&[]), of(&[]), of(&[])), "nothing fails, nothing is told");
        assert_eq!(about(db, &["e"]).await.expect("loads"), (of(&["e"]), of(&[]), of(&["e"])), "it stands alone");
        assert_eq!(about(db, &["a"]).await.expect("loads"), (of(&["a", "b"]), of(&["a"]), of(&["a", "b"])), "with its group");
        stage.arrive("bank", "d", &[stage.raised("service:web", "service_down")]).await;
        let whole = (of(&["c", "d", "e"]), of(&["c"]), of(&["c", "d", "e"]));
        assert_eq!(
            about(db, &["e"]).await.expect("loads"),
            whole,
            "and with what fails elsewhere, since its ticket is weighed too"
        );
    }
}
