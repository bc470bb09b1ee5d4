//! What is taken up, waited for and given up; what is remembered over a restart. Tables over the pure parts, the book on a real disk.

use mainstay_shared::directive::Ask;
use mainstay_shared::patch::{Decision, Offer, PatchKind, PatchStep};

use mainstay_shared::time_source::UnixMs;

use super::*;
use crate::helper::protocol::KnownFile;
use crate::probes::aside::Aside;

const MIB: u64 = 1 << 20;

fn offer(id: char) -> Offer {
    Offer {
        offer_id: id.to_string().repeat(32),
        kind: PatchKind::Patch,
        file: "acme-gateway-2.1.0.mpatch".into(),
        sha256: "a".repeat(64),
        bytes: 10 * MIB,
        product: "acme-gateway".into(),
        version: "2.1.0".into(),
    }
}

fn held(change: impl FnOnce(&mut Held)) -> Held {
    let mut book = Book::default();
    book.hear("d", &Ask::Offered(offer('1')));
    book.with(&offer('1').offer_id, change);
    book.offers.remove(0)
}

#[test]
fn what_is_next_for_a_file() {
    let room = Limits { max_bytes: 100 * MIB, free_bytes: Some(1000 * MIB), others_bytes: 0 };
    let give_up = |why| Next::GiveUp(why);
    let table: &[(&str, Held, Limits, Next)] = &[
        ("an offer is fetched", held(|_| ()), room, Next::Fetch),
        ("one that is here is handed over", held(|held| held.stage = Stage::Complete), room, Next::HandOver),
        ("one that the helper has is left to it", held(|held| held.stage = Stage::Handed), room, Next::Nothing),
        (
            "a name that leads elsewhere is none",
            held(|held| held.offer.file = "../x.mpatch".into()),
            room,
            give_up(GiveUp::NotAnOffer),
        ),
        (
            "an id that is a path is none",
            held(|held| held.offer.offer_id = "../../etc".into()),
            room,
            give_up(GiveUp::NotAnOffer),
        ),
        ("an empty file is none", held(|held| held.offer.bytes = 0), room, give_up(GiveUp::NotAnOffer)),
        ("too large", held(|held| held.offer.bytes = 101 * MIB), room, give_up(GiveUp::TooLarge)),
        ("wrong too often", held(|held| held.tries = 12), room, give_up(GiveUp::TriesUsedUp)),
        ("begun anew for ever", held(|held| held.received_bytes = 30 * MIB), room, give_up(GiveUp::BytesUsedUp)),
        (
            "no room is waited for",
            held(|_| ()),
            Limits { free_bytes: Some(20 * MIB), ..room },
            Next::WaitForRoom { needed_bytes: 26 * MIB },
        ),
        (
            "what is there needs no room",
            held(|held| held.durable_bytes = 8 * MIB),
            Limits { free_bytes: Some(20 * MIB), ..room },
            Next::Fetch,
        ),
        (
            "begun files of other offers are waited for",
            held(|_| ()),
            Limits { others_bytes: 91 * MIB, ..room },
            Next::WaitForRoom { needed_bytes: 10 * MIB },
        ),
        ("there is room beside small ones", held(|_| ()), Limits { others_bytes: 90 * MIB, ..room }, Next::Fetch),
        ("room that is not known is no reason", held(|_| ()), Limits { free_bytes: None, ..room }, Next::Fetch),
    ];
    for (sentence, held, limits, expected) in table {
        assert_eq!(next(held, limits), *expected, "{sentence}");
    }
}

#[test]
fn what_is_told_twice_is_taken_up_once() {
    let mut book = Book::default();
    let one = offer('1');
    book.hear("d1", &Ask::Offered(one.clone()));
    book.hear("d2", &Ask::Offered(one.clone()));
    assert_eq!(book.offers.len(), 1);
    book.forget(&one.offer_id);
    book.hear("d3", &Ask::Offered(one.clone()));
    assert!(book.offers.is_empty(), "it is over");
    let typed = Ask::Decided { offer_id: one.offer_id.clone(), decision: Decision::Approve, code: "123456".into() };
    book.hear("d4", &typed);
    book.typed.clear();
    book.hear("d4", &typed);
    assert!(book.typed.is_empty(), "a code is carried once, so that no try is lost");
}

#[test]
fn an_offer_for_which_there_is_no_place_is_told_back_once() {
    let mut book = Book::default();
    for id in "0123456789abcdef".chars() {
        book.hear("d", &Ask::Offered(offer(id)));
    }
    for _ in 0..2 {
        book.hear("d", &Ask::Offered(offer('x')));
    }
    let told: Vec<_> = book.given_up.iter().map(|given_up| given_up.offer.offer_id.clone()).collect();
    assert_eq!((book.offers.len(), told), (16, vec![offer('x').offer_id]));
    assert!(book.held(&offer('0').offer_id).is_some(), "what is under way stays");
}

#[test]
fn an_offer_taken_back_is_forgotten_before_the_helper_has_it_and_told_to_it_after() {
    let mut book = Book::default();
    let (one, two) = (offer('1'), offer('2'));
    book.hear("d1", &Ask::Offered(one.clone()));
    book.hear("d2", &Ask::Offered(two.clone()));
    book.with(&two.offer_id, |held| held.stage = Stage::Handed);
    book.hear("d3", &Ask::TakenBack { offer_id: one.offer_id.clone() });
    book.hear("d4", &Ask::TakenBack { offer_id: two.offer_id.clone() });
    assert!(book.held(&one.offer_id).is_none());
    assert_eq!(book.taken_back, [two.offer_id]);
}

