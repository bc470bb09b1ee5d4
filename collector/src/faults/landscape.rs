//! What a customer's appliances, services and groups look like at one moment: the whole of what a decision may rest on.
//!
//! Loaded once per story, in its transaction; then asked, purely. What was not heard is unknown, never healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use mainstay_shared::fault::{CODE_CHECK_UNKNOWN, CODE_SERVICE_DOWN};
use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use super::groups::{self, Group, GroupMember};
use super::{Episode, store};
use crate::db::Conn;

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

/// Loads a customer's landscape at `now`. An appliance unheard for `silence_after`, counted from the collector's own start at the
/// earliest, is silent here even before a ticket says so.
pub(crate) async fn load(conn: &mut Conn, tenant_id: &str, now: UnixMs, silence_after: Duration) -> anyhow::Result<Landscape> {
    let started_at: Option<i64> = sqlx::query_scalar("SELECT started_at FROM collector").fetch_optional(&mut *conn).await?;
    let since = UnixMs(started_at.unwrap_or_default());
    let mut landscape = Landscape {
        groups: groups::list(conn, tenant_id).await?,
        open_episodes: store::open_of_tenant(conn, tenant_id).await?,
        ..Landscape::default()
    };
    let rows = sqlx::query(
        "SELECT a.appliance_id, a.name, a.site_id, l.last_seen_at, l.services, l.silent_since_at, l.goodbye_at
         FROM appliances a LEFT JOIN links l ON l.tenant_id = a.tenant_id AND l.appliance_id = a.appliance_id
         WHERE a.tenant_id = $1 AND a.state <> 'retired' ORDER BY a.appliance_id",
    )
    .bind(tenant_id)
    .fetch_all(&mut *conn)
    .await?;
    for row in &rows {
        let last_seen_at = row.try_get::<Option<i64>, _>("last_seen_at")?.map(UnixMs);
        let marked = row.try_get::<Option<i64>, _>("silent_since_at")?.is_some();
        let goodbye = row.try_get::<Option<i64>, _>("goodbye_at")?.is_some();
        let heard_at = last_seen_at.map(|at| at.max(since));
        let services: Option<String> = row.try_get("services")?;
        landscape.appliances.push(ApplianceNow {
            appliance_id: row.try_get("appliance_id")?,
            name: row.try_get("name")?,
            site_id: row.try_get("site_id")?,
            last_seen_at,
            silent: marked || goodbye || heard_at.is_none_or(|at| now > at.plus(silence_after)),
            // A heartbeat that an older collector wrote differently tells nothing.
            heartbeat: services.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        });
    }
    let rows =
        sqlx::query("SELECT appliance_id, service, depends_on FROM declared_services WHERE tenant_id = $1 ORDER BY service")
            .bind(tenant_id)
            .fetch_all(conn)
            .await?;
    for row in &rows {
        let depends_on: String = row.try_get("depends_on")?;
        landscape.declared.push(Declared {
            appliance_id: row.try_get("appliance_id")?,
            service: row.try_get("service")?,
            depends_on: serde_json::from_str(&depends_on).unwrap_or_default(),
        });
    }
    Ok(landscape)
}
