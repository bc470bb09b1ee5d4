//! Thresholds over distinct keys, the root chain, and the path from a root to a product's role.
//!
//! The metadata core counts key *names*; a name is free to choose, so one key under two names would count twice. Here the key itself is
//! counted (R3). Nothing here reads a clock, and nothing is kept.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mainstay_shared::time_source::UnixMs;
use sigstore_tuf::{Delegations, Error, Key, Metadata, Role, RoleKeys, Root, Targets, TrustedMetadataSet};
use sigstore_types::SignatureBytes;

use crate::refusal::Refusal;

/// Which signature algorithms count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Ed25519 with a raw key in hex: what our own files are signed with.
    Ed25519Only,
    /// Whatever the root declares and [`crate::crypto`] knows: the online client, which gives no authority.
    Declared,
}

/// Demands `role_keys.threshold` good signatures by that many different keys.
pub(crate) fn demand_threshold<T: Role>(
    metadata: &Metadata<T>,
    keys: &BTreeMap<String, Key>,
    role_keys: &RoleKeys,
    role: &str,
    accept: Accept,
) -> Result<(), Error> {
    metadata.verify_threshold(keys, role_keys, role)?;
    let authorised: BTreeSet<&str> = role_keys.keyids.iter().map(String::as_str).collect();
    let mut signers = BTreeSet::new();
    for signature in metadata.signatures().iter().filter(|signature| authorised.contains(signature.keyid.as_str())) {
        let Some(key) = keys.get(&signature.keyid).filter(|key| accept == Accept::Declared || is_plain_ed25519(key)) else {
            continue;
        };
        let Ok(bytes) = hex::decode(&signature.sig) else { continue };
        if key.verify(metadata.signed_canonical(), &SignatureBytes::new(bytes)).is_ok() {
            signers.insert(material(key));
        }
    }
    if signers.len() < role_keys.threshold {
        return Err(Error::ThresholdNotMet { role: role.to_owned(), found: signers.len(), threshold: role_keys.threshold });
    }
    Ok(())
}

fn is_plain_ed25519(key: &Key) -> bool {
    let public = &key.keyval.public;
    key.keytype == "ed25519" && key.scheme == "ed25519" && public.len() == 64 && public.chars().all(|c| c.is_ascii_hexdigit())
}

/// The key itself, however it is written.
fn material(key: &Key) -> Vec<u8> {
    let public = key.keyval.public.trim();
    let body: String = public.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let bytes = hex::decode(public).ok().or_else(|| STANDARD.decode(&body).ok()).unwrap_or_else(|| body.into_bytes());
    // An Ed25519 key in PEM is 12 bytes of wrapping and the 32 that the hex form has alone.
    if key.scheme == "ed25519" { bytes[bytes.len().saturating_sub(32)..].to_vec() } else { bytes }
}

/// Demands a role's threshold by the keys that a root names for it.
pub(crate) fn demand_by_root<T: Role>(metadata: &Metadata<T>, root: &Root, role: &str, accept: Accept) -> Result<(), Error> {
    let role_keys = root.role(role).ok_or_else(|| Error::UnknownRole(role.to_owned()))?;
    demand_threshold(metadata, &root.keys, role_keys, role, accept)
}

/// Takes the next root: exactly one version on, signed by the old keys and by its own.
pub(crate) fn advance_root(trusted: &mut TrustedMetadataSet, bytes: &[u8], accept: Accept) -> Result<(), Error> {
    let next = Metadata::<Root>::from_slice(bytes)?;
    demand_by_root(&next, trusted.root(), "root", accept)?;
    demand_by_root(&next, next.signed(), "root", accept)?;
    trusted.update_root(bytes)
}

/// The keys that a delegation lets sign for `role`, if it delegates to it exactly once.
pub(crate) fn delegated<'d>(delegations: &'d Delegations, role: &str) -> Option<(&'d sigstore_tuf::DelegatedRole, RoleKeys)> {
    let mut found = delegations.roles.iter().filter(|candidate| candidate.name == role);
    let delegation = found.next().filter(|_| found.next().is_none())?;
    Some((delegation, delegation.role_keys()))
}

/// The paths of a delegation to a product's role: every pattern begins with `<product>-`, in one folder, without hash bins.
pub(crate) fn stays_within(delegation: &sigstore_tuf::DelegatedRole, product: &str) -> bool {
    let start = format!("{product}-");
    delegation.path_hash_prefixes.is_none()
        && delegation.paths.as_ref().is_some_and(|paths| paths.iter().all(|path| path.starts_with(&start) && !path.contains('/')))
}

/// What a metadata error means for a file.
pub(crate) fn refused(error: &Error) -> Refusal {
    match error {
        Error::Expired { role, expires } => Refusal::Expired(format!("{expires} ({role})")),
        Error::Rollback { .. } => Refusal::Rollback(error.to_string()),
        Error::Malformed(_) | Error::Json(_) | Error::NonIntegerNumber => Refusal::Format(error.to_string()),
        _ => Refusal::Signature(error.to_string()),
    }
}

/// A moment as the metadata core counts it; out of its range: its end.
pub(crate) fn moment(at: UnixMs) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX })
}

/// Demands that a role is still valid.
pub(crate) fn demand_unexpired<T: Role>(role: &T, name: &str, now: UnixMs) -> Result<(), Refusal> {
    if role.is_expired(moment(now)) {
        return Err(Refusal::Expired(format!("{} ({name})", role.expires())));
    }
    Ok(())
}

/// Whether a role signs nothing for others.
pub(crate) fn delegates_nothing(targets: &Targets) -> bool {
    targets.delegations.as_ref().is_none_or(|delegations| delegations.roles.is_empty())
}
