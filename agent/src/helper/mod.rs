//! The helper: the one part of the agent that changes the machine. Root, no network, short-lived, fixed verbs; it verifies everything itself
//! and believes nobody who speaks to it (R24).
//!
//! It must never take a path from a caller, never answer a consent or rollback to anyone but root (a code typed elsewhere is judged here),
//! and never write outside quarantine before a file was verified.

pub mod protocol;
