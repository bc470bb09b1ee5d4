//! The agent's commands and exit codes.
//!
//! The module list is the import order: a module names only what stands above it.
mod config;
mod atomic_file;
mod probes;
mod checks;
mod faults;
mod spool;
mod flow;
fn main() {}
