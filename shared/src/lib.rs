//! What crosses the wire between the agent and the collector, and nothing else: no I/O, no async, no storage.
//!
//! The module list is the import order: a module names only what stands above it.
//! Wire types are versioned (`api::WIRE_VERSION`); a field is added with `#[serde(default)]` and never changes meaning,
//! so that an old agent stays readable (golden messages in `tests/golden`).

pub mod time_source;
pub mod ids;
pub mod limits;
pub mod severity;
pub mod check;
pub mod fault;
pub mod patch;
pub mod patch_receipt;
pub mod record;
pub mod directive;
pub mod receipt;
pub mod report;
pub mod heartbeat;
pub mod enrolment;
pub mod api;
