//! Silence falls: appliances that are not heard open tickets, a site one, half the world none but ours.
//!
//! Level-triggered: each pass compares what is silent now with what tickets hold already, so that it may run at any time, anywhere.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_shared::fault::{FaultChangeKind, FaultKey, Level};
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::collector_faults::{appliance_is_back, clear, raise};
use super::record::Desk;
use super::scene::Scene;
use super::told::{ArrivedFrom, Told};
use crate::audit;
use crate::customers::VENDOR_TENANT;
use crate::db::{Conn, Turn, transact};
use crate::faults::silence::{Hearing, QuietLink, Whose, hearing, silent_sites, start_grace, whose};
use crate::faults::{CODE_MASS_SILENCE, CODE_SILENT, COMPONENT_LINK, links, store as faults};
use crate::tickets::rules::SilentSite;

/// Which appliances a site has that are silent together: (customer, site) to appliances.
type Sites = BTreeMap<(String, String), BTreeSet<String>>;

/// One pass, as things stood at `now`.
pub(super) async fn once(world: &World, now: UnixMs) -> anyhow::Result<()> {
    let silence_after = world.config.silence_after;
    let half_ms = i64::try_from(silence_after.as_millis() / 2).unwrap_or(i64::MAX);
    let mut conn = world.db.read().await?;
    let Some(started_at) = links::collector_started_at(&mut conn).await? else { return Ok(()) };
    if now < started_at.plus(start_grace(silence_after)) {
        return Ok(());
    }
    let quiet = links::quiet(&mut conn, now.plus_ms(-half_ms)).await?;
    let ours_open = faults::open_of_tenant(&mut conn, VENDOR_TENANT).await?;
    let is_ours_already = ours_open.iter().any(|episode| episode.code == CODE_MASS_SILENCE);
    drop(conn);
    let (back, away): (Vec<_>, Vec<_>) =
        quiet.iter().partition(|link| link.silent_since_at.is_some_and(|at| link.last_seen_at > at));
    for link in back {
        let who = from(link);
        transact!(world.db, Turn::Intake, |tx| { appliance_is_back(tx, &world.config, now, &who).await });
    }
    let judged: Vec<(&QuietLink, Hearing)> = away.iter().map(|link| (*link, hearing(link, now, silence_after))).collect();
    let unheard: Vec<&QuietLink> =
        judged.iter().filter(|(_, hearing)| matches!(hearing, Hearing::Quiet | Hearing::Silent)).map(|(link, _)| *link).collect();
    let unticketed: Vec<&QuietLink> = unheard.iter().copied().filter(|link| link.silent_since_at.is_none()).collect();
    let told_apart = !unticketed.is_empty() || is_ours_already;
    let customers = if told_apart { links::customers_heard(&mut *world.db.read().await?).await? } else { 0 };
    let any_silent = judged.iter().any(|(link, hearing)| *hearing == Hearing::Silent && link.silent_since_at.is_none());
    match whose(&unticketed, customers, is_ours_already, now, silence_after) {
        Whose::Ours { silent_customers, customers } if any_silent || is_ours_already => {
            ours(world, now, silent_customers, customers).await
        }
        Whose::Ours { .. } => Ok(()),
        Whose::Customers => {
            if is_ours_already {
                // Those who are still on their way back get the time that they get after the collector's own start.
                return ours_is_over(world, now).await;
            }
            let whose_sites = unheard.iter().map(|link| (link.tenant_id.clone(), link.site_id.clone())).collect();
            let per_site = match any_silent {
                true => links::per_site(&mut *world.db.read().await?, &whose_sites).await?,
                false => BTreeMap::new(),
            };
            let sites = silent_sites(unheard.iter().copied(), &per_site);
            theirs(world, now, &judged, &sites).await
        }
    }
}

