//! Tables for the rules on single records.

use mainstay_shared::fault::{FaultChangeKind, FaultGrounds, FaultKey, Level};
use ring::rand::SystemRandom;

use super::*;

#[test]
fn every_place_in_a_lane() {
    type Row = (&'static str, u64, u64, &'static [(u64, u64)], Place);
    let rows: [Row; 9] = [
        ("the first", 0, 1, &[], Place::Next),
        ("the next", 7, 8, &[], Place::Next),
        ("again", 7, 7, &[], Place::Before),
        ("long ago", 7, 1, &[], Place::Before),
        ("one is missing", 7, 9, &[], Place::AfterHoles(vec![(8, 8)])),
        ("what is missing is explained", 7, 12, &[(8, 11)], Place::Next),
        ("explained in part", 7, 12, &[(9, 10)], Place::AfterHoles(vec![(8, 8), (11, 11)])),
        ("explained at the end", 7, 12, &[(10, 40)], Place::AfterHoles(vec![(8, 9)])),
        ("explained twice", 7, 12, &[(8, 9), (9, 11)], Place::Next),
    ];
    for (sentence, mark, seq, gaps, expected) in rows {
        assert_eq!(place(mark, seq, gaps), expected, "{sentence}");
    }
}

proptest::proptest! {
    #[test]
    fn holes_and_gaps_together_cover_what_lies_between(mark in 0_u64..20, ahead in 1_u64..30, gaps in proptest::collection::vec((1_u64..40, 0_u64..10), 0..5)) {
        let gaps: Vec<(u64, u64)> = gaps.into_iter().map(|(first, more)| (first, first + more)).collect();
        let seq = mark + ahead;
        let holes = match place(mark, seq, &gaps) { Place::AfterHoles(holes) => holes, _ => Vec::new() };
        for between in mark + 1..seq {
            let inside = |ranges: &[(u64, u64)]| ranges.iter().filter(|(a, b)| *a <= between && between <= *b).count();
            let (explained, missing) = (inside(&gaps), inside(&holes));
            proptest::prop_assert_eq!(missing, usize::from(explained == 0));
        }
    }
}

fn made(record: &Record) -> Made<'_> {
    Made { epoch: &record.id.epoch, at: record.at, mono_ms: record.mono_ms }
}

fn epoch() -> Epoch {
    Epoch::random(&SystemRandom::new())
}

fn fault(epoch: &Epoch, component: &str, summary: &str) -> Record {
    let change = FaultChange {
        kind: FaultChangeKind::Raised,
        key: FaultKey::new(component, "service_down"),
        episode: None,
        level: Level::Serious,
        summary: summary.to_owned(),
        grounds: FaultGrounds::default(),
        at: UnixMs(0),
        present_at_start: false,
    };
    let id = RecordId { epoch: epoch.clone(), lane: Lane::Fault, seq: 1 };
    Record { id, at: UnixMs(50_000), mono_ms: 4_000, payload: Payload::Fault(change) }
}

#[test]
fn a_records_age_is_monotonic_within_its_epoch_and_never_in_the_future() {
    let (own, older) = (epoch(), epoch());
    let frame = Frame { received_at: UnixMs(100_000), epoch: own.clone(), sent_mono_ms: 6_500 };
    assert_eq!(occurred_at(&frame, made(&fault(&own, "a", ""))), UnixMs(97_500), "whatever the agent's wall clock says");
    assert_eq!(occurred_at(&frame, made(&fault(&older, "a", ""))), UnixMs(50_000), "an older epoch is believed its wall clock");
    let mut ahead = fault(&older, "a", "");
    ahead.at = UnixMs(900_000);
    assert_eq!(occurred_at(&frame, made(&ahead)), UnixMs(100_000), "but not into the future");
    let mut odd = fault(&own, "a", "");
    odd.mono_ms = u64::MAX;
    assert_eq!(occurred_at(&frame, made(&odd)), UnixMs(100_000));
}

#[test]
fn hostile_text_is_cleaned_and_what_can_not_be_taken_is_refused_with_its_reason() {
    let epoch = epoch();
    let Ok(Payload::Fault(clean_one)) = clean(&fault(&epoch, "service:web", "a\u{202E}b\0c"), 100) else { panic!("refused") };
    assert_eq!(clean_one.summary, "a\u{FFFD}b\u{FFFD}c");
    let long_name = "x".repeat(200);
    let mut zero = fault(&epoch, "a", "");
    zero.id.seq = 0;
    let mut lane = fault(&epoch, "a", "");
    lane.id.lane = Lane::Sample;
    let mut range = fault(&epoch, "a", "");
    range.payload = Payload::Gap(Gap { from_seq: 9, to_seq: 3, why: "x".into(), count: 1 });
    let rows = [
        ("a name of 200 characters", clean(&fault(&epoch, &long_name, ""), 100), Unfit::Name("component")),
        ("a name with a line break", clean(&fault(&epoch, "a\nb", ""), 100), Unfit::Name("component")),
        ("a record of a megabyte", clean(&fault(&epoch, "a", ""), 1 << 20), Unfit::TooLarge(1 << 20)),
        ("number 0", clean(&zero, 100), Unfit::Number(0)),
        ("a fault among the samples", clean(&lane, 100), Unfit::Lane("sample")),
        ("a range that ends before it begins", clean(&range, 100), Unfit::Range),
    ];
    for (sentence, got, expected) in rows {
        assert_eq!(got.expect_err(sentence), expected, "{sentence}");
    }
}

#[test]
fn another_record_under_the_same_id_gets_the_same_id_of_its_own_each_time() {
    let id = RecordId { epoch: epoch(), lane: Lane::Fault, seq: 5 };
    let own = id_of_its_own(&id, "h");
    assert_ne!(own, id);
    assert_eq!(own, id_of_its_own(&id, "h"));
    assert_ne!(own, id_of_its_own(&id, "other"));
}
