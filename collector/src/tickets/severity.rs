//! Severity: one pure question, *is the customer's business interrupted?*, from grounds to (impact, severity, reason). C1.
//!
//! The table in docs/severity.md is printed from the tests of this file. Nothing else in the product decides an impact but a person.
//! Unknown is never "not interrupted"; what is concluded from not knowing is marked *presumed*.

use mainstay_shared::check::ServiceState;
use mainstay_shared::fault::{FaultGrounds, Level};
use mainstay_shared::severity::{BusinessImpact, Severity};
use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

/// What a decision rests on; stored with the ticket as JSON and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub(crate) enum Grounds {
    /// A business service of an appliance does not answer as it should.
    Service { appliance_id: String, service: String, found: ServiceState, seen: FaultGrounds, group: GroupNow },
    /// Something is wrong with the machine or its agent. `dependents` are the services that declared that they depend on it.
    Machine {
        appliance_id: String,
        component: String,
        code: String,
        level: Level,
        seen: FaultGrounds,
        dependents: Vec<GroupNow>,
        /// The appliance's declared services, all of them; empty means severity blind.
        services: Vec<MemberNow>,
    },
    /// Appliances are silent; `services` are the groups of the services that they carry.
    Silence { appliances: Vec<SilentAppliance>, services: Vec<GroupNow> },
    /// A person asked the customer.
    Human { answer: BusinessImpact },
    /// The vendor's own affair.
    Internal { text: String },
}

/// A service group and its members at the moment of the decision. A service in no group is a group of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupNow {
    pub(crate) name: String,
    pub(crate) needs: u32,
    pub(crate) members: Vec<MemberNow>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberNow {
    pub(crate) appliance_id: String,
    pub(crate) appliance_name: String,
    pub(crate) service: String,
    /// `unknown` for a silent one.
    pub(crate) state: ServiceState,
    /// Nothing was heard from its appliance lately.
    pub(crate) silent: bool,
}

/// An appliance that is not heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SilentAppliance {
    pub(crate) appliance_id: String,
    pub(crate) appliance_name: String,
    pub(crate) last_seen_at: UnixMs,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) impact: BusinessImpact,
    pub(crate) severity: Severity,
    pub(crate) presumed: bool,
    pub(crate) reason: Reason,
}

/// Why: the key of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The only member is down.
    ServiceDown,
    /// Fewer healthy members than the business needs.
    GroupBelowNeed,
    /// Members are down and others unknown: too few are known to be healthy.
    GroupUnsure,
    /// A member is down; the others carry the service.
    RedundancyLost,
    /// It answers, worse than it should.
    ServiceDegraded,
    /// A check could not find out; nothing says that it was down.
    CheckUnknown,
    /// A check could not find out, and another member is down or it was down before.
    CheckUnknownPresumed,
    /// A machine fault under a service that is down with it.
    DependentDown,
    /// A machine fault; the services are up.
    ServicesUp,
    /// A machine fault; whether the services are up is not known.
    ServicesUnknown,
    /// No business service is declared: severity blind, ask the customer.
    NoServiceDeclared,
    /// A silent appliance carries a service that no group still covers.
    SilentUncovered,
    /// A silent appliance; the others carry its services.
    SilentCovered,
    /// A person said so.
    HumanAnswer,
    /// The vendor's own affair.
    Internal,
}

impl Reason {
    /// All reasons, for tables of texts.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 15] = [
        Self::ServiceDown,
        Self::GroupBelowNeed,
        Self::GroupUnsure,
        Self::RedundancyLost,
        Self::ServiceDegraded,
        Self::CheckUnknown,
        Self::CheckUnknownPresumed,
        Self::DependentDown,
        Self::ServicesUp,
        Self::ServicesUnknown,
        Self::NoServiceDeclared,
        Self::SilentUncovered,
        Self::SilentCovered,
        Self::HumanAnswer,
        Self::Internal,
    ];

    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ServiceDown => "service_down",
            Self::GroupBelowNeed => "group_below_need",
            Self::GroupUnsure => "group_unsure",
            Self::RedundancyLost => "redundancy_lost",
            Self::ServiceDegraded => "service_degraded",
            Self::CheckUnknown => "check_unknown",
            Self::CheckUnknownPresumed => "check_unknown_presumed",
            Self::DependentDown => "dependent_down",
            Self::ServicesUp => "services_up",
            Self::ServicesUnknown => "services_unknown",
            Self::NoServiceDeclared => "no_service_declared",
            Self::SilentUncovered => "silent_uncovered",
            Self::SilentCovered => "silent_covered",
            Self::HumanAnswer => "human_answer",
            Self::Internal => "internal",
        }
    }
}

