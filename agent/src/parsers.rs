//! What of the agent reads bytes from outside, gathered for the fuzz targets (`fuzz/`) and the tests here. Nothing else uses it.
//!
//! Every parser is total (R20): it answers or refuses, and never panics. What is read and written again must be the same.

use mainstay_shared::directive::Directive;
use mainstay_shared::enrolment::{EnrolReply, JoinString};
use mainstay_shared::heartbeat::{PollReply, PollRequest};
use mainstay_shared::record::Record;
use mainstay_shared::report::{ReportReply, ReportRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checks::read_plugin_output;
use crate::config::Config;
use crate::spool::{read_segments, segment_of};

/// Two segments cut out of `bytes`: as they stand, and as the bodies of good frames (a line each, its first byte the kind).
/// Returns how many records were found.
pub fn spool_records(bytes: &[u8]) -> usize {
    let (fault, sample) = bytes.split_at(bytes.len() / 2);
    let frames: Vec<(u8, &[u8])> =
        bytes.split(|b| *b == b'\n').filter_map(|line| line.split_first()).map(|(kind, body)| (kind & 7, body)).collect();
    let segment = segment_of(&frames);
    let inputs = [(bytes, &[][..]), (fault, sample), (&segment, &segment)];
    inputs.into_iter().map(|(fault, sample)| read_segments(fault, sample).0).sum()
}

/// Every message that crosses the wire in either direction.
pub fn wire_messages(bytes: &[u8]) {
    same_again::<Record>(bytes);
    same_again::<ReportRequest>(bytes);
    same_again::<ReportReply>(bytes);
    same_again::<PollRequest>(bytes);
    same_again::<PollReply>(bytes);
    same_again::<Directive>(bytes);
    same_again::<EnrolReply>(bytes);
}

/// Reads `bytes` as a `T`; what was read must read back from what it is written as.
fn same_again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&read), "reads back as it was");
}

/// The text of an `agent.toml`.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::from_text(text) {
        Ok(_) => {}
        Err(errors) => assert!(!errors.to_string().is_empty(), "a refusal says why"),
    }
}

/// A join string, as it is pasted.
pub fn join_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(join) = text.parse::<JoinString>() {
        assert_eq!(join.to_secret_text().parse::<JoinString>().as_ref(), Ok(&join), "reads back as it was");
    }
}

/// What a Nagios plugin printed.
pub fn plugin_output(bytes: &[u8]) {
    let (text, perf_data) = read_plugin_output(&String::from_utf8_lossy(bytes));
    assert!(!text.contains('\n') && !perf_data.contains('\n'), "one line each");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const EPOCH: &str = "abababababababababababababababab";

    /// Bodies as the spool writes them, with numbers that it never would.
    fn body() -> impl Strategy<Value = String> {
        let seq = prop_oneof![0u64..9, Just(u64::MAX), Just(u64::MAX - 1), Just(u64::MAX >> 1), any::<u64>()];
        (0u8..5, seq.clone(), seq.clone(), seq, any::<bool>()).prop_map(|(what, a, b, c, is_fault)| {
            let lane = if is_fault { "fault" } else { "sample" };
            let id = format!(r#"{{"epoch":"{EPOCH}","lane":"{lane}","seq":{a}}}"#);
            let marks = format!(r#"{{"acked":{a},"last":{b},"sent":{c}}}"#);
            match what {
                0 => format!(r#"{{"id":{id},"at":1,"mono_ms":1,"payload":{{"type":"gap","from_seq":{b},"to_seq":{c},"why":"x","count":{c}}}}}"#),
                1 => format!(r#"{{"id":{id},"at":1,"mono_ms":1,"payload":{{"type":"test","mark":"m","note":"n"}}}}"#),
                2 => format!(r#"{{"acks":[{id}],"nonce":null,"collector_epoch":null}}"#),
                3 => format!("[{id}]"),
                _ => format!(
                    r#"{{"epochs":[{{"epoch":"{EPOCH}","fault":{marks},"sample":{marks}}}],"nonce":null,"collector_epoch":null,"open":[],"starts":[],"counters":{{"dropped":{a},"poison":{b},"corrupt_ranges":{c},"corrupt_records":{a}}}}}"#
                ),
            }
        })
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_frames_make_reading_a_spool_panic(
            frames in vec((1u8..8, body()), 0..12), noise in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(),
        ) {
            let lines: Vec<String> = frames.iter().map(|(kind, body)| format!("{}{body}", char::from(b'0' + kind))).collect();
            let mut bytes = lines.join("\n").into_bytes();
            spool_records(&bytes);
            let cut = at.index(bytes.len() + 1);
            drop(bytes.splice(cut..cut, noise.iter().copied()));
            spool_records(&bytes);
            spool_records(&noise);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "(?s).{0,300}", bytes in vec(any::<u8>(), 0..300)) {
            for input in [text.as_bytes(), &bytes] {
                wire_messages(input);
                config(input);
                join_string(input);
                plugin_output(input);
            }
        }

        #[test]
        fn no_change_of_a_good_message_or_configuration_makes_its_parser_panic(
            change in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), which in any::<prop::sample::Index>(),
        ) {
            let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
            let mut files: Vec<_> = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.push(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/agent/agent.toml").into());
            files.sort();
            let mut bytes = std::fs::read(which.get(&files)).unwrap();
            for (at, byte) in change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            wire_messages(&bytes);
            config(&bytes);
            join_string(&bytes);
        }
    }
}
