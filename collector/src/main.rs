//! `mainstay-collector`: commands and exit codes. The module list is the path of the data and the import order: a module names
//! only what stands above it.
#![recursion_limit = "256"]

mod db;
mod customers;
mod words;
mod config;
mod lifecycle;
mod audit;
mod appliances;
mod intake;
mod faults;
mod tickets;
mod clocks;
mod retention;
mod entitlements;
mod releases;
mod notices;
mod flow;
mod metrics;
mod agent_api;
mod api;
mod web;
mod router;
mod server;
mod commands;
#[cfg(test)]
mod simulation;

rust_i18n::i18n!("locales");

/// A report is some three hundred small allocations on one thread, freed on another: measured, see docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The second installation of a provider is the only way to fail here, and the first is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    commands::run(std::env::args_os())
}