async fn ours(world: &World, now: UnixMs, silent_customers: usize, customers: usize) -> anyhow::Result<()> {
    let summary = format!("{silent_customers} / {customers}");
    transact!(world.db, Turn::Intake, |tx| {
        raise(tx, &world.config, now, &vendor(), COMPONENT_LINK, CODE_MASS_SILENCE, &summary).await
    });
    Ok(())
}

async fn ours_is_over(world: &World, now: UnixMs) -> anyhow::Result<()> {
    transact!(world.db, Turn::Intake, |tx| {
        links::collector_starts(tx, now).await?;
        clear(tx, &world.config, now, &vendor(), COMPONENT_LINK, CODE_MASS_SILENCE, "most_heard_again").await
    });
    Ok(())
}

/// Customers' own silences, one transaction a customer.
async fn theirs(world: &World, now: UnixMs, judged: &[(&QuietLink, Hearing)], sites: &Sites) -> anyhow::Result<()> {
    let mut by_customer: BTreeMap<&str, Vec<&QuietLink>> = BTreeMap::new();
    let is_new = |link: &QuietLink| link.silent_since_at.is_none();
    for (link, _) in judged.iter().filter(|(link, hearing)| is_new(link) && *hearing == Hearing::Silent) {
        by_customer.entry(&link.tenant_id).or_default().push(link);
    }
    for (link, _) in judged.iter().filter(|(link, hearing)| is_new(link) && *hearing == Hearing::Quiet) {
        // Silent a few seconds later than the rest of its site: the same silence, told at once.
        let site_key = (link.tenant_id.clone(), link.site_id.clone());
        if let Some(links) = by_customer.get_mut(link.tenant_id.as_str())
            && sites.contains_key(&site_key)
            && links.iter().any(|silent| silent.site_id == link.site_id)
        {
            links.push(link);
        }
    }
    for (tenant_id, links) in by_customer {
        transact!(world.db, Turn::Intake, |tx| { falls(tx, world, now, tenant_id, &links, sites).await });
    }
    Ok(())
}

async fn falls(
    tx: &mut Conn,
    world: &World,
    now: UnixMs,
    tenant_id: &str,
    silent: &[&QuietLink],
    sites: &Sites,
) -> anyhow::Result<()> {
    let mut marked = Vec::new();
    for link in silent {
        if links::mark_silent(tx, link, now).await? {
            marked.push(*link);
        }
    }
    let desk = Desk { config: &world.config, now, actor: audit::SYSTEM };
    let about = marked.iter().map(|link| link.appliance_id.clone()).collect();
    let mut scene = Scene::load(tx, desk, tenant_id, about).await?;
    let key = FaultKey::new(COMPONENT_LINK, CODE_SILENT);
    for link in marked {
        let site = sites.get(&(link.tenant_id.clone(), link.site_id.clone()));
        let silent_site = site.map(|appliances| SilentSite { site_id: link.site_id.clone(), appliances: appliances.clone() });
        let episode = format!("silence:{}", link.last_seen_at);
        let known = faults::get(tx, tenant_id, &link.appliance_id, COMPONENT_LINK, CODE_SILENT, &episode).await?;
        let told = Told {
            who: &from(link),
            key: &key,
            episode,
            level: Level::Serious,
            summary: "",
            grounds: "{}".to_owned(),
            began_at: link.last_seen_at,
            occurred_at: link.last_seen_at,
            source: "silence",
            silent_site: silent_site.as_ref(),
        };
        scene.take(tx, desk, told, FaultChangeKind::Raised, known, None).await?;
    }
    scene.settle(tx, desk).await
}

fn from(link: &QuietLink) -> ArrivedFrom {
    ArrivedFrom { tenant_id: link.tenant_id.clone(), appliance_id: link.appliance_id.clone(), site_id: link.site_id.clone() }
}

fn vendor() -> ArrivedFrom {
    ArrivedFrom { tenant_id: VENDOR_TENANT.to_owned(), appliance_id: String::new(), site_id: String::new() }
}
