//! The table of severity: a sentence per row. docs/severity.md holds the same rows; `MAINSTAY_UPDATE_DOCS=1` writes them there.

use std::fmt::Write as _;

use mainstay_shared::check::ServiceState::{Degraded, Down, Unknown, Up};

use super::*;
use BusinessImpact::{Interrupted, None as NoImpact, Slight};

fn members(states: &[ServiceState]) -> Vec<MemberNow> {
    states
        .iter()
        .zip('a'..)
        .map(|(state, name)| MemberNow {
            appliance_id: name.to_string(),
            appliance_name: name.to_string(),
            service: "web".into(),
            state: *state,
            silent: *state == Unknown,
        })
        .collect()
}

fn group(needs: u32, states: &[ServiceState]) -> GroupNow {
    GroupNow { name: "web".into(), needs, members: members(states) }
}

/// A service fault found on the first member.
fn service(found: ServiceState, last_known: Option<ServiceState>, needs: u32, states: &[ServiceState]) -> Grounds {
    let seen = FaultGrounds { last_known, ..FaultGrounds::default() };
    Grounds::Service { appliance_id: "a".into(), service: "web".into(), found, seen, group: group(needs, states) }
}

fn machine(dependents: Vec<GroupNow>, services: &[ServiceState]) -> Grounds {
    Grounds::Machine {
        appliance_id: "a".into(),
        component: "disk:/var".into(),
        code: "disk_space_low".into(),
        level: Level::Serious,
        seen: FaultGrounds::default(),
        dependents,
        services: members(services),
    }
}

fn silence(services: Vec<GroupNow>) -> Grounds {
    Grounds::Silence { appliances: Vec::new(), services }
}

fn all_rows() -> Vec<Row> {
    [service_rows(), unsure_rows(), other_rows()].concat()
}

