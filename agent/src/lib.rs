//! The agent as a library. The module list is the import order: a module names only what stands above it.
//!
//! The program is [`run`]. The rest of what is public is what the simulation of whole stories drives instead of a real machine
//! (`collector/src/simulation`): the watching story, the start, the spool. It is no interface for others.

mod config;
mod log;
mod lifecycle;
mod atomic_file;
mod pause;
mod helper;
mod probes;
mod checks;
mod faults;
mod spool;
mod uplink;
mod patches;
mod flow;
mod local;
mod daemon;
mod commands;
pub mod parsers;

pub use checks::{Retries, ServiceRound};
pub use commands::run;
pub use config::{Config, ConfigErrors};
pub use flow::report::restate_if_new;
pub use flow::start::{StartKind, announce, judge};
pub use flow::watch::{Current, Story, Watch};
pub use helper::protocol;
pub use probes::aside::Workers;
pub use probes::{ClockReference, Host, Reading};
pub use spool::{Counters, Limits, OpenEpisode, OpenedState, PastStart, Spool, SpoolError, Stats};
