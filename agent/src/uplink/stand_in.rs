//! t
pub(crate) struct StandIn;
