//! Hands the build time to the agent: the lowest value its clock may take (DESIGN, Time). `SOURCE_DATE_EPOCH` is honoured.
//!
//! The static program relocates itself at its start: with packed relocations (ELF's RELR, which musl knows since 1.2.4) it reads a
//! thirtieth of the table, and fewer pages count as its memory.

#[expect(clippy::disallowed_methods, reason = "a build script has no time source to take")]
fn main() {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    println!("cargo:rustc-env=MAINSTAY_BUILT_AT_S={}", given.unwrap_or(now));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
