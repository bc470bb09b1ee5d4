//! Who is told: one row a sentence.

use mainstay_shared::severity::BusinessImpact;

use super::*;
use crate::customers::Language;
use crate::notices::testing::{contact, staff, ticket};

fn serving(username: &str, role: Role) -> Serving {
    Serving { staff: staff(username, role, Language::Zh), role }
}

fn full_house() -> People {
    let all = [
        ("eng", Role::SystemEngineer),
        ("sup", Role::SupportManager),
        ("svc", Role::ServiceManager),
        ("boss", Role::SeniorManagement),
        ("acc", Role::AccountManager),
    ];
    People {
        serving: all.iter().map(|(name, role)| serving(name, *role)).collect(),
        staff: all.iter().map(|(name, role)| staff(name, *role, Language::Zh)).collect(),
        contacts: vec![contact("wang", None), contact("branch", Some("branch"))],
    }
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|one| one.recipient.name.as_str()).collect()
}

#[test]
fn the_right_people_are_told_of_each_kind() {
    use Severity::{Critical, General};
    let table: [(&str, Kind, Severity, &[&str]); 13] = [
        (
            "a critical ticket goes to engineer, support and service manager, and the contact",
            Kind::Opened,
            Critical,
            &["eng", "sup", "svc", "wang"],
        ),
        ("a general one spares the service manager", Kind::Opened, General, &["eng", "sup", "wang"]),
        ("an upgrade is told as a critical ticket", Kind::Upgraded, Critical, &["eng", "sup", "svc", "wang"]),
        ("so is one that came back", Kind::Reopened, Critical, &["eng", "sup", "svc", "wang"]),
        ("a warned clock hurries the staff and spares the customer", Kind::Warned, General, &["eng", "sup"]),
        ("a critical one hurries the service manager too", Kind::Warned, Critical, &["eng", "sup", "svc"]),
        ("a broken promise goes up", Kind::Missed, General, &["sup", "svc", "boss"]),
        ("a broken promise goes up, critical or not", Kind::Missed, Critical, &["sup", "svc", "boss"]),
        ("the customer learns who took it", Kind::Taken, Critical, &["wang"]),
        ("and who responded", Kind::Responded, General, &["wang"]),
        ("recovery asks the customer and tells the staff", Kind::Recovered, General, &["eng", "sup", "wang"]),
        ("recovery of a critical one does not wake the service manager", Kind::Recovered, Critical, &["eng", "sup", "wang"]),
        ("the customer learns that it closed", Kind::Closed, General, &["wang"]),
    ];
    for (sentence, kind, severity, expected) in table {
        assert_eq!(names(&whom(kind, severity, "main", &full_house())), expected, "{sentence}");
    }
}

#[test]
fn a_contact_of_one_site_hears_of_that_site_only() {
    assert_eq!(names(&whom(Kind::Taken, Severity::General, "branch", &full_house())), ["wang", "branch"]);
}

#[test]
fn a_role_that_nobody_fills_for_the_customer_falls_to_all_who_have_it() {
    let people = People { serving: Vec::new(), contacts: Vec::new(), ..full_house() };
    let told = whom(Kind::Opened, Severity::General, "main", &people);
    assert_eq!(names(&told), ["eng", "sup"]);
    assert_eq!(told[0].why, Why::NobodyElse(Role::SystemEngineer));
}

#[test]
fn a_disabled_account_is_never_told_and_the_operator_is_the_last_resort() {
    let mut gone = staff("eng", Role::SystemEngineer, Language::Zh);
    gone.disabled_at = Some(UnixMs(1));
    let operator = staff("op", Role::Operator, Language::Zh);
    let people = People { serving: Vec::new(), staff: vec![gone, operator], contacts: vec![contact("wang", None)] };
    let told = whom(Kind::Opened, Severity::Critical, "main", &people);
    assert_eq!(names(&told), ["wang", "op"]);
    assert_eq!(told[1].why, Why::LastResort);
}

#[test]
fn a_person_with_two_roles_gets_one_mail() {
    let people =
        People { serving: vec![serving("li", Role::SystemEngineer), serving("li", Role::SupportManager)], ..People::default() };
    assert_eq!(whom(Kind::Opened, Severity::General, "main", &people).len(), 1);
}

#[test]
fn what_was_over_before_it_was_reported_is_left_to_the_digest_and_a_lowered_impact_is_not_told() {
    let (open, impact) = (ticket(1, BusinessImpact::Slight), BusinessImpact::Slight);
    let opened = |already_recovered| TicketEvent::Opened {
        impact,
        presumed: false,
        reason: String::new(),
        summary: String::new(),
        already_recovered,
    };
    assert_eq!(kind_of(&opened(true), &open), None);
    assert_eq!(kind_of(&opened(false), &open), Some(Kind::Opened));
    let changed = |from, to| TicketEvent::ImpactChanged {
        from,
        to,
        presumed: false,
        reason: String::new(),
        why: String::new(),
        customer_word: String::new(),
    };
    assert_eq!(kind_of(&changed(impact, BusinessImpact::Interrupted), &open), Some(Kind::Upgraded));
    assert_eq!(kind_of(&changed(BusinessImpact::Interrupted, impact), &open), None);
    assert_eq!(kind_of(&changed(impact, BusinessImpact::Severe), &open), None);
}

#[test]
fn a_mail_is_tried_soon_then_seldom_and_for_three_days() {
    let (created, day_ms) = (UnixMs(0), 86_400_000);
    for (tries, now_ms, expected) in [
        (1, 0, Retry::At(UnixMs(15_000))),
        (2, 0, Retry::At(UnixMs(30_000))),
        (7, 0, Retry::At(UnixMs(600_000))),
        (400, 2 * day_ms, Retry::At(UnixMs(2 * day_ms + 600_000))),
        (400, 3 * day_ms, Retry::GivenUp),
        (2, 9 * day_ms, Retry::At(UnixMs(9 * day_ms + 30_000))),
    ] {
        assert_eq!(retry(created, tries, UnixMs(now_ms)), expected, "{tries} tries at {now_ms}");
    }
}
