//! Wire messages of version 1 as they stood when it was released: agents in the field speak so for years. A file here is never
//! changed; a new version gets new files beside it. Each must be read, whole, and mean the same when written again.

use std::path::Path;

use mainstay_shared::api::{ErrorBody, WIRE_VERSION};
use mainstay_shared::directive::{Ask, Directive};
use mainstay_shared::enrolment::{EnrolReply, EnrolRequest, JoinString, RenewRequest};
use mainstay_shared::fault::{FaultChangeKind, Level};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::receipt::ReceiptBody;
use mainstay_shared::record::Payload;
use mainstay_shared::report::{ReportReply, ReportRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)).expect("a golden message")
}

/// Reads the message as `T`; everything that stood in it must stand in what `T` writes.
fn read<T: Serialize + DeserializeOwned>(name: &str) -> T {
    let message: T = serde_json::from_str(&text(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let old: Value = serde_json::from_str(&text(name)).expect("JSON");
    let new = serde_json::to_value(&message).expect("written");
    assert_kept(name, &old, &new);
    message
}

fn assert_kept(place: &str, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let place = format!("{place}.{key}");
                assert_kept(&place, value, new.get(key).unwrap_or_else(|| panic!("{place} is lost")));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{place}");
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                assert_kept(&format!("{place}[{i}]"), old, new);
            }
        }
        _ => assert_eq!(old, new, "{place}"),
    }
}

#[test]
fn a_report_of_version_one_is_read_whole() {
    let report: ReportRequest = read("report_request.v1.json");
    assert_eq!((report.version, report.attempt), (1, 7));
    let kinds: Vec<&str> = report
        .records
        .iter()
        .map(|r| match &r.payload {
            Payload::Fault(change) if change.kind == FaultChangeKind::Raised && change.level == Level::Serious => "raised",
            Payload::Fault(_) => "fault",
            Payload::Started(_) => "started",
            Payload::Goodbye(_) => "goodbye",
            Payload::Samples(_) => "samples",
            Payload::Gap(_) => "gap",
            Payload::OpenFaults(_) => "open_faults",
            Payload::Patch(_) => "patch",
            Payload::Test(_) => "test",
        })
        .collect();
    assert_eq!(kinds, ["started", "raised", "fault", "test", "goodbye", "samples", "gap"]);
}

#[test]
fn the_other_messages_of_version_one_are_read_whole() {
    read::<ReportReply>("report_reply.v1.json");
    read::<PollRequest>("poll_request.v1.json");
    read::<PollReply>("poll_reply.v1.json");
    read::<EnrolRequest>("enrol_request.v1.json");
    read::<EnrolReply>("enrol_reply.v1.json");
    read::<RenewRequest>("renew_request.v1.json");
    read::<ReceiptBody>("receipt_body.v1.json");
    read::<ErrorBody>("error_body.v1.json");
    read::<JoinString>("join_string.v1.json");
}

#[test]
fn what_may_be_absent_in_version_one_may_be_absent_for_ever() {
    let report = r#"{"version":1,"epoch":"00112233445566778899aabbccddeeff","attempt":1,"nonce_echo":null,"sent_at":0,
        "sent_mono_ms":0,"records":[{"id":{"epoch":"00112233445566778899aabbccddeeff","lane":"fault","seq":1},"at":0,"mono_ms":0,
        "payload":{"type":"fault","kind":"raised","component":"memory","code":"memory_low","level":"warning","summary":"","at":0}}]}"#;
    serde_json::from_str::<ReportRequest>(report).expect("a report with nothing optional");
}

#[test]
fn the_whole_of_what_is_open_is_read() {
    let payload = r#"{"type":"open_faults","episodes":[{"epoch":"00112233445566778899aabbccddeeff","lane":"fault","seq":2}]}"#;
    let Payload::OpenFaults(open) = serde_json::from_str(payload).expect("read") else { panic!("another kind") };
    assert_eq!(open.episodes[0].seq, 2);
}

#[test]
fn an_older_agent_survives_a_directive_that_it_does_not_know() {
    let directive: Directive =
        serde_json::from_str(r#"{"id":"d","ask":{"kind":"dance","where":"roof"},"expires_at":0}"#).expect("read");
    assert_eq!(directive.ask, Ask::Unknown);
}

#[test]
fn the_wire_is_still_at_the_version_that_these_files_are_of() {
    assert_eq!(WIRE_VERSION, 1, "a new version needs golden files of its own beside these");
}
