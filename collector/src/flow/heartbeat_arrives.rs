//! A heartbeat arrives (the request of a long poll): the link's present values, and the directives that were acted on.
//!
//! Runs inside the transaction of a batch. It opens and closes nothing but a silence, and the fault that an agent whose disk
//! refuses it can't report itself; waiting happens outside.

use std::collections::BTreeMap;

use mainstay_shared::check::ServiceState;
use mainstay_shared::heartbeat::{PollRequest, VALUE_NOT_RECORDING_S};
use mainstay_shared::limits::{MAX_SERVICES, MAX_VALUES, is_good_name};
use mainstay_shared::time_source::UnixMs;

use super::collector_faults;
use super::faults_arrive::ArrivedFrom;
use super::patch_is_reported::patch_progresses;
use super::report_arrives::{forget_goodbye, hear};
use super::taking::Taking;
use crate::appliances::links::{Beat, LinkKey};
use crate::appliances::{Identity, directives, links};

/// Directives that one heartbeat may name as done.
const MAX_DONE: usize = 64;
/// The code of the fault that an agent which can record nothing raises, on the component `agent`.
pub(crate) const CODE_NOT_RECORDING: &str = "agent_not_recording";
/// It is raised when the agent has recorded nothing for so long.
const NOT_RECORDING_AFTER_S: f64 = 300.0;
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
    judge_recording(taking, &key, &from, received_at, request).await?;
    hear(taking, &key, &from, received_at).await?;
    Ok(true)
}

/// Nobody else can tell the vendor: an agent that records nothing reports nothing, not even what waits.
async fn judge_recording(
    taking: &mut Taking<'_>,
    key: &LinkKey,
    from: &ArrivedFrom,
    now: UnixMs,
    request: &PollRequest,
) -> anyhow::Result<()> {
    let lasts_s = request.values.get(VALUE_NOT_RECORDING_S);
    let Some(loaded) = taking.links.get_mut(key) else { return Ok(()) };
    let was = std::mem::replace(&mut loaded.was_not_recording, lasts_s.is_some());
    match lasts_s {
        Some(span) if *span >= NOT_RECORDING_AFTER_S => {
            collector_faults::raise(taking.tx, taking.config, now, from, "agent", CODE_NOT_RECORDING, "").await
        }
        None if was => {
            collector_faults::clear(taking.tx, taking.config, now, from, "agent", CODE_NOT_RECORDING, "records_again").await
        }
        Some(_) | None => Ok(()),
    }
}
