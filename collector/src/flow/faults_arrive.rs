//! Faults arrive: changes become episodes, episodes open, join or reopen tickets, tickets get an impact and a clock.
//!
//! Runs inside the transaction that takes the report: all of a report commits together, or nothing. [`Scene`] loads everything
//! first and brings the rules of faults, tickets and severity together.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::RecordId;
use mainstay_shared::time_source::UnixMs;

use super::record::Desk;
use super::scene::Scene;
pub(crate) use super::told::ArrivedFrom;
use super::told::Told;
use crate::audit;
use crate::config::Config;
use crate::db::Conn;
use crate::faults::rules::episode_of;
use crate::faults::{lasted_ms, store as faults};

/// One fault change as the intake took it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArrivedChange {
    /// The record; for `raised` it is the episode's id too.
    pub(crate) record: RecordId,
    /// By the collector's clock: receipt minus the record's age.
    pub(crate) occurred_at: UnixMs,
    pub(crate) change: FaultChange,
}

/// Weighs a customer's open tickets again: what they rest on has changed without a fault, since a member said goodbye.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn weigh_again(tx: &mut Conn, config: &Config, now: UnixMs, tenant_id: &str) -> anyhow::Result<()> {
    let desk = Desk { config, now, actor: audit::SYSTEM };
    Scene::load(tx, desk, tenant_id, BTreeSet::new()).await?.settle(tx, desk).await
}

/// Takes the changes of one report, in order, received at `now`.
///
/// # Errors
/// If the database refuses; the caller's transaction is then to be dropped.
pub(crate) async fn faults_arrive(
    tx: &mut Conn,
    config: &Config,
    now: UnixMs,
    who: &ArrivedFrom,
    changes: Vec<ArrivedChange>,
) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let actor = format!("appliance:{}", who.appliance_id);
    let desk = Desk { config, now, actor: &actor };
    let mut scene = Scene::load(tx, desk, &who.tenant_id, BTreeSet::from([who.appliance_id.clone()])).await?;
    scene.landscape.hears(&who.appliance_id, now);
    let clears: BTreeMap<String, UnixMs> = changes
        .iter()
        .filter(|arrived| arrived.change.kind == FaultChangeKind::Cleared)
        .map(|arrived| (episode_of(&arrived.record, &arrived.change).to_string(), arrived.occurred_at))
        .collect();
    for arrived in &changes {
        let id = episode_of(&arrived.record, &arrived.change).to_string();
        let cleared_at = clears.get(&id).copied();
        let key = &arrived.change.key;
        let known = faults::get(tx, &who.tenant_id, &who.appliance_id, &key.component, &key.code, &id).await?;
        let told = Told {
            who,
            key,
            episode: id,
            level: arrived.change.level,
            summary: &arrived.change.summary,
            grounds: serde_json::to_string(&arrived.change.grounds)?,
            // The first failed try counts, not the last one that settled it (C10).
            began_at: arrived.occurred_at.plus_ms(-lasted_ms(&arrived.change.grounds)),
            occurred_at: arrived.occurred_at,
            source: "agent",
            silent_site: None,
        };
        scene.take(tx, desk, told, arrived.change.kind, known, cleared_at).await?;
    }
    scene.settle(tx, desk).await
}
