//! From an episode and the landscape to the grounds of a decision, and to the causes that it shares with others: pure.
//!
//! Two faults are one cause when a name in [`causes`] is common to both (DESIGN: same service group), never by likeness.

use std::collections::BTreeSet;

use mainstay_shared::fault::FaultKey;

use super::severity::{Grounds, GroupNow, MemberNow, SilentAppliance};
use crate::faults::landscape::{Declared, Landscape, state_of_code};
use crate::faults::{CODE_MASS_SILENCE, CODE_SILENT, COMPONENT_LINK, Episode};

/// The name of the cause that a ticket opened for this fault has.
pub(crate) fn cause(appliance_id: &str, key: &FaultKey, landscape: &Landscape) -> String {
    match key.service() {
        Some(service) => cause_of_service(appliance_id, service, landscape),
        None => format!("fault:{appliance_id}:{}:{}", key.component, key.code),
    }
}

/// The cause of a whole site that is silent.
pub(crate) fn cause_of_site(site_id: &str) -> String {
    format!("site:{site_id}")
}

fn cause_of_service(appliance_id: &str, service: &str, landscape: &Landscape) -> String {
    match landscape.group_of(appliance_id, service) {
        Some(group) => format!("group:{}", group.group_id),
        None => format!("service:{appliance_id}:{service}"),
    }
}

/// All causes that a fault touches: its own, and for a silent appliance the groups of all services that it carries.
pub(crate) fn causes(appliance_id: &str, key: &FaultKey, landscape: &Landscape) -> BTreeSet<String> {
    let mut causes = BTreeSet::from([cause(appliance_id, key, landscape)]);
    if is_silence(key) {
        causes.extend(
            landscape.declared_by(appliance_id).map(|declared| cause_of_service(appliance_id, &declared.service, landscape)),
        );
    }
    causes
}

/// Whether the fault is an appliance's silence.
pub(crate) fn is_silence(key: &FaultKey) -> bool {
    key.component == COMPONENT_LINK && key.code == CODE_SILENT
}

/// Whether one of two faults of the same appliance is on a service that declared that it depends on the other's component.
pub(crate) fn one_depends_on_the_other(appliance_id: &str, one: &FaultKey, other: &FaultKey, landscape: &Landscape) -> bool {
    let depends = |service: Option<&str>, component: &str| {
        service.is_some_and(|service| {
            landscape
                .declared_by(appliance_id)
                .any(|declared| declared.service == service && declared.depends_on.iter().any(|on| on == component))
        })
    };
    depends(one.service(), &other.component) || depends(other.service(), &one.component)
}

/// The group of a service with the present states of its members.
pub(crate) fn group_now(appliance_id: &str, service: &str, landscape: &Landscape) -> GroupNow {
    match landscape.group_of(appliance_id, service) {
        Some(group) => GroupNow {
            name: group.name.clone(),
            needs: group.needs,
            members: group
                .members
                .iter()
                .filter(|member| landscape.appliance(&member.appliance_id).is_some())
                .map(|member| member_now(&member.appliance_id, &member.service, landscape))
                .collect(),
        },
        None => GroupNow { name: service.to_owned(), needs: 1, members: vec![member_now(appliance_id, service, landscape)] },
    }
}

fn member_now(appliance_id: &str, service: &str, landscape: &Landscape) -> MemberNow {
    let appliance = landscape.appliance(appliance_id);
    MemberNow {
        appliance_id: appliance_id.to_owned(),
        appliance_name: appliance.map(|appliance| appliance.name.clone()).unwrap_or_default(),
        service: service.to_owned(),
        state: landscape.state_of(appliance_id, service),
        silent: appliance.is_none_or(|appliance| appliance.silent),
    }
}

/// The grounds of one episode. `landscape.open_episodes` must hold it.
pub(crate) fn of_episode(episode: &Episode, landscape: &Landscape) -> Grounds {
    let key = FaultKey::new(&episode.component, &episode.code);
    let appliance_id = episode.appliance_id.clone();
    if key.code == CODE_MASS_SILENCE {
        return Grounds::Internal { text: episode.summary.clone() };
    }
    if is_silence(&key) {
        return of_silence(&appliance_id, landscape);
    }
    // The agent's own words as they were stored; what an older collector wrote differently shows nothing.
    let seen = serde_json::from_str(&episode.grounds).unwrap_or_default();
    match key.service() {
        Some(service) => Grounds::Service {
            group: group_now(&appliance_id, service, landscape),
            found: state_of_code(&key.code),
            service: service.to_owned(),
            appliance_id,
            seen,
        },
        None => {
            let depending = |declared: &&Declared| declared.depends_on.contains(&key.component);
            let dependents = landscape.declared_by(&appliance_id).filter(depending);
            Grounds::Machine {
                dependents: dependents.map(|declared| group_now(&appliance_id, &declared.service, landscape)).collect(),
                services: landscape
                    .declared_by(&appliance_id)
                    .map(|declared| member_now(&appliance_id, &declared.service, landscape))
                    .collect(),
                level: episode.level,
                component: key.component,
                code: key.code,
                appliance_id,
                seen,
            }
        }
    }
}

fn of_silence(appliance_id: &str, landscape: &Landscape) -> Grounds {
    let appliances = landscape
        .appliance(appliance_id)
        .map(|appliance| SilentAppliance {
            appliance_id: appliance.appliance_id.clone(),
            appliance_name: appliance.name.clone(),
            last_seen_at: appliance.last_seen_at.unwrap_or_default(),
        })
        .into_iter()
        .collect();
    let services = landscape.declared_by(appliance_id).map(|declared| group_now(appliance_id, &declared.service, landscape));
    Grounds::Silence { appliances, services: services.collect() }
}
