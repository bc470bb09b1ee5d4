//! The grounds of a decision, drawn: the check tries that found it, and the members of each service group with their states
//! against what the business needs. Text from agents stays text. Pure.

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::fault::FaultGrounds;

use crate::tickets::severity::{Grounds, GroupNow, MemberNow};
use crate::words::Words;
use crate::words::when;

/// What the ticket's page shows of the grounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroundsView {
    /// What it is about, in words.
    pub(crate) about: String,
    pub(crate) tries: Vec<TryRow>,
    pub(crate) measured: Option<Measured>,
    pub(crate) groups: Vec<GroupView>,
    /// The appliance's services, for a machine fault.
    pub(crate) services: Vec<MemberView>,
    pub(crate) silent: Vec<(String, String)>,
}

/// One try of one check.
#[derive(Debug, Clone)]
pub(crate) struct TryRow {
    pub(crate) check: String,
    pub(crate) kind: String,
    pub(crate) attempt: u8,
    pub(crate) state: &'static str,
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) took_ms: u64,
    pub(crate) at: String,
}

/// A measured value against its threshold.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) value: String,
    pub(crate) threshold: String,
    pub(crate) lasted: String,
}

/// A service group.
#[derive(Debug, Clone)]
pub(crate) struct GroupView {
    pub(crate) name: String,
    pub(crate) needs: u32,
    pub(crate) healthy: usize,
    pub(crate) members: Vec<MemberView>,
    pub(crate) enough: bool,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) appliance_id: String,
    pub(crate) appliance: String,
    pub(crate) service: String,
    /// `up`, `degraded`, `unknown`, `down`, or `silent`.
    pub(crate) state: &'static str,
}

/// The stored JSON as a view; what can't be read shows nothing rather than failing the page.
pub(crate) fn view(w: Words, grounds: &str, zone: &str) -> GroundsView {
    match serde_json::from_str::<Grounds>(grounds) {
        Ok(grounds) => of(w, &grounds, zone),
        Err(_) => GroundsView::default(),
    }
}

fn of(w: Words, grounds: &Grounds, zone: &str) -> GroundsView {
    match grounds {
        Grounds::Service { service, found, seen, group, .. } => GroundsView {
            about: w.with("grounds.service", &[("service", service), ("state", &w.of("service_state", found.as_str()))]),
            tries: tries(w, seen, zone),
            measured: None,
            groups: vec![group_view(group)],
            ..GroundsView::default()
        },
        Grounds::Machine { component, code, seen, dependents, services, .. } => GroundsView {
            about: w.with("grounds.machine", &[("component", &w.component(component)), ("code", &w.of("fault", code))]),
            measured: measured(w, seen),
            tries: tries(w, seen, zone),
            groups: dependents.iter().map(group_view).collect(),
            services: services.iter().map(member).collect(),
            ..GroundsView::default()
        },
        Grounds::Silence { appliances, services } => GroundsView {
            about: w.t("grounds.silence").into_owned(),
            groups: services.iter().map(group_view).collect(),
            silent: appliances.iter().map(|a| (a.appliance_name.clone(), when::moment(a.last_seen_at, zone))).collect(),
            ..GroundsView::default()
        },
        Grounds::Human { answer } => GroundsView {
            about: w.with("grounds.human", &[("impact", &w.of("impact", answer.as_str()))]),
            ..GroundsView::default()
        },
        Grounds::Internal { text } => {
            GroundsView { about: w.with("grounds.mass_silence", &[("text", text)]), ..GroundsView::default() }
        }
    }
}

fn tries(w: Words, seen: &FaultGrounds, zone: &str) -> Vec<TryRow> {
    let row = |found: &CheckResult| TryRow {
        check: found.check.clone(),
        kind: found.kind.clone(),
        attempt: found.attempt,
        state: found.state.as_str(),
        reason: w.of("check_reason", &found.reason).into_owned(),
        text: found.text.clone(),
        took_ms: found.took_ms,
        at: when::moment(found.at, zone),
    };
    seen.checks.iter().map(row).collect()
}

fn measured(w: Words, seen: &FaultGrounds) -> Option<Measured> {
    let with_unit = |value: f64| super::drawing::figure(value, &seen.unit);
    Some(Measured {
        value: with_unit(seen.value?),
        threshold: seen.threshold.map(with_unit).unwrap_or_default(),
        lasted: when::lasting(w, i64::try_from(seen.lasted_ms).unwrap_or(i64::MAX)),
    })
}

fn group_view(group: &GroupNow) -> GroupView {
    let healthy = group.members.iter().filter(|m| matches!(m.state, ServiceState::Up | ServiceState::Degraded)).count();
    GroupView {
        name: group.name.clone(),
        needs: group.needs,
        healthy,
        members: group.members.iter().map(member).collect(),
        enough: u32::try_from(healthy).unwrap_or(u32::MAX) >= group.needs,
    }
}

fn member(now: &MemberNow) -> MemberView {
    MemberView {
        appliance_id: now.appliance_id.clone(),
        appliance: now.appliance_name.clone(),
        service: now.service.clone(),
        state: if now.silent { "silent" } else { now.state.as_str() },
    }
}