/// How a group stands against its need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Enough members are known to be healthy.
    Covered,
    /// Enough might be, if the unknown ones are.
    Unsure,
    /// Too few even then.
    Below,
}

impl GroupNow {
    fn standing(&self) -> Standing {
        let count = |wanted: &[ServiceState]| self.members.iter().filter(|member| wanted.contains(&member.state)).count() as u64;
        let healthy = count(&[ServiceState::Up, ServiceState::Degraded]);
        if healthy >= u64::from(self.needs) {
            Standing::Covered
        } else if healthy + count(&[ServiceState::Unknown]) >= u64::from(self.needs) {
            Standing::Unsure
        } else {
            Standing::Below
        }
    }

    fn any_down(&self) -> bool {
        self.members.iter().any(|member| member.state == ServiceState::Down)
    }
}

/// Decides. Pure: equal grounds, equal decision.
pub(crate) fn decide(grounds: &Grounds) -> Decision {
    match grounds {
        Grounds::Service { found, seen, group, .. } => service(*found, seen.last_known, group),
        Grounds::Machine { dependents, services, .. } => machine(dependents, services),
        Grounds::Silence { services, .. } => silence(services),
        Grounds::Human { answer } => decision(*answer, false, Reason::HumanAnswer),
        Grounds::Internal { .. } => decision(BusinessImpact::None, false, Reason::Internal),
    }
}

fn service(found: ServiceState, last_known: Option<ServiceState>, group: &GroupNow) -> Decision {
    use BusinessImpact::{Interrupted, Slight};
    match (found, group.standing()) {
        (_, Standing::Below) if group.members.len() == 1 => decision(Interrupted, false, Reason::ServiceDown),
        (_, Standing::Below) => decision(Interrupted, false, Reason::GroupBelowNeed),
        (ServiceState::Down, Standing::Unsure) => decision(Interrupted, true, Reason::GroupUnsure),
        (ServiceState::Down, Standing::Covered) => decision(Slight, false, Reason::RedundancyLost),
        (ServiceState::Unknown, Standing::Unsure) if group.any_down() || last_known == Some(ServiceState::Down) => {
            decision(Interrupted, true, Reason::CheckUnknownPresumed)
        }
        (ServiceState::Unknown, Standing::Unsure | Standing::Covered) => decision(Slight, false, Reason::CheckUnknown),
        (ServiceState::Degraded | ServiceState::Up, Standing::Unsure) if group.any_down() => {
            decision(Interrupted, true, Reason::GroupUnsure)
        }
        (ServiceState::Degraded | ServiceState::Up, Standing::Unsure | Standing::Covered) => {
            decision(Slight, false, Reason::ServiceDegraded)
        }
    }
}

fn machine(dependents: &[GroupNow], services: &[MemberNow]) -> Decision {
    use BusinessImpact::{Interrupted, Slight};
    let standings: Vec<(Standing, bool)> = dependents.iter().map(|group| (group.standing(), group.any_down())).collect();
    if services.is_empty() {
        decision(Slight, true, Reason::NoServiceDeclared)
    } else if standings.iter().any(|(standing, _)| *standing == Standing::Below) {
        decision(Interrupted, false, Reason::DependentDown)
    } else if standings.contains(&(Standing::Unsure, true)) {
        decision(Interrupted, true, Reason::DependentDown)
    } else if standings.contains(&(Standing::Covered, true)) {
        decision(Slight, false, Reason::RedundancyLost)
    } else if services.iter().any(|service| service.state == ServiceState::Unknown) {
        decision(Slight, true, Reason::ServicesUnknown)
    } else {
        decision(Slight, false, Reason::ServicesUp)
    }
}

fn silence(services: &[GroupNow]) -> Decision {
    use BusinessImpact::{Interrupted, Slight};
    if services.is_empty() {
        decision(Slight, true, Reason::NoServiceDeclared)
    } else if services.iter().any(|group| group.standing() != Standing::Covered) {
        decision(Interrupted, true, Reason::SilentUncovered)
    } else {
        decision(Slight, false, Reason::SilentCovered)
    }
}

fn decision(impact: BusinessImpact, presumed: bool, reason: Reason) -> Decision {
    Decision { impact, severity: impact.severity(), presumed, reason }
}

#[cfg(test)]
mod tests;
