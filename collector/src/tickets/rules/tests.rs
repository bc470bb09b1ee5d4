//! Open, join or reopen, a sentence per row; and when an impact moves.

use mainstay_shared::fault::Level;
use mainstay_shared::severity::Severity;

use super::*;
use crate::faults::groups::{Group, GroupMember};
use crate::faults::landscape::{ApplianceNow, Declared};
use crate::tickets::severity::Reason;
use crate::tickets::testing::ticket;

const MINUTE: i64 = 60_000;
const NOW: UnixMs = UnixMs(1_000 * MINUTE);
const FLAP: Duration = Duration::from_secs(900);

/// a and b carry `web` in a group and stand with c in one hall; `web` depends on `disk:/var`.
fn landscape() -> Landscape {
    let appliance = |name: &str| ApplianceNow {
        appliance_id: name.into(),
        name: name.into(),
        site_id: "hall".into(),
        last_seen_at: Some(NOW),
        silent: false,
        heartbeat: Default::default(),
    };
    let declared = |appliance: &str, service: &str| Declared {
        appliance_id: appliance.into(),
        service: service.into(),
        depends_on: vec!["disk:/var".into()],
    };
    let member = |appliance: &str| GroupMember { appliance_id: appliance.into(), service: "web".into() };
    Landscape {
        appliances: ["a", "b", "c"].map(appliance).into(),
        declared: vec![declared("a", "web"), declared("b", "web"), declared("c", "mail")],
        groups: vec![Group {
            tenant_id: "bank".into(),
            group_id: "pair".into(),
            name: "Pair".into(),
            needs: 1,
            members: ["a", "b"].map(member).into(),
        }],
        open_episodes: Vec::new(),
    }
}

fn episode(appliance: &str, key: &FaultKey, minutes_ago: i64) -> Episode {
    Episode {
        tenant_id: "bank".into(),
        appliance_id: appliance.into(),
        component: key.component.clone(),
        code: key.code.clone(),
        episode: "e".into(),
        open: true,
        level: Level::Serious,
        summary: String::new(),
        grounds: "{}".into(),
        ticket_id: "T-000001".into(),
        raised_at: NOW.plus_ms(-minutes_ago * MINUTE),
        received_at: NOW,
        cleared_at: None,
    }
}

/// A ticket about a fault of `minutes_ago`, in a state since `since` minutes.
fn candidate(appliance: &str, key: &FaultKey, minutes_ago: i64, state: TicketState, since: i64) -> Candidate {
    let at = Some(NOW.plus_ms(-since * MINUTE));
    let ticket = Ticket { state, cause: "another".into(), recovered_at: at, closed_at: at, ..ticket() };
    Candidate { ticket, episodes: vec![episode(appliance, key, minutes_ago)] }
}

fn key(text: &str) -> FaultKey {
    let (component, code) = text.split_once(' ').expect("component and code");
    FaultKey::new(component, code)
}

#[test]
fn one_cause_is_what_the_design_names_and_nothing_else() {
    use SameCause::{Dependency, SameGroup, SiteSilent};
    let (web, disk, cpu, silent) =
        (key("service:web service_down"), key("disk:/var disk_full"), key("cpu busy"), key("link silent"));
    let degraded = key("service:web service_degraded");
    let site = SilentSite { site_id: "hall".into(), appliances: ["a", "b", "c"].map(String::from).into() };
    let rows = [
        ("the same fault", "a", &web, 60, "a", &web, None, Some(SameGroup)),
        ("the same service, degraded before", "a", &degraded, 60, "a", &web, None, Some(SameGroup)),
        ("the other node of the pair", "a", &web, 60, "b", &web, None, Some(SameGroup)),
        ("another service elsewhere", "a", &web, 1, "c", &key("service:mail service_down"), None, None),
        ("the disk on which the service depends, 4 min before", "a", &disk, 4, "a", &web, None, Some(Dependency)),
        ("the other way round", "a", &web, 4, "a", &disk, None, Some(Dependency)),
        ("the disk, but 6 min before", "a", &disk, 6, "a", &web, None, None),
        ("the other node's disk", "b", &disk, 1, "a", &web, None, None),
        ("same appliance, same minute, no declared dependency", "a", &cpu, 0, "a", &web, None, None),
        ("the same machine fault on another appliance", "a", &cpu, 0, "b", &cpu, None, None),
        ("the node whose partner is down falls silent", "a", &web, 60, "b", &silent, None, Some(SameGroup)),
        ("a node is silent when its partner goes down", "b", &silent, 60, "a", &web, None, Some(SameGroup)),
        ("two silent appliances without a common service", "a", &silent, 1, "c", &silent, None, None),
        ("the same, and the whole site is silent", "a", &silent, 1, "c", &silent, Some(&site), Some(SiteSilent)),
    ];
    for (sentence, first, first_key, minutes_ago, second, second_key, silent_site, expected) in rows {
        let arriving = Arriving { appliance_id: second, key: second_key, occurred_at: NOW, already_cleared: false, silent_site };
        let candidates = [candidate(first, first_key, minutes_ago, TicketState::Open, 0)];
        let action = place(&arriving, &candidates, &landscape(), FLAP, NOW);
        let wanted = expected.map_or(Action::Open(OpenReason::NewCause), |why| Action::Join(0, why));
        assert_eq!(action, wanted, "{sentence}");
    }
}

