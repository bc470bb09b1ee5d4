//! Faults that the collector finds itself: a cloned identity, a certificate renewal that waits, an appliance that is heard again.
//!
//! They take the same way as an agent's faults; their tickets have the source `internal`.

use mainstay_shared::time_source::UnixMs;

use super::faults_arrive::ArrivedFrom;
use crate::config::Config;
use crate::db::Conn;

/// Raises `code` on `component` of an appliance. Raising what is open already changes nothing.
pub(crate) async fn raise(
    _tx: &mut Conn,
    _config: &Config,
    _now: UnixMs,
    _who: &ArrivedFrom,
    _component: &str,
    _code: &str,
    _summary: &str,
) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}

/// Clears it. Clearing what is not open changes nothing.
pub(crate) async fn clear(
    _tx: &mut Conn,
    _config: &Config,
    _now: UnixMs,
    _who: &ArrivedFrom,
    _component: &str,
    _code: &str,
    _summary: &str,
) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}

/// An appliance was heard: its silence, if it was silent, is over. The caller calls it when `links.silent_since_at` was set.
pub(crate) async fn appliance_is_back(_tx: &mut Conn, _config: &Config, _now: UnixMs, _who: &ArrivedFrom) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
