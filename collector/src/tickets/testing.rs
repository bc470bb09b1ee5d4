//! A ticket for tables of rules. Test code only.
//! It is open, critical, nobody's.

use mainstay_shared::severity::{Attribution, BusinessImpact, Severity};
use mainstay_shared::time_source::UnixMs;

use super::{Ticket, TicketState};

/// `T-000001` of the customer `bank`, about `service:web` of appliance `a`.
pub(crate) fn ticket() -> Ticket {
    Ticket {
        tenant_id: "bank".into(),
        ticket_id: "T-000001".into(),
        number: 1,
        source: "agent".into(),
        state: TicketState::Open,
        cause: "service:a:web".into(),
        site_id: "hall".into(),
        appliance_id: "a".into(),
        component: "service:web".into(),
        code: "service_down".into(),
        summary: "web does not answer".into(),
        impact: BusinessImpact::Interrupted,
        severity: Severity::Critical,
        presumed: false,
        reason: "service_down".into(),
        grounds: "{}".into(),
        attribution: Attribution::Unknown,
        assigned_to: None,
        taken_by: None,
        responded_by: None,
        opened_at: UnixMs(0),
        fault_at: UnixMs(0),
        responded_at: None,
        recovered_at: None,
        closed_at: None,
        changed_at: UnixMs(0),
    }
}
