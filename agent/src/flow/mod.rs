//! The stories of the agent: what happens, in order. Stages are passive; here they are put together.
//!
//! One short file per thing that happens; the list is their import order. A story loads, lets a pure rule decide, and stores; it
//! must never hold a rule of its own.

pub(crate) mod watch;
pub(crate) mod contact;
pub(crate) mod alarm;
pub(crate) mod start;
pub(crate) mod goodbye;
pub(crate) mod report;
pub(crate) mod patch;
pub(crate) mod fetch;
pub(crate) mod poll;
pub(crate) mod renewal;
#[cfg(test)]
mod tests;
