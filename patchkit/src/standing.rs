//! Which versions of what was signed offline stand together: a root that follows from the trusted one, top targets signed by its keys,
//! and for each product that they delegate to a role signed by theirs.
//!
//! Whoever names versions for others (the collector, for its snapshot) asks here first: a client that is led to a text which does not
//! verify is stuck there. Dates are not judged: what has expired, clients refuse themselves. It gives no authority to anything.

use mainstay_shared::time_source::UnixMs;
use sigstore_tuf::{Delegations, Metadata, Role, Root, Targets, Timestamp, TrustedMetadataSet};

use crate::crypto::install_crypto;
use crate::metadata::{
    Accept, advance_root, delegated, delegates_nothing, demand_by_root, demand_threshold, refused, stays_within,
};
use crate::refusal::Refusal;
use crate::verify::demand_short_lived;

/// The root that others follow from.
pub struct Roots {
    trusted: TrustedMetadataSet,
}

impl Roots {
    /// Begins with the one that is trusted.
    ///
    /// # Errors
    /// If it is no root signed by its own keys.
    pub fn begin(root: &[u8]) -> Result<Self, Refusal> {
        install_crypto();
        let trusted = TrustedMetadataSet::from_root(root).map_err(|error| refused(&error))?;
        Ok(Self { trusted })
    }

    /// The version that was reached.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.trusted.root().version
    }

    /// When it ends.
    #[must_use]
    pub fn expires_at(&self) -> UnixMs {
        ends(self.trusted.root())
    }

    /// Takes the next one.
    ///
    /// # Errors
    /// If it is not exactly one version on, or not signed by the keys before and its own.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        Metadata::<Root>::from_slice(bytes).map_err(|error| refused(&error))?;
        advance_root(&mut self.trusted, bytes, Accept::Ed25519Only).map_err(|error| refused(&error))
    }

    /// Top targets that are said to be of `version`.
    ///
    /// # Errors
    /// If the root's keys did not sign them, or they are of another version.
    pub fn top(&self, bytes: &[u8], version: u64) -> Result<Top, Refusal> {
        let targets = Metadata::<Targets>::from_slice(bytes).map_err(|error| refused(&error))?;
        demand_by_root(&targets, self.trusted.root(), "targets", Accept::Ed25519Only).map_err(|error| refused(&error))?;
        demand_version(targets.signed(), version)?;
        let expires_at = ends(targets.signed());
        Ok(Top { expires_at, delegations: targets.into_signed().delegations })
    }

    /// The versions that a timestamp tells: its own, and that of the snapshot that it names.
    ///
    /// # Errors
    /// If the keys that the root names for it did not sign it.
    pub fn online(&self, bytes: &[u8]) -> Result<(u64, u64), Refusal> {
        let timestamp = Metadata::<Timestamp>::from_slice(bytes).map_err(|error| refused(&error))?;
        // What an online client believes.
        demand_by_root(&timestamp, self.trusted.root(), "timestamp", Accept::Declared).map_err(|error| refused(&error))?;
        let told = timestamp.signed();
        Ok((told.version, told.snapshot_meta().map_or(0, |snapshot| snapshot.version)))
    }
}

/// Top targets that the root vouches for.
pub struct Top {
    /// When they end.
    pub expires_at: UnixMs,
    delegations: Option<Delegations>,
}

impl Top {
    /// The roles that they delegate to: `<product>-offline`.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.delegations.iter().flat_map(|delegations| delegations.roles.iter().map(|role| role.name.as_str()))
    }

    /// A product's role that is said to be of `version`: when it ends.
    ///
    /// # Errors
    /// If an appliance would not believe it.
    pub fn role(&self, name: &str, bytes: &[u8], version: u64) -> Result<UnixMs, Refusal> {
        let role = Metadata::<Targets>::from_slice(bytes).map_err(|error| refused(&error))?;
        let none = || Refusal::Signature(format!("the targets delegate to no role {name}, or to it more than once"));
        let delegations = self.delegations.as_ref().ok_or_else(none)?;
        let (delegation, keys) = delegated(delegations, name).ok_or_else(none)?;
        demand_threshold(&role, &delegations.keys, &keys, name, Accept::Ed25519Only).map_err(|error| refused(&error))?;
        demand_version(role.signed(), version)?;
        let product = name.strip_suffix("-offline").ok_or_else(|| Refusal::Signature(format!("{name}: no product's role")))?;
        if !stays_within(delegation, product) || !delegates_nothing(role.signed()) {
            return Err(Refusal::Signature(format!("{name} may sign more than {product}-*, or hands on to others")));
        }
        demand_short_lived(role.signed(), name)?;
        Ok(ends(role.signed()))
    }
}

