//! The clocks against a naive model that walks through time minute by minute, and the figures of the commitment.

use mainstay_shared::severity::BusinessImpact;
use proptest::prelude::*;

use super::*;
use crate::tickets::ResponseWay;
use crate::tickets::testing::ticket;

const MINUTE: i64 = 60_000;

/// What a ticket's clocks must be, by its log alone.
fn recompute<'a>(ticket: &Ticket, log: impl IntoIterator<Item = (UnixMs, &'a TicketEvent)>, policies: &[Policy]) -> Vec<Clock> {
    let mut clocks = Vec::new();
    for (at, event) in log {
        advance(&mut clocks, ticket, at, event, policies);
    }
    clocks
}

fn opened(already_recovered: bool) -> TicketEvent {
    let impact = BusinessImpact::Interrupted;
    TicketEvent::Opened { impact, presumed: false, reason: String::new(), summary: String::new(), already_recovered }
}

fn reopened() -> TicketEvent {
    TicketEvent::Reopened { component: String::new(), code: String::new(), episode: String::new(), summary: String::new() }
}

fn responded() -> TicketEvent {
    TicketEvent::Responded { staff_id: "w".into(), name: "W".into(), way: ResponseWay::Phone, note: String::new() }
}

fn at(minute: i64) -> UnixMs {
    UnixMs(minute * MINUTE)
}

#[test]
fn the_commitment_is_30_minutes_with_a_warning_after_20() {
    let clocks = recompute(&ticket(), [(at(100), &opened(false))], &[FIRST_POLICY]);
    assert_eq!((clocks[0].warn_at, clocks[0].due_at), (at(120), at(130)));
}

#[test]
fn taking_assigning_and_noting_stop_nothing() {
    let log = [
        opened(false),
        TicketEvent::Taken { staff_id: "w".into(), name: "W".into() },
        TicketEvent::Assigned { to_staff_id: "x".into(), to_name: "X".into() },
        TicketEvent::Noted { text: "looking".into() },
        TicketEvent::Recovered,
    ];
    let clocks = recompute(&ticket(), log.iter().map(|event| (at(5), event)), &[FIRST_POLICY]);
    assert!(clocks[0].is_unanswered());
}

#[test]
fn the_last_millisecond_is_in_time_and_the_next_is_not() {
    for (late_ms, state) in [(0, ClockState::Met), (1, ClockState::Missed)] {
        let log = [(at(0), &opened(false)), (at(30).plus_ms(late_ms), &responded())];
        assert_eq!(recompute(&ticket(), log, &[FIRST_POLICY])[0].state, state);
    }
}

#[test]
fn a_policy_made_later_changes_no_clock_that_has_begun() {
    let later = Policy {
        version: 2,
        effective_at: at(60),
        promises: Promises { response: Allowance { warn_after_ms: 5 * MINUTE, due_after_ms: 10 * MINUTE } },
    };
    let log = [(at(50), &opened(false)), (at(70), &reopened())];
    let clocks = recompute(&ticket(), log, &[FIRST_POLICY, later]);
    assert_eq!(clocks.iter().map(|clock| (clock.policy_version, clock.due_at)).collect::<Vec<_>>(), [(1, at(80)), (2, at(80))]);
}

#[test]
fn what_was_over_when_it_arrived_has_a_void_clock_and_a_reopening_a_real_one() {
    let clocks = recompute(&ticket(), [(at(0), &opened(true)), (at(5), &reopened())], &[FIRST_POLICY]);
    assert_eq!(clocks.iter().map(|clock| clock.state).collect::<Vec<_>>(), [ClockState::Void, ClockState::Running]);
    assert_eq!((clocks[0].next_at, clocks[1].next_at), (None, Some(at(25))));
}

/// What happens in one minute of a model's ticket.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Nothing,
    Responds,
    Reopens,
    /// A node looks for what is due.
    NodeLooks,
}

/// One clock of the model: when it began, when its proof came, what was told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Naive {
    began: i64,
    proof: Option<i64>,
    warned: bool,
    missed: bool,
    warns: bool,
}

proptest! {
    #[test]
    fn clocks_agree_with_a_model_that_walks_through_time(
        minutes in proptest::collection::vec(
            prop_oneof![8 => Just(Happens::Nothing), 1 => Just(Happens::Responds), 1 => Just(Happens::Reopens), 6 => Just(Happens::NodeLooks)],
            1..150,
        )
    ) {
        let ticket = ticket();
        let (mut log, mut live) = (vec![(at(0), opened(false))], Vec::new());
        advance(&mut live, &ticket, at(0), &log[0].1, &[FIRST_POLICY]);
        let mut model = vec![Naive { warns: true, ..Naive::default() }];
        for (happens, minute) in minutes.into_iter().zip(1_i64..) {
            let mut events = Vec::new();
            match happens {
                Happens::Nothing => {}
                Happens::Responds => {
                    events.push(responded());
                    for clock in model.iter_mut().filter(|clock| clock.proof.is_none()) {
                        clock.proof = Some(minute);
                        clock.missed |= minute - clock.began > 30;
                    }
                }
                Happens::Reopens => {
                    events.push(reopened());
                    let runs = model.iter().any(|clock| clock.proof.is_none() && !clock.missed);
                    model.push(Naive { began: minute, warns: !runs, ..Naive::default() });
                }
                Happens::NodeLooks => {
                    for (clock, clock_no) in model.iter_mut().zip(1_i64..) {
                        let (age, kind) = (minute - clock.began, "response".to_owned());
                        let due_at = at(clock.began + 30);
                        if clock.proof.is_some() || clock.missed {
                            continue;
                        } else if age > 30 {
                            clock.missed = true;
                            events.push(TicketEvent::ClockMissed { clock_no, kind, due_at });
                        } else if age > 20 && clock.warns && !clock.warned {
                            clock.warned = true;
                            events.push(TicketEvent::ClockWarned { clock_no, kind, due_at });
                        }
                    }
                }
            }
            for event in events {
                advance(&mut live, &ticket, at(minute), &event, &[FIRST_POLICY]);
                log.push((at(minute), event));
            }
        }
        let again = recompute(&ticket, log.iter().map(|(at, event)| (*at, event)), &[FIRST_POLICY]);
        prop_assert_eq!(&again, &live);
        prop_assert_eq!(live.len(), model.len());
        for (clock, naive) in live.iter().zip(&model) {
            let state = match (naive.proof, naive.missed) {
                (_, true) => ClockState::Missed,
                (Some(_), false) => ClockState::Met,
                (None, false) => ClockState::Running,
            };
            prop_assert_eq!(clock.state, state);
            prop_assert_eq!(clock.stopped_at, naive.proof.map(at));
            let next = if naive.proof.is_some() || naive.missed { None } else { Some(if naive.warns && !naive.warned { 20 } else { 30 }) };
            prop_assert_eq!(clock.next_at, next.map(|after| at(naive.began + after)));
        }
    }
}
