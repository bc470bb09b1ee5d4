//! A join string; see `agent/src/parsers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mainstay_agent::parsers::join_string(bytes);
});
