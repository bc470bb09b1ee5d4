//! Who may do what, a sentence per row.

use super::*;
use crate::tickets::testing::ticket;

fn by(role: Role) -> By {
    By { actor: "staff:w".into(), staff_id: "w".into(), name: "W".into(), role }
}

fn kinds(outcome: &Result<Vec<TicketEvent>, Refused>) -> String {
    match outcome {
        Ok(events) => {
            let kind = |event: &TicketEvent| serde_json::to_value(event).expect("serialises")["type"].as_str().map(str::to_owned);
            events.iter().filter_map(kind).collect::<Vec<_>>().join(" ")
        }
        Err(refused) => format!("refused: {}", refused.word()),
    }
}

fn respond() -> Act {
    Act::Respond { way: ResponseWay::Phone, note: "called".into() }
}

fn impact(to: BusinessImpact, customer_word: &str) -> Act {
    Act::ChangeImpact { to, why: "seen on site".into(), customer_word: customer_word.into() }
}

fn close(why: &str) -> Act {
    Act::Close { why: why.into() }
}

#[test]
fn every_act_is_judged_by_role_state_and_circumstance() {
    use BusinessImpact::{Interrupted, Slight};
    use Role::{AccountManager, Operator, SeniorManagement, ServiceManager, SupportManager, SystemEngineer};
    let open = ticket();
    let mine = Ticket { taken_by: Some("w".into()), ..ticket() };
    let answered = Ticket { responded_at: Some(mainstay_shared::time_source::UnixMs(1)), ..mine.clone() };
    let closed = Ticket { state: TicketState::Closed, ..answered.clone() };
    let general = Ticket { impact: Slight, ..ticket() };
    let presumed = Ticket { presumed: true, ..ticket() };
    let calm = Circumstances::default();
    let waits = Circumstances { unanswered: true, ..Circumstances::default() };
    let fails = Circumstances { open_episodes: 1, ..Circumstances::default() };
    let known = Circumstances { colleague: Some("Li".into()), ..Circumstances::default() };
    let taken_over = Circumstances { same_cause: Some("T-000002".into()), ..Circumstances::default() };
    let note = |text: &str| Act::Note { text: text.into() };
    let assign = || Act::Assign { to_staff_id: "li".into() };
    let reopen = || Act::Reopen { why: "again".into() };
    let rows = [
        ("an engineer takes", &open, SystemEngineer, Act::Take, &waits, "taken"),
        ("taking twice is once", &mine, SystemEngineer, Act::Take, &waits, ""),
        ("an operator administers, he does not serve", &open, Operator, Act::Take, &waits, "refused: role_refused"),
        ("senior management oversees", &open, SeniorManagement, Act::Take, &waits, "refused: role_refused"),
        ("who responds has taken it", &open, ServiceManager, respond(), &waits, "taken responded"),
        ("who took it responds", &mine, SystemEngineer, respond(), &waits, "responded"),
        ("a further contact is a note", &answered, SystemEngineer, respond(), &calm, "noted"),
        ("a reopened ticket is answered anew", &answered, SystemEngineer, respond(), &waits, "responded"),
        ("an account manager writes down what he heard", &open, AccountManager, note("x"), &calm, "noted"),
        ("an empty note says nothing", &open, AccountManager, note(" \n"), &calm, "refused: text_missing"),
        ("an operator notes nothing", &open, Operator, note("x"), &calm, "refused: role_refused"),
        ("assigned to a colleague", &open, SystemEngineer, assign(), &known, "assigned"),
        ("assigned to nobody known", &open, SystemEngineer, assign(), &calm, "refused: no_such_colleague"),
        ("an engineer raises an impact", &general, SystemEngineer, impact(Interrupted, ""), &calm, "impact_changed"),
        ("an engineer lowers none", &open, SystemEngineer, impact(Slight, "fine"), &calm, "refused: role_refused"),
        ("nor does the service manager", &open, ServiceManager, impact(Slight, "fine"), &calm, "refused: role_refused"),
        (
            "the support manager does, with the customer's word",
            &open,
            SupportManager,
            impact(Slight, "fine"),
            &calm,
            "impact_changed",
        ),
        ("not without it", &open, SupportManager, impact(Slight, " "), &calm, "refused: text_missing"),
        ("a presumption is confirmed", &presumed, SystemEngineer, impact(Interrupted, ""), &calm, "impact_changed"),
        ("what is so already changes nothing", &open, SystemEngineer, impact(Interrupted, ""), &calm, ""),
        ("closed when answered and well", &answered, SystemEngineer, close("done"), &calm, "closed"),
        ("closed without a word", &answered, SystemEngineer, close(""), &calm, "refused: text_missing"),
        ("closed before anybody answered", &mine, SupportManager, close("done"), &waits, "refused: not_answered"),
        ("an engineer closes nothing that fails", &answered, SystemEngineer, close("done"), &fails, "refused: still_failing"),
        ("a manager may", &answered, ServiceManager, close("out of service"), &fails, "closed"),
        ("closing twice is once", &closed, SystemEngineer, close("done"), &calm, ""),
        ("a closed ticket is not taken", &closed, SystemEngineer, respond(), &calm, "refused: ticket_closed"),
        ("a closed ticket is reopened by a person", &closed, SystemEngineer, reopen(), &calm, "reopened"),
        ("not beside another of its cause", &closed, SystemEngineer, reopen(), &taken_over, "refused: cause_is_open"),
        ("an open ticket is open", &open, SystemEngineer, reopen(), &calm, ""),
    ];
    for (sentence, ticket, role, act, circumstances, expected) in rows {
        assert_eq!(kinds(&decide(ticket, &by(role), &act, circumstances)), expected, "{sentence}");
    }
}

#[test]
fn a_refusal_says_what_is_accepted() {
    let refused = decide(&ticket(), &by(Role::Operator), &Act::Take, &Circumstances::default()).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "the role operator does not do this; it takes system_engineer, support_manager or service_manager"
    );
}