#[test]
fn a_fault_that_comes_back_reopens_within_the_flap_window_and_opens_anew_after_it() {
    use TicketState::{Closed, Open, Recovered};
    let web = key("service:web service_down");
    let again = SameCause::SameGroup;
    let rows = [
        ("recovered 15 min ago", Recovered, 15, false, Action::Reopen(0, again)),
        ("recovered 16 min ago", Recovered, 16, false, Action::Open(OpenReason::AfterRecovery)),
        ("closed 15 min ago", Closed, 15, false, Action::Reopen(0, again)),
        ("closed 16 min ago", Closed, 16, false, Action::Open(OpenReason::NewCause)),
        ("still open after an hour", Open, 60, false, Action::Join(0, again)),
        ("over when it arrived, recovered an hour ago: nothing wakes up", Recovered, 60, true, Action::Join(0, again)),
        ("over when it arrived, closed 5 min ago: nothing wakes up", Closed, 5, true, Action::Join(0, again)),
    ];
    for (sentence, state, since, already_cleared, expected) in rows {
        let arriving = Arriving { appliance_id: "a", key: &web, occurred_at: NOW, already_cleared, silent_site: None };
        let action = place(&arriving, &[candidate("a", &web, 90, state, since)], &landscape(), FLAP, NOW);
        assert_eq!(action, expected, "{sentence}");
    }
}

#[test]
fn a_closed_ticket_does_not_come_back_beside_a_living_one_of_its_cause() {
    let (web, disk) = (key("service:web service_down"), key("disk:/var disk_full"));
    let closed = candidate("a", &web, 90, TicketState::Closed, 1);
    let heir = candidate("a", &web, 10, TicketState::Open, 0);
    // Late news of the disk on which the service depends, from the time of the closed one.
    let then = NOW.plus_ms(-90 * MINUTE);
    let arriving = Arriving { appliance_id: "a", key: &disk, occurred_at: then, already_cleared: false, silent_site: None };
    let alone = place(&arriving, std::slice::from_ref(&closed), &landscape(), FLAP, NOW);
    assert_eq!(alone, Action::Reopen(0, SameCause::Dependency));
    assert_eq!(place(&arriving, &[closed, heir], &landscape(), FLAP, NOW), Action::Open(OpenReason::NewCause));
}

#[test]
fn a_ticket_keeps_its_cause_when_staff_regroup_its_service() {
    let web = key("service:web service_down");
    let mut other = candidate("c", &key("service:mail service_down"), 60, TicketState::Open, 0);
    other.ticket.cause = "group:pair".into();
    let arriving = Arriving { appliance_id: "a", key: &web, occurred_at: NOW, already_cleared: false, silent_site: None };
    assert_eq!(place(&arriving, &[other], &landscape(), FLAP, NOW), Action::Join(0, SameCause::SameGroup));
}

#[test]
fn an_impact_goes_up_by_itself_and_down_never() {
    use BusinessImpact::{Interrupted, Severe, Slight};
    let decided = |impact: BusinessImpact, presumed| Decision {
        impact,
        severity: impact.severity(),
        presumed,
        reason: Reason::ServiceDown,
    };
    let keep = Regrade::Keep(KeepReason::NotGraver);
    let person = Regrade::Keep(KeepReason::PersonDecided);
    let rows = [
        ("graver grounds", Slight, false, decided(Interrupted, false), None, Regrade::Upward),
        ("lighter grounds", Interrupted, false, decided(Slight, false), None, keep),
        ("equal grounds", Interrupted, false, decided(Interrupted, false), None, keep),
        ("a presumption turns out true", Interrupted, true, decided(Interrupted, false), None, Regrade::Confirmed),
        ("a known impact is not presumed afterwards", Interrupted, false, decided(Interrupted, true), None, keep),
        ("a person lowered it, knowing these grounds", Slight, false, decided(Interrupted, false), Some(Interrupted), person),
        ("a person graded it, then it got worse", Severe, false, decided(Interrupted, false), Some(Slight), Regrade::Upward),
    ];
    for (sentence, impact, presumed, new, knew, expected) in rows {
        let ticket = Ticket { impact, severity: impact.severity(), presumed, ..ticket() };
        assert_eq!(regrade(&ticket, &new, knew), expected, "{sentence}");
    }
}

#[test]
fn a_ticket_weighs_as_its_gravest_open_episode() {
    let (web, cpu) = (key("service:mail service_down"), key("cpu busy"));
    let mut landscape = landscape();
    let episodes = [episode("c", &cpu, 1), episode("c", &web, 1)];
    landscape.open_episodes = episodes.to_vec();
    let (decision, grounds) = weigh(&episodes, &landscape).expect("a decision");
    assert_eq!((decision.severity, decision.reason), (Severity::Critical, Reason::ServiceDown));
    assert!(matches!(grounds, Grounds::Service { .. }));
    assert!(weigh(&[], &landscape).is_none());
}
