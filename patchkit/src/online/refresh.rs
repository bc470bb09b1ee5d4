//! The order of a refresh: roots one at a time, then timestamp, snapshot, top targets; nothing is stored before it was verified.

use mainstay_shared::time_source::UnixMs;
use sigstore_tuf::{Error, Metadata, Role, Snapshot, Targets, Timestamp};

use super::floors::Floors;
use super::{
    Client, MOST_ROOT_BYTES, MOST_ROOTS, MOST_SNAPSHOT_BYTES, MOST_TARGETS_BYTES, MOST_TIMESTAMP_BYTES, OnlineError, Repository,
    refused,
};
use crate::metadata::{Accept, advance_root, demand_by_root, moment};

pub(super) async fn all<R: Repository>(client: &mut Client<R>, now: UnixMs) -> Result<(), OnlineError> {
    roots(client).await?;
    client.trusted.check_root_expired(moment(now)).map_err(refused("root.json"))?;
    let floors = Floors::load(&client.store)?;
    from_store(client, now)?;
    timestamp(client, &floors, now).await?;
    snapshot(client, &floors, now).await?;
    targets(client, &floors, now).await?;
    Floors::keep(&client.store, &client.trusted)
}

async fn roots<R: Repository>(client: &mut Client<R>) -> Result<(), OnlineError> {
    for _ in 0..MOST_ROOTS {
        let Some(next) = client.trusted.root().version.checked_add(1) else { return Ok(()) };
        let name = format!("{next}.root.json");
        let Some(bytes) = client.repository.metadata(&name, MOST_ROOT_BYTES).await? else { return Ok(()) };
        advance_root(&mut client.trusted, &bytes, Accept::Declared).map_err(refused(&name))?;
        client.store.save("root.json", &bytes)?;
    }
    Err(OnlineError::Refused { what: "root.json".into(), why: format!("more than {MOST_ROOTS} new versions") })
}

/// What was trusted before is a floor for what comes; what doesn't verify any more is passed over. Dates don't matter for a floor.
fn from_store<R: Repository>(client: &mut Client<R>, now: UnixMs) -> Result<(), OnlineError> {
    let always = jiff::Timestamp::MIN;
    if let Some(bytes) = client.store.load("timestamp.json")?
        && signed::<R, Timestamp>(client, &bytes, "timestamp").is_ok()
        && client.trusted.update_timestamp(&bytes, always).is_ok()
        && let Some(bytes) = client.store.load("snapshot.json")?
        && signed::<R, Snapshot>(client, &bytes, "snapshot").is_ok()
        && client.trusted.update_snapshot(&bytes, always).is_ok()
        && let Some(bytes) = client.store.load("targets.json")?
        && signed::<R, Targets>(client, &bytes, "targets").is_ok()
    {
        // An expired or outdated one is fetched anew; its floor is the snapshot's word.
        client.trusted.update_targets(&bytes, moment(now)).map(|_| ()).unwrap_or_default();
    }
    Ok(())
}

async fn timestamp<R: Repository>(client: &mut Client<R>, floors: &Floors, now: UnixMs) -> Result<(), OnlineError> {
    let what = "timestamp.json";
    let bytes = fetch(client, what, MOST_TIMESTAMP_BYTES).await?;
    let new = signed::<R, Timestamp>(client, &bytes, "timestamp").map_err(refused(what))?;
    floors.demand("timestamp", new.signed().version, client.trusted.root())?;
    if let Some(snapshot) = new.signed().snapshot_meta() {
        floors.demand("snapshot", snapshot.version, client.trusted.root())?;
    }
    match client.trusted.update_timestamp(&bytes, moment(now)) {
        Ok(()) => client.store.save(what, &bytes)?,
        Err(Error::EqualVersion { .. }) => {}
        Err(error) => return Err(refused(what)(error)),
    }
    client.trusted.check_timestamp_expired(moment(now)).map_err(refused(what))
}

async fn snapshot<R: Repository>(client: &mut Client<R>, floors: &Floors, now: UnixMs) -> Result<(), OnlineError> {
    let what = "snapshot.json";
    let pinned = client.trusted.timestamp().and_then(Timestamp::snapshot_meta).map_or(0, |snapshot| snapshot.version);
    let is_current = client.trusted.snapshot().is_some_and(|held| held.version == pinned && !held.is_expired(moment(now)));
    if is_current {
        return Ok(());
    }
    let bytes = fetch(client, &versioned(client, pinned, "snapshot"), MOST_SNAPSHOT_BYTES).await?;
    let new = signed::<R, Snapshot>(client, &bytes, "snapshot").map_err(refused(what))?;
    let targets = new.signed().meta.get("targets.json").map_or(0, |targets| targets.version);
    floors.demand("targets", targets, client.trusted.root())?;
    client.trusted.update_snapshot(&bytes, moment(now)).map_err(refused(what))?;
    Ok(client.store.save(what, &bytes)?)
}

async fn targets<R: Repository>(client: &mut Client<R>, floors: &Floors, now: UnixMs) -> Result<(), OnlineError> {
    let what = "targets.json";
    client.trusted.check_snapshot_expired(moment(now)).map_err(refused("snapshot.json"))?;
    let pinned = client.trusted.snapshot().and_then(|snapshot| snapshot.meta.get(what)).map_or(0, |targets| targets.version);
    floors.demand("targets", pinned, client.trusted.root())?;
    let held = client.trusted.targets_role("targets");
    if held.is_some_and(|held| held.version == pinned && !held.is_expired(moment(now))) {
        return Ok(());
    }
    // A new snapshot may name the same targets as the one before.
    if let Some(bytes) = client.store.load(what)?
        && signed::<R, Targets>(client, &bytes, "targets").is_ok()
        && client.trusted.update_targets(&bytes, moment(now)).is_ok()
    {
        return Ok(());
    }
    let bytes = fetch(client, &versioned(client, pinned, "targets"), MOST_TARGETS_BYTES).await?;
    signed::<R, Targets>(client, &bytes, "targets").map_err(refused(what))?;
    client.trusted.update_targets(&bytes, moment(now)).map_err(refused(what))?;
    Ok(client.store.save(what, &bytes)?)
}

/// Signed by as many different keys as the root demands.
fn signed<R: Repository, T: Role>(client: &Client<R>, bytes: &[u8], role: &str) -> Result<Metadata<T>, Error> {
    let metadata = Metadata::<T>::from_slice(bytes)?;
    demand_by_root(&metadata, client.trusted.root(), role, Accept::Declared)?;
    Ok(metadata)
}

/// The name under which the repository keeps a version of a role's file.
pub(super) fn versioned<R: Repository>(client: &Client<R>, version: u64, encoded_role: &str) -> String {
    if client.trusted.root().consistent_snapshot {
        format!("{version}.{encoded_role}.json")
    } else {
        format!("{encoded_role}.json")
    }
}

pub(super) async fn fetch<R: Repository>(client: &Client<R>, name: &str, most_bytes: u64) -> Result<Vec<u8>, OnlineError> {
    let missing = || OnlineError::Refused { what: name.to_owned(), why: "the repository does not have it".into() };
    client.repository.metadata(name, most_bytes).await?.ok_or_else(missing)
}
