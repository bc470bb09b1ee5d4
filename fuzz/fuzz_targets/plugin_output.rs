//! What a Nagios plugin printed; see `agent/src/parsers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mainstay_agent::parsers::plugin_output(bytes);
});
