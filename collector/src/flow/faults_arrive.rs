//! Faults arrive: changes become episodes, episodes open, join or reopen tickets, tickets get an impact and a clock.
//!
//! Runs inside the transaction that takes the report; all of a report commits together, or nothing.

use mainstay_shared::fault::FaultChange;
use mainstay_shared::ids::RecordId;
use mainstay_shared::time_source::UnixMs;

use crate::config::Config;
use crate::db::Conn;

/// Whose report it is, from the certificate (R13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrivedFrom {
    pub(crate) tenant_id: String,
    pub(crate) appliance_id: String,
    pub(crate) site_id: String,
}

/// One fault change as the intake took it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArrivedChange {
    /// The record; for `raised` it is the episode's id too.
    pub(crate) record: RecordId,
    /// By the collector's clock: receipt minus the record's age.
    pub(crate) occurred_at: UnixMs,
    pub(crate) change: FaultChange,
}

/// Takes the changes of one report, in order, received at `now`.
///
/// # Errors
/// If the database refuses; the caller's transaction is then to be dropped.
pub(crate) async fn faults_arrive(
    _tx: &mut Conn,
    _config: &Config,
    _now: UnixMs,
    _who: &ArrivedFrom,
    _changes: Vec<ArrivedChange>,
) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