type Row = (&'static str, Grounds, BusinessImpact, bool, Reason);

fn service_rows() -> Vec<Row> {
    vec![
        ("a service in no group is down", service(Down, Some(Up), 1, &[Down]), Interrupted, false, Reason::ServiceDown),
        ("A is down, B is up, one is needed", service(Down, Some(Up), 1, &[Down, Up]), Slight, false, Reason::RedundancyLost),
        (
            "A is down, B is up, both are needed",
            service(Down, Some(Up), 2, &[Down, Up]),
            Interrupted,
            false,
            Reason::GroupBelowNeed,
        ),
        (
            "A and B are down, one is needed",
            service(Down, Some(Up), 1, &[Down, Down]),
            Interrupted,
            false,
            Reason::GroupBelowNeed,
        ),
        (
            "A is down, B is silent, one is needed",
            service(Down, Some(Up), 1, &[Down, Unknown]),
            Interrupted,
            true,
            Reason::GroupUnsure,
        ),
        (
            "A is down, B is degraded, one is needed",
            service(Down, Some(Up), 1, &[Down, Degraded]),
            Slight,
            false,
            Reason::RedundancyLost,
        ),
        (
            "A is down, B is up, C is silent, two are needed",
            service(Down, Some(Up), 2, &[Down, Up, Unknown]),
            Interrupted,
            true,
            Reason::GroupUnsure,
        ),
        (
            "A is down, B and C are up, two are needed",
            service(Down, Some(Up), 2, &[Down, Up, Up]),
            Slight,
            false,
            Reason::RedundancyLost,
        ),
    ]
}

fn unsure_rows() -> Vec<Row> {
    vec![
        (
            "a service in no group is degraded",
            service(Degraded, Some(Up), 1, &[Degraded]),
            Slight,
            false,
            Reason::ServiceDegraded,
        ),
        (
            "A is degraded, B is down, one is needed",
            service(Degraded, Some(Up), 1, &[Degraded, Down]),
            Slight,
            false,
            Reason::ServiceDegraded,
        ),
        (
            "A's check can't find out, A was up before",
            service(Unknown, Some(Up), 1, &[Unknown]),
            Slight,
            false,
            Reason::CheckUnknown,
        ),
        (
            "A's check can't find out, nothing is known of before",
            service(Unknown, None, 1, &[Unknown]),
            Slight,
            false,
            Reason::CheckUnknown,
        ),
        (
            "A's check can't find out, A was down before",
            service(Unknown, Some(Down), 1, &[Unknown]),
            Interrupted,
            true,
            Reason::CheckUnknownPresumed,
        ),
        (
            "A's check can't find out, B is down, one is needed",
            service(Unknown, Some(Up), 1, &[Unknown, Down]),
            Interrupted,
            true,
            Reason::CheckUnknownPresumed,
        ),
        (
            "A's check can't find out, B is up, one is needed",
            service(Unknown, Some(Up), 1, &[Unknown, Up]),
            Slight,
            false,
            Reason::CheckUnknown,
        ),
        (
            "A's check can't find out, A was down before, B is up, one is needed",
            service(Unknown, Some(Down), 1, &[Unknown, Up]),
            Slight,
            false,
            Reason::CheckUnknown,
        ),
        (
            "A's and B's checks can't find out, both were up before",
            service(Unknown, Some(Up), 1, &[Unknown, Unknown]),
            Slight,
            false,
            Reason::CheckUnknown,
        ),
    ]
}

fn other_rows() -> Vec<Row> {
    vec![
        ("a machine fault, all declared services are up", machine(vec![], &[Up, Up]), Slight, false, Reason::ServicesUp),
        (
            "a machine fault, whether a service is up is not known",
            machine(vec![], &[Up, Unknown]),
            Slight,
            true,
            Reason::ServicesUnknown,
        ),
        (
            "a machine fault, a service that depends on it is down, no group",
            machine(vec![group(1, &[Down])], &[Down]),
            Interrupted,
            false,
            Reason::DependentDown,
        ),
        (
            "a machine fault, a service that depends on it is down, another member carries it",
            machine(vec![group(1, &[Down, Up])], &[Down]),
            Slight,
            false,
            Reason::RedundancyLost,
        ),
        (
            "a machine fault, a service that depends on it is down, the other member is silent",
            machine(vec![group(1, &[Down, Unknown])], &[Down]),
            Interrupted,
            true,
            Reason::DependentDown,
        ),
        ("a machine fault, no service is declared", machine(vec![], &[]), Slight, true, Reason::NoServiceDeclared),
        (
            "an appliance is silent, it carries a service in no group",
            silence(vec![group(1, &[Unknown])]),
            Interrupted,
            true,
            Reason::SilentUncovered,
        ),
        (
            "an appliance is silent, another member covers its service",
            silence(vec![group(1, &[Unknown, Up])]),
            Slight,
            false,
            Reason::SilentCovered,
        ),
        (
            "an appliance is silent, the other member is silent or unknown too",
            silence(vec![group(1, &[Unknown, Unknown])]),
            Interrupted,
            true,
            Reason::SilentUncovered,
        ),
        (
            "an appliance is silent, one of its two services is covered",
            silence(vec![group(1, &[Unknown, Up]), group(1, &[Unknown])]),
            Interrupted,
            true,
            Reason::SilentUncovered,
        ),
        ("an appliance is silent, no service is declared", silence(vec![]), Slight, true, Reason::NoServiceDeclared),
        (
            "a customer says that business stands still",
            Grounds::Human { answer: Interrupted },
            Interrupted,
            false,
            Reason::HumanAnswer,
        ),
        ("a customer says that business goes on", Grounds::Human { answer: Slight }, Slight, false, Reason::HumanAnswer),
        ("the vendor's own affair", Grounds::Internal { text: String::new() }, NoImpact, false, Reason::Internal),
    ]
}

#[test]
fn every_sentence_of_the_table_is_true() {
    for (sentence, grounds, impact, presumed, reason) in all_rows() {
        let found = decide(&grounds);
        assert_eq!((found.impact, found.presumed, found.reason), (impact, presumed, reason), "{sentence}");
        assert_eq!(found.severity, impact.severity(), "{sentence}");
    }
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let mut table = String::from("| what is known | impact | severity | presumed | reason |\n|---|---|---|---|---|\n");
    for (sentence, grounds, ..) in all_rows() {
        let found = decide(&grounds);
        let presumed = if found.presumed { "yes" } else { "" };
        let (impact, severity, reason) = (found.impact.as_str(), found.severity.as_str(), found.reason.as_str());
        writeln!(table, "| {sentence} | {impact} | {severity} | {presumed} | `{reason}` |").expect("writes to memory");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/severity.md");
    let text = std::fs::read_to_string(path).expect("docs/severity.md");
    let (begin, end) = ("<!-- table: printed by the tests of tickets/severity.rs -->\n", "<!-- end of table -->");
    let (head, rest) = text.split_once(begin).expect("the table's begin");
    let (_, tail) = rest.split_once(end).expect("the table's end");
    let wanted = format!("{head}{begin}{table}{end}{tail}");
    if std::env::var_os("MAINSTAY_UPDATE_DOCS").is_some() {
        std::fs::write(path, wanted).expect("writes docs/severity.md");
    } else {
        assert!(text == wanted, "docs/severity.md is behind: run this test with MAINSTAY_UPDATE_DOCS=1");
    }
}

#[test]
fn every_reason_has_its_own_name() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_value(reason).expect("serialises"), reason.as_str());
    }
}

proptest::proptest! {
    #[test]
    fn more_known_failure_never_lightens_a_decision(needs in 1_u32..4, states in proptest::collection::vec(0_usize..4, 1..5), worse in 0_usize..5) {
        let all = [Up, Degraded, Unknown, Down];
        let states: Vec<_> = std::iter::once(Down).chain(states.into_iter().map(|n| all[n])).collect();
        let mut graver = states.clone();
        graver[worse % states.len()] = Down;
        let weight = |grounds: &Grounds| decide(grounds).impact;
        proptest::prop_assert!(weight(&service(Down, None, needs, &graver)) >= weight(&service(Down, None, needs, &states)));
    }
}
