//! From a target's name to who may sign it: delegations in pre-order, each role once, a terminating one ends the search (TUF 5.6.7).

use std::collections::{BTreeSet, VecDeque};

use mainstay_shared::time_source::UnixMs;
use sigstore_tuf::{Error, Metadata, Targets};

use super::refresh::{fetch, versioned};
use super::store::encoded;
use super::{Client, Located, MOST_ROLES, MOST_TARGETS_BYTES, OnlineError, Repository, refused};
use crate::metadata::{Accept, demand_threshold, moment};

/// A role to be asked, and who delegates to it.
type Step = (String, String);

pub(super) async fn locate<R: Repository>(
    client: &mut Client<R>,
    target: &str,
    now: UnixMs,
) -> Result<Option<Located>, OnlineError> {
    let mut visited = BTreeSet::new();
    let mut to_visit: VecDeque<Step> = VecDeque::from([("targets".to_owned(), "root".to_owned())]);
    while let Some((role, delegator)) = to_visit.pop_front() {
        if visited.len() >= MOST_ROLES {
            break;
        }
        if visited.contains(&role) || (role != "targets" && !load(client, &role, &delegator, now).await?) {
            continue;
        }
        visited.insert(role.clone());
        let Some(targets) = client.trusted.targets_role(&role) else {
            return Err(refused("targets.json")(Error::NotRefreshed));
        };
        if let Some(found) = targets.target(target) {
            return Located::new(target, found, client.trusted.root().consistent_snapshot).map(Some);
        }
        let (children, terminated) = matching(targets, &role, target)?;
        if terminated {
            to_visit.clear();
        }
        for child in children.into_iter().rev() {
            to_visit.push_front(child);
        }
    }
    Ok(None)
}

/// The manifests without a payload that `role` has signed: documents and actions.
pub(super) async fn manifests<R: Repository>(
    client: &mut Client<R>,
    role: &str,
    now: UnixMs,
) -> Result<Vec<(String, String)>, OnlineError> {
    let delegated = client.trusted.targets_role("targets").and_then(|targets| targets.delegations.as_ref());
    let known = delegated.is_some_and(|delegations| delegations.roles.iter().any(|other| other.name == role));
    if !known || !load(client, role, "targets", now).await? {
        return Ok(Vec::new());
    }
    let Some(targets) = client.trusted.targets_role(role) else { return Ok(Vec::new()) };
    let alone = targets.targets.iter().filter_map(|(name, target)| {
        let file = name.strip_suffix(".manifest.json")?;
        let has_payload = targets.targets.contains_key(&format!("{file}.payload"));
        (!has_payload).then(|| Some((file.to_owned(), target.hashes.get("sha256")?.clone())))?
    });
    Ok(alone.collect())
}

/// The delegations of `role` that cover `target`, and whether one of them ends the search.
fn matching(targets: &Targets, role: &str, target: &str) -> Result<(Vec<Step>, bool), OnlineError> {
    let mut children = Vec::new();
    for child in targets.delegations.iter().flat_map(|delegations| &delegations.roles) {
        let reserved = matches!(child.name.as_str(), "root" | "timestamp" | "snapshot" | "targets");
        if reserved || !child.matches_path(target).map_err(refused(role))? {
            continue;
        }
        children.push((child.name.clone(), role.to_owned()));
        if child.terminating {
            return Ok((children, true));
        }
    }
    Ok((children, false))
}

/// Makes a delegated role trusted; false if the snapshot doesn't know it.
async fn load<R: Repository>(client: &mut Client<R>, role: &str, delegator: &str, now: UnixMs) -> Result<bool, OnlineError> {
    let what = format!("{role}.json");
    if client.trusted.targets_role(role).is_some() {
        // Reached by another way: its signatures must satisfy this delegator too.
        client.trusted.verify_delegated_targets(role, delegator, moment(now)).map_err(refused(&what))?;
        return Ok(true);
    }
    let Some(pinned) = client.trusted.snapshot().and_then(|snapshot| snapshot.meta.get(&what)).map(|pin| pin.version) else {
        return Ok(false);
    };
    let file = format!("{}.json", encoded(role));
    if let Some(bytes) = client.store.load(&file)?
        && take(client, &bytes, role, delegator, now).is_ok()
    {
        return Ok(true);
    }
    let bytes = fetch(client, &versioned(client, pinned, &encoded(role)), MOST_TARGETS_BYTES).await?;
    take(client, &bytes, role, delegator, now).map_err(refused(&what))?;
    client.store.save(&file, &bytes)?;
    Ok(true)
}

fn take<R: Repository>(client: &mut Client<R>, bytes: &[u8], role: &str, delegator: &str, now: UnixMs) -> Result<(), Error> {
    let metadata = Metadata::<Targets>::from_slice(bytes)?;
    let delegations = client.trusted.targets_role(delegator).and_then(|targets| targets.delegations.as_ref());
    let named =
        delegations.and_then(|delegations| Some((delegations, delegations.roles.iter().find(|other| other.name == role)?)));
    let (delegations, delegation) = named.ok_or_else(|| Error::UnknownRole(role.to_owned()))?;
    demand_threshold(&metadata, &delegations.keys, &delegation.role_keys(), role, Accept::Declared)?;
    client.trusted.update_delegated_targets(bytes, role, delegator, moment(now)).map(|_| ())
}
