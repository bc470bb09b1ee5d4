//! Faults that the collector finds itself: a cloned identity, a certificate renewal that waits, an appliance that is heard again.
//!
//! They take the same way as an agent's faults. Their tickets have the source `internal`: the vendor's engineers are asked first.

use std::collections::BTreeSet;

use mainstay_shared::fault::{FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::time_source::UnixMs;

use super::record::Desk;
use super::scene::Scene;
use super::told::{ArrivedFrom, Told};
use crate::audit;
use crate::config::Config;
use crate::db::{Conn, mark_change};
use crate::faults::{CODE_SILENT, COMPONENT_LINK, links};
use crate::tickets::Ticket;

/// Raises `code` on `component` of an appliance. Raising what is open already changes nothing. The code says what it is in every
/// language: `summary` is empty, or figures.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn raise(
    tx: &mut Conn,
    config: &Config,
    now: UnixMs,
    who: &ArrivedFrom,
    component: &str,
    code: &str,
    summary: &str,
) -> anyhow::Result<()> {
    let found = Found { component, code, summary, grounds: FaultGrounds::default(), source: "internal" };
    raise_found(tx, config, now, who, found).await.map(drop)
}

/// A fault that the collector raises for an appliance.
pub(crate) struct Found<'a> {
    pub(crate) component: &'a str,
    pub(crate) code: &'a str,
    pub(crate) summary: &'a str,
    pub(crate) grounds: FaultGrounds,
    /// Of the ticket, if one opens: `internal`, or `agent` where the appliance told of it.
    pub(crate) source: &'static str,
}

/// Raises it, with its grounds; answers the ticket that holds it.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn raise_found(
    tx: &mut Conn,
    config: &Config,
    now: UnixMs,
    who: &ArrivedFrom,
    found: Found<'_>,
) -> anyhow::Result<Option<Ticket>> {
    let desk = Desk { config, now, actor: audit::SYSTEM };
    let key = FaultKey::new(found.component, found.code);
    let mut scene = Scene::load(tx, desk, &who.tenant_id, BTreeSet::from([who.appliance_id.clone()])).await?;
    if !scene.is_open(&who.appliance_id, &key) {
        let told = Told {
            who,
            key: &key,
            episode: format!("collector:{now}"),
            level: Level::Serious,
            summary: found.summary,
            grounds: serde_json::to_string(&found.grounds)?,
            began_at: now,
            occurred_at: now,
            source: found.source,
            silent_site: None,
        };
        scene.take(tx, desk, told, FaultChangeKind::Raised, None, None).await?;
        scene.settle(tx, desk).await?;
    }
    Ok(scene.ticket_of(&who.appliance_id, &key))
}

/// Clears it; `summary` is a name of `cleared_why` in the texts. Clearing what is not open changes nothing.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn clear(
    tx: &mut Conn,
    config: &Config,
    now: UnixMs,
    who: &ArrivedFrom,
    component: &str,
    code: &str,
    summary: &str,
) -> anyhow::Result<()> {
    let desk = Desk { config, now, actor: audit::SYSTEM };
    let mut scene = Scene::load(tx, desk, &who.tenant_id, BTreeSet::from([who.appliance_id.clone()])).await?;
    scene.clear_all(tx, desk, &who.appliance_id, &FaultKey::new(component, code), summary).await?;
    scene.settle(tx, desk).await
}

/// An appliance was heard: its silence, if it was silent, is over. The caller calls it when `links.silent_since_at` was set.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn appliance_is_back(tx: &mut Conn, config: &Config, now: UnixMs, who: &ArrivedFrom) -> anyhow::Result<()> {
    let desk = Desk { config, now, actor: audit::SYSTEM };
    links::is_back(tx, &who.tenant_id, &who.appliance_id).await?;
    mark_change(tx).await?;
    let mut scene = Scene::load(tx, desk, &who.tenant_id, BTreeSet::from([who.appliance_id.clone()])).await?;
    scene.landscape.hears(&who.appliance_id, now);
    scene.clear_all(tx, desk, &who.appliance_id, &FaultKey::new(COMPONENT_LINK, CODE_SILENT), "heard_again").await?;
    scene.settle(tx, desk).await
}
