//! Segments of the spool; see `agent/src/parsers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mainstay_agent::parsers::spool_records(bytes);
});
