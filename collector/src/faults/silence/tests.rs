//! Silence, a sentence per row.

use super::*;

const NOW: UnixMs = UnixMs(1_767_600_000_000); // Monday 08:00 UTC, 16:00 in Shanghai
const AFTER: Duration = Duration::from_secs(300);

fn link(unheard_s: i64) -> QuietLink {
    QuietLink {
        tenant_id: "bank".into(),
        appliance_id: "a".into(),
        site_id: "hall".into(),
        last_seen_at: NOW.plus_ms(-unheard_s * 1000),
        goodbye_at: None,
        expected_back_at: None,
        silent_since_at: None,
        expected_hours: String::new(),
        time_zone: "Asia/Shanghai".into(),
    }
}

fn gone(unheard_s: i64, back_in_s: Option<i64>) -> QuietLink {
    let link = link(unheard_s);
    QuietLink { goodbye_at: Some(link.last_seen_at), expected_back_at: back_in_s.map(|s| NOW.plus_ms(s * 1000)), ..link }
}

fn hours(unheard_s: i64, expected_hours: &str) -> QuietLink {
    QuietLink { expected_hours: expected_hours.into(), ..link(unheard_s) }
}

#[test]
fn each_link_is_judged_with_its_excuse() {
    let rows = [
        ("heard two minutes ago", link(120), Hearing::Heard),
        ("unheard for longer than two polls", link(160), Hearing::Quiet),
        ("unheard for five minutes to the second is not yet silent", link(300), Hearing::Quiet),
        ("unheard for more than five minutes", link(301), Hearing::Silent),
        ("said goodbye for good", gone(99_999, None), Hearing::Excused(Excuse::Goodbye)),
        ("said goodbye and is not yet due back", gone(3_000, Some(60)), Hearing::Excused(Excuse::Goodbye)),
        ("is overdue by less than the grace", gone(3_000, Some(-299)), Hearing::Excused(Excuse::Goodbye)),
        ("is overdue by more", gone(3_000, Some(-301)), Hearing::Silent),
        ("is off at night and it is night there", hours(9_000, "08:00-15:00"), Hearing::Excused(Excuse::OffHours)),
        ("is due since four minutes this day", hours(90_000, "15:56-22:00"), Hearing::Quiet),
        ("is due since six minutes this day", hours(90_000, "15:54-22:00"), Hearing::Silent),
        ("is off at the week's end, and it is Monday", hours(301, "mon-fri 00:00-23:59"), Hearing::Silent),
        ("hours over midnight", hours(301, "22:00-17:00"), Hearing::Silent),
        ("hours that can't be read mean always", hours(301, "nine to five"), Hearing::Silent),
    ];
    for (sentence, link, expected) in rows {
        assert_eq!(hearing(&link, NOW, AFTER), expected, "{sentence}");
    }
}

#[test]
fn a_shift_over_midnight_of_friday_lasts_into_saturday() {
    let saturday_one_in_shanghai = UnixMs(NOW.0 + (4 * 24 + 9) * 3_600_000);
    let link = QuietLink { last_seen_at: UnixMs(saturday_one_in_shanghai.0 - 400_000), ..hours(0, "mon-fri 22:00-06:00") };
    assert_eq!(hearing(&link, saturday_one_in_shanghai, AFTER), Hearing::Silent);
}

fn customers(count: usize, unheard_s: i64) -> Vec<QuietLink> {
    (0..count).map(|n| QuietLink { tenant_id: format!("c{n}"), ..link(unheard_s) }).collect()
}

#[test]
fn the_silence_is_ours_when_more_than_a_fifth_of_the_customers_fell_silent_together() {
    let ours = |silent_customers, customers| Whose::Ours { silent_customers, customers };
    let rows = [
        ("one of one is his own", customers(1, 301), 1, false, Whose::Customers),
        ("two of ten are a fifth, not more", customers(2, 301), 10, false, Whose::Customers),
        ("three of ten are more", customers(3, 301), 10, false, ours(3, 10)),
        ("three that fell silent an hour ago are not together with anything", customers(3, 3600), 10, false, Whose::Customers),
        ("what was judged ours stays ours while they are silent", customers(3, 3600), 10, true, ours(3, 10)),
    ];
    for (sentence, silent, customers, already, expected) in rows {
        let silent: Vec<&QuietLink> = silent.iter().collect();
        assert_eq!(whose(&silent, customers, already, NOW, AFTER), expected, "{sentence}");
    }
    let same: Vec<QuietLink> = (0..9).map(|n| QuietLink { appliance_id: n.to_string(), ..link(301) }).collect();
    let same: Vec<&QuietLink> = same.iter().collect();
    assert_eq!(whose(&same, 4, false, NOW, AFTER), Whose::Customers, "nine appliances of one customer are one customer");
}

#[test]
fn a_site_is_silent_when_every_one_of_several_is() {
    let site = ("bank".to_owned(), "hall".to_owned());
    let two = [link(301), QuietLink { appliance_id: "b".into(), ..link(200) }];
    for (appliances, expected) in [(2, 1), (3, 0)] {
        assert_eq!(silent_sites(&two, &BTreeMap::from([(site.clone(), appliances)])).len(), expected);
    }
    assert!(silent_sites(&two[..1], &BTreeMap::from([(site, 1)])).is_empty(), "one appliance is no site");
}

#[test]
fn hours_are_accepted_only_as_they_are_read() {
    let rows = [
        ("08:00-18:00", true),
        ("mon-fri 08:00-18:00", true),
        ("22:00-06:00", true),
        ("08:00-08:00", false),
        ("8-18", false),
        ("sat-sun 08:00-18:00", false),
        ("24:00-25:00", false),
        ("", false),
    ];
    for (hours, readable) in rows {
        assert_eq!(can_read_hours(hours), readable, "{hours:?}");
    }
}
