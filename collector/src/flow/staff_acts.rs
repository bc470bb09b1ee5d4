//! What a member of staff does to a ticket: one act, checked by `tickets::acts`, recorded, told.
//!
//! Callers (API, console, commands) hand over who acts; whether he may is decided here and answered with a typed reason.

use mainstay_shared::severity::BusinessImpact;

use super::World;
use crate::tickets::Ticket;
use crate::tickets::acts::{Act, By, Refused};

/// Does one act to a ticket. Doing again what is already so changes nothing and is no error.
///
/// # Errors
/// The outer error is the database's; the inner says why the act was refused.
pub(crate) async fn act(_world: &World, _by: &By, _ticket_id: &str, _act: Act) -> anyhow::Result<Result<Ticket, Refused>> {
    anyhow::bail!("not built yet")
}

/// What a customer said by telephone, mail or web, as the engineer wrote it down (C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CustomerRequest {
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    /// The appliance that it is about, if known; else empty.
    pub(crate) appliance_id: String,
    /// A detailed description of the fault (C9).
    pub(crate) summary: String,
    /// The customer's answer to "is your business interrupted?".
    pub(crate) impact: BusinessImpact,
}

/// Opens a ticket for a customer who called.
///
/// # Errors
/// As [`act`].
pub(crate) async fn open_for_customer(
    _world: &World,
    _by: &By,
    _request: CustomerRequest,
) -> anyhow::Result<Result<Ticket, Refused>> {
    anyhow::bail!("not built yet")
}