#[test]
fn a_flood_of_offers_is_bounded() {
    let mut book = Book::default();
    for n in 0..1000 {
        let flood = Offer { offer_id: format!("{n:032x}"), ..offer('1') };
        book.hear(&n.to_string(), &Ask::Offered(flood.clone()));
        book.hear(&n.to_string(), &Ask::TakenBack { offer_id: format!("{n:031x}f") });
        let long = Offer { product: "x".repeat(1 << 20), ..flood.clone() };
        book.hear(&n.to_string(), &Ask::Offered(Offer { offer_id: format!("{n:031x}e"), ..long }));
        book.hear(&n.to_string(), &Ask::Decided { offer_id: flood.offer_id, decision: Decision::Approve, code: "1".into() });
    }
    assert!(serde_json::to_vec(&book).unwrap().len() < 64 << 10);
}

#[tokio::test]
async fn the_book_is_there_after_a_restart_and_a_damaged_one_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(dir.path(), Aside::default()).unwrap();
    keeper.change(|book| book.hear("d", &Ask::Offered(offer('1')))).await.unwrap();
    std::fs::write(keeper.file_of(&offer('1').offer_id), "part").unwrap();
    std::fs::write(keeper.file_of(&offer('2').offer_id), "left over").unwrap();
    let again = Keeper::open(dir.path(), Aside::default()).unwrap();
    assert_eq!(again.book(), keeper.book());
    again.tidy();
    again.change(|book| book.hear("e", &Ask::Offered(offer('3')))).await.unwrap();
    again.change(|book| book.with(&offer('3').offer_id, |held| held.stage = Stage::Handed)).await.unwrap();
    std::fs::write(again.file_of(&offer('3').offer_id), "copied").unwrap();
    assert_eq!(again.others_bytes(&offer('1').offer_id), 6);
    again.tidy();
    assert!(!again.file_of(&offer('3').offer_id).exists(), "the helper has a copy of its own");
    assert!(again.file_of(&offer('1').offer_id).exists() && !again.file_of(&offer('2').offer_id).exists());
    std::fs::write(dir.path().join("patches/book.json"), "{torn").unwrap();
    assert_eq!(Keeper::open(dir.path(), Aside::default()).unwrap().book(), Book::default());
}

#[test]
fn progress_is_news_at_a_new_step_or_another_tenth() {
    let progress = Progress::default();
    let mut changes = progress.changes();
    progress.show("o", PatchStep::Fetching, 11);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    progress.show("o", PatchStep::Fetching, 19);
    progress.show("", PatchStep::Applying, 50);
    assert!(!changes.has_changed().unwrap());
    progress.show("o", PatchStep::Applying, 19);
    assert!(changes.has_changed().unwrap());
    progress.hide("o");
    assert!(progress.shown().is_empty());
}

#[test]
fn an_offer_that_is_given_up_is_told_with_what_went_wrong_last_and_not_taken_up_again() {
    let mut book = Book::default();
    let one = offer('1');
    book.hear("d1", &Ask::Offered(one.clone()));
    book.with(&one.offer_id, |held| held.trouble = "its SHA-256 differs".into());
    book.give_up(&one.offer_id, "too many tries");
    assert!(book.has_words(), "the helper is to hear of it");
    assert_eq!(book.given_up[0].offer, one);
    assert_eq!(book.given_up[0].why, "too many tries; the last time: its SHA-256 differs");
    book.hear("d2", &Ask::Offered(one));
    assert!(book.offers.is_empty(), "the same offer is over; another may come");
}

#[test]
fn a_file_that_waits_for_somebody_costs_no_look_more_than_none() {
    let now = UnixMs(1_000_000_000);
    let file = |step, is_due, opens: &[i64]| KnownFile {
        sha256: String::new(),
        offer_id: None,
        kind: PatchKind::Patch,
        product: String::new(),
        from_version: None,
        to_version: String::new(),
        title: Default::default(),
        notes: Default::default(),
        bytes: 0,
        step,
        reason: Default::default(),
        output: String::new(),
        at: now,
        code: None,
        is_due,
        next_windows: opens.iter().map(|seconds| now.plus(std::time::Duration::from_secs(seconds.unsigned_abs()))).collect(),
    };
    let consent = file(PatchStep::AwaitingConsent, false, &[60]);
    let table = [
        ("nothing there", vec![], 600),
        ("it is over", vec![file(PatchStep::Done, false, &[])], 600),
        ("it waits for consent", vec![consent.clone()], 600),
        ("its window opens in a while", vec![file(PatchStep::AwaitingWindow, false, &[250, 9999])], 250),
        ("its window opens next week", vec![file(PatchStep::AwaitingWindow, false, &[500_000])], 600),
        ("its window opens this moment", vec![file(PatchStep::AwaitingWindow, false, &[0])], 1),
        ("it is due and the appliance is sick", vec![consent, file(PatchStep::AwaitingWindow, true, &[500_000])], 60),
        ("it is being applied", vec![file(PatchStep::Applying, false, &[])], 60),
    ];
    for (what, files, seconds) in table {
        assert_eq!(until_next(&files, now).as_secs(), seconds, "{what}");
    }
}
