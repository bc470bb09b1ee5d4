//! A heartbeat arrives (the request of a long poll): the link's present values, and the directives that were acted on.
//!
//! Runs inside the transaction of a batch. It opens nothing and closes nothing but a silence; waiting happens outside.

use std::collections::BTreeMap;

use mainstay_shared::check::ServiceState;
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::limits::{MAX_SERVICES, MAX_VALUES, is_good_name};
use mainstay_shared::time_source::UnixMs;

use super::faults_arrive::ArrivedFrom;
use super::patch_is_reported::patch_progresses;
use super::report_arrives::{forget_goodbye, hear};
use super::taking::Taking;
use crate::appliances::links::Beat;
use crate::appliances::{Identity, directives, links};

/// Directives that one heartbeat may name as done.
const MAX_DONE: usize = 64;
/// Files on their way that one heartbeat may tell of.
const MAX_PATCHES: usize = 16;

/// Takes one heartbeat of a batch. `false`: the appliance is gone.
pub(crate) async fn heartbeat_arrives(
    taking: &mut Taking<'_>,
    who: &Identity,
    received_at: UnixMs,
    request: &PollRequest,
) -> anyhow::Result<bool> {
    let key = links::key(who);
    let Some(loaded) = taking.links.get_mut(&key) else { return Ok(false) };
    let values: BTreeMap<&String, f64> = request
        .values
        .iter()
        .filter(|(name, _)| is_good_name(name))
        .map(|(name, value)| (name, *value))
        .take(MAX_VALUES)
        .collect();
    let services: BTreeMap<&String, ServiceState> = request
        .services
        .iter()
        .filter(|(name, _)| is_good_name(name))
        .map(|(name, state)| (name, *state))
        .take(MAX_SERVICES)
        .collect();
    taking.changed |= loaded.beats(Beat {
        backlog: i64::try_from(request.backlog).unwrap_or(i64::MAX),
        present_values: serde_json::to_string(&values)?,
        services: serde_json::to_string(&services)?,
    });
    let link = loaded.touch();
    link.clock_offset_ms = request.sent_at.since_ms(received_at);
    link.last_seen_at = link.last_seen_at.max(received_at);
    if loaded.said_goodbye && loaded.link().epoch != request.epoch.as_str() {
        forget_goodbye(taking.tx, &key, loaded).await?;
        taking.changed = true;
    }
    for id in request.done.iter().filter(|id| is_good_name(id)).take(MAX_DONE) {
        directives::done(taking.tx, &key, id, received_at).await?;
    }
    for progress in request.patches.iter().filter(|progress| is_good_name(&progress.offer_id)).take(MAX_PATCHES) {
        taking.changed |= patch_progresses(taking.tx, (&key.0, &key.1), progress, received_at).await?;
    }
    let from = ArrivedFrom { tenant_id: key.0.clone(), appliance_id: key.1.clone(), site_id: who.site_id.clone() };
    hear(taking, &key, &from, received_at).await?;
    Ok(true)
}
