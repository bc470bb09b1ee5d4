//! Appliances: enrolment, certificates, identity, duty, the link to each and its silence.
//!
//! An appliance's identity is its verified client certificate, only (R13). Nothing here decides about tickets.

pub(crate) mod authority;
pub(crate) mod join_tokens;