fn demand_version<T: Role>(text: &T, version: u64) -> Result<(), Refusal> {
    if text.version() != version {
        return Err(Refusal::Format(format!("it says version {}, its name {version}", text.version())));
    }
    Ok(())
}

fn ends<T: Role>(text: &T) -> UnixMs {
    UnixMs(text.expires().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authoring::{Named, timestamp_text};
    use crate::sample::{PRODUCT, Vendor, program_action, sign};

    #[test]
    fn only_what_the_right_keys_signed_stands() {
        let (good, action) = (Vendor::default(), program_action("restart-web-1", &["/bin/true"]));
        let roots = Roots::begin(&good.root_json().expect("a root")).expect("its own keys signed it");
        let header = good.header(&action).expect("a header");
        let top = roots.top(&header.targets, 1).expect("the root's keys signed them");
        let role = format!("{PRODUCT}-offline");
        assert_eq!(top.roles().collect::<Vec<_>>(), [role.as_str()]);
        assert_eq!(top.role(&role, &header.role, 1), Ok(good.expires_at));
        let other_top = Vendor { targets: vec![17, 18, 19], ..Vendor::default() }.header(&action).expect("a header").targets;
        assert!(matches!(roots.top(&other_top, 1), Err(Refusal::Signature(_))), "other keys");
        let one = Vendor { threshold: 1, ..Vendor::default() }.header(&action).expect("a header");
        assert!(matches!(roots.top(&one.targets, 1), Err(Refusal::Signature(_))), "one of two");
        assert!(matches!(top.role(&role, &one.role, 1), Err(Refusal::Signature(_))), "one of two");
        assert!(matches!(top.role("acme-offline", &header.role, 1), Err(Refusal::Signature(_))), "not delegated to");
        assert!(matches!(top.role(&role, &header.role, 2), Err(Refusal::Format(_))), "another version than its name");
        assert!(matches!(roots.top(b"torn", 1), Err(Refusal::Format(_))), "torn");
    }

    #[test]
    fn only_a_timestamp_of_the_online_keys_tells_versions() {
        let roots = Roots::begin(&Vendor::default().root_json().expect("a root")).expect("good");
        let text = || timestamp_text(7, Vendor::default().expires_at, (4, Named::of(b"{}")));
        assert_eq!(roots.online(&sign(text(), &[32]).expect("signed")), Ok((7, 4)));
        for (sentence, keys) in [("nobody signed it", &[][..]), ("the snapshot's key", &[31]), ("a signer of roots", &[1, 2])] {
            let signed = sign(text(), keys).expect("signed");
            assert!(matches!(roots.online(&signed), Err(Refusal::Signature(_))), "{sentence}");
        }
        assert!(matches!(roots.online(b"torn"), Err(Refusal::Format(_))));
    }

    #[test]
    fn roots_follow_one_by_one_and_a_bad_one_ends_the_way() {
        let mut roots = Roots::begin(&Vendor::default().root_json().expect("a root")).expect("good");
        let root = |root_version, root| Vendor { root_version, root, ..Vendor::default() }.root_json().expect("a root");
        assert!(roots.advance(&root(3, vec![1, 2, 3])).is_err(), "one is missing");
        assert!(roots.advance(&root(2, vec![4, 5, 6])).is_err(), "the old keys did not sign");
        roots.advance(&root(2, vec![1, 2, 3])).expect("follows");
        assert_eq!((roots.version(), roots.expires_at()), (2, Vendor::default().expires_at));
    }
}
