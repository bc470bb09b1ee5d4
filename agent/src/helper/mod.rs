//! The helper: the one part of the agent that changes the machine. Root, no network, short-lived, fixed verbs; it verifies everything itself
//! and believes nobody who speaks to it (R24).
//!
//! It must never take a path from a caller, never answer a consent or rollback to anyone but root (a code typed elsewhere is judged here),
//! and never write outside quarantine before a file was verified.

pub mod protocol;
mod window;
mod settings;
mod disk;
mod state;
mod store;
mod rules;
mod redact;
mod pipeline;
mod readback;
mod executor;
mod tree;
mod engine;
mod probation;
mod back;
mod renewal;
mod packages;
mod actions;
mod documents;
mod quarantine;
mod view;
mod verbs;
mod deciding;
mod again;
mod proceed;
mod lines;
mod server;

pub(crate) use executor::serve as serve_executor;
pub(crate) use lines::Conversation;
pub(crate) use server::{check, serve};
pub(crate) use settings::{DEFAULT_PATH, Settings};

#[cfg(test)]
mod tests;
