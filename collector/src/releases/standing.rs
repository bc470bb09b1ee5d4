//! What was signed offline and stands together: the newest root that follows from the trusted one, the newest targets signed by its keys
//! whose products' roles are signed by theirs, and those roles. Dates are told, not judged.
//!
//! A snapshot names these, and only these: a text that merely parses would freeze every client that is led to it. What does not verify is
//! passed over for the version before, and told as a problem.

use std::collections::BTreeMap;

use mainstay_patchkit::standing::{Roots, Top};
use mainstay_shared::time_source::UnixMs;

use super::place::{Listed, Place};
use super::problems::{Problem, What};

/// Versions of a role that are tried, the newest first.
const MOST_TRIED: usize = 10;
const TIMESTAMP: &str = "timestamp.json";
/// Nothing is signed above a higher version: it came to be by nobody's publishing, and there must be room for those that follow.
const HIGHEST_FLOOR: u64 = 1 << 53;

/// The newest version of one role's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) version: u64,
    pub(crate) expires_at: UnixMs,
    pub(crate) bytes: Vec<u8>,
}

/// What stands, and what was passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// By role: `root`, and, if targets stand, `targets` and all that they delegate to.
    pub(crate) newest: BTreeMap<String, Newest>,
    pub(crate) floors: Floors,
    pub(crate) problems: Vec<Problem>,
}

/// The versions of snapshot and timestamp that lie there, signed by keys that the root names: ours stand above them. None: 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) snapshot: i64,
    pub(crate) timestamp: i64,
}

/// Versions by role, as the names say.
fn versions_of(listed: &[Listed]) -> BTreeMap<&str, Vec<u64>> {
    let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for found in listed {
        let parts = found.name.strip_suffix(".json").and_then(|name| name.split_once('.'));
        if let Some((version, role)) = parts
            && let Ok(version) = version.parse()
        {
            versions.entry(role).or_default().push(version);
        }
    }
    versions.values_mut().for_each(|found| found.sort_unstable_by(|one, other| other.cmp(one)));
    versions
}

/// Reads what is listed of the metadata, from the trusted root on.
///
/// # Errors
/// If the place does not answer, or the trusted root is none.
pub(crate) async fn standing(place: &Place, listed: &[Listed], trusted: Vec<u8>) -> anyhow::Result<Standing> {
    let mut reading = Reading { place, versions: versions_of(listed), problems: Vec::new() };
    let is_there = listed.iter().any(|found| found.name == TIMESTAMP);
    let mut newest = BTreeMap::new();
    let (roots, root) = reading.roots(trusted).await?;
    newest.insert("root".to_owned(), root);
    for version in reading.newest_of("targets") {
        let Some((bytes, top)) = reading.read("targets", version, |bytes| roots.top(bytes, version)).await? else { continue };
        if let Some(roles) = reading.roles(&top).await? {
            newest.extend(roles);
            newest.insert("targets".to_owned(), Newest { version, expires_at: top.expires_at, bytes });
            break;
        }
        reading.passed_over("targets", version, "a product's role that it delegates to is missing or refused");
    }
    let floors = if is_there { reading.floors(&roots).await? } else { Floors::default() };
    Ok(Standing { newest, floors, problems: reading.problems })
}

struct Reading<'a> {
    place: &'a Place,
    versions: BTreeMap<&'a str, Vec<u64>>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn newest_of(&self, role: &str) -> Vec<u64> {
        self.versions.get(role).into_iter().flatten().copied().take(MOST_TRIED).collect()
    }

    fn passed_over(&mut self, role: &str, version: u64, why: &str) {
        self.problems.push(Problem::new(What::MetadataRefused, &format!("{version}.{role}.json"), why));
    }

    /// A version with what `judge` makes of it; `None`: it is passed over.
    async fn read<T>(
        &mut self,
        role: &str,
        version: u64,
        judge: impl FnOnce(&[u8]) -> Result<T, mainstay_patchkit::refusal::Refusal>,
    ) -> anyhow::Result<Option<(Vec<u8>, T)>> {
        let Some(bytes) = self.place.metadata(&format!("{version}.{role}.json")).await? else { return Ok(None) };
        match judge(&bytes) {
            Ok(judged) => Ok(Some((bytes, judged))),
            Err(refusal) => {
                self.passed_over(role, version, &refusal.to_string());
                Ok(None)
            }
        }
    }

    async fn roots(&mut self, trusted: Vec<u8>) -> anyhow::Result<(Roots, Newest)> {
        let refused = |refusal| anyhow::anyhow!("the first root that is trusted: {refusal}");
        let (mut roots, mut bytes) = (Roots::begin(&trusted).map_err(refused)?, trusted);
        loop {
            let next = roots.version() + 1;
            if !self.versions.get("root").is_some_and(|found| found.contains(&next)) {
                break;
            }
            let Some((taken, ())) = self.read("root", next, |bytes| roots.advance(bytes)).await? else { break };
            bytes = taken;
        }
        let newest = Newest { version: roots.version(), expires_at: roots.expires_at(), bytes };
        Ok((roots, newest))
    }

    /// What was published online by others. Whoever may write there but holds no key moves no counter.
    async fn floors(&mut self, roots: &Roots) -> anyhow::Result<Floors> {
        let Some(bytes) = self.place.metadata(TIMESTAMP).await? else { return Ok(Floors::default()) };
        let floor = |version: u64| i64::try_from(version).ok().filter(|_| version <= HIGHEST_FLOOR);
        let why = match roots.online(&bytes) {
            Ok((timestamp, snapshot)) => match floor(timestamp).zip(floor(snapshot)) {
                Some((timestamp, snapshot)) => return Ok(Floors { snapshot, timestamp }),
                None => {
                    format!("versions {timestamp} and {snapshot} leave no room above them: the online keys are to be changed")
                }
            },
            Err(refusal) => refusal.to_string(),
        };
        self.problems.push(Problem::new(What::MetadataRefused, TIMESTAMP, &why));
        Ok(Floors::default())
    }

    /// The newest good version of each product's role; `None`: there is one without.
    async fn roles(&mut self, top: &Top) -> anyhow::Result<Option<BTreeMap<String, Newest>>> {
        let mut found = BTreeMap::new();
        for role in top.roles() {
            for version in self.newest_of(role) {
                if let Some((bytes, expires_at)) = self.read(role, version, |bytes| top.role(role, bytes, version)).await? {
                    found.insert(role.to_owned(), Newest { version, expires_at, bytes });
                    break;
                }
            }
            if !found.contains_key(role) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_patchkit::authoring::{Named, timestamp_text};
    use mainstay_patchkit::sample::{PRODUCT, Vendor, program_action, sign};

    use super::*;
    use crate::releases::place::Shelf;

    /// A repository with what this vendor signs.
    fn publish(dir: &std::path::Path, vendor: &Vendor) {
        let header = vendor.header(&program_action("restart-web-1", &["/bin/true"])).expect("a header");
        let write = |name: String, bytes: &[u8]| std::fs::write(dir.join("metadata").join(name), bytes).expect("written");
        write(format!("{}.root.json", vendor.root_version), &header.roots[0]);
        write(format!("{}.targets.json", vendor.targets_version), &header.targets);
        write(format!("{}.{PRODUCT}-offline.json", vendor.role_version), &header.role);
    }

    /// What stands there: role and version, and what was passed over.
    async fn stands(dir: &std::path::Path) -> (Vec<(String, u64)>, Vec<String>) {
        let place = Place::Folder(dir.to_owned());
        let listed = place.list(Shelf::Metadata).await.expect("listed");
        let trusted = Vendor::default().root_json().expect("a root");
        let standing = standing(&place, &listed, trusted).await.expect("read");
        let newest = standing.newest.into_iter().map(|(role, newest)| (role, newest.version)).collect();
        (newest, standing.problems.into_iter().map(|problem| problem.about).collect())
    }

    fn versions(root: u64, targets: u64, role: u64) -> Vec<(String, u64)> {
        let role = (format!("{PRODUCT}-offline"), role);
        vec![role, ("root".to_owned(), root), ("targets".to_owned(), targets)]
    }

    #[tokio::test]
    async fn the_newest_that_verifies_together_stands() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("metadata")).expect("a folder");
        let at = |root_version, targets_version, role_version| Vendor {
            root_version,
            targets_version,
            role_version,
            ..Vendor::default()
        };
        publish(dir.path(), &at(1, 1, 1));
        assert_eq!(stands(dir.path()).await, (versions(1, 1, 1), vec![]), "all is good");
        publish(dir.path(), &at(2, 2, 9));
        publish(dir.path(), &at(2, 10, 10));
        assert_eq!(stands(dir.path()).await, (versions(2, 10, 10), vec![]), "numbers, not texts, are compared");
        let name = |name: &str| dir.path().join("metadata").join(name);
        std::fs::write(name("11.acme-gateway-offline.json"), "{").expect("written");
        let torn = vec!["11.acme-gateway-offline.json".to_owned()];
        assert_eq!(stands(dir.path()).await, (versions(2, 10, 10), torn.clone()), "torn");
        let one = Vendor { threshold: 1, ..at(3, 11, 12) }.header(&program_action("x-1", &["/bin/true"])).expect("a header");
        std::fs::write(name("11.targets.json"), &one.targets).expect("written");
        let told = [vec!["11.targets.json".to_owned()], torn.clone()].concat();
        assert_eq!(stands(dir.path()).await, (versions(2, 10, 10), told), "one signer of two");
        std::fs::remove_file(name("11.targets.json")).expect("removed");
        std::fs::write(name("3.root.json"), &one.roots[0]).expect("written");
        let told = [vec!["3.root.json".to_owned()], torn].concat();
        assert_eq!(stands(dir.path()).await, (versions(2, 10, 10), told), "a root that the old keys did not sign");
    }

    #[tokio::test]
    async fn targets_without_the_role_that_they_delegate_to_do_not_stand_yet() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("metadata")).expect("a folder");
        publish(dir.path(), &Vendor::default());
        let rotated = Vendor { targets_version: 2, role_version: 2, role: vec![41, 42, 43], ..Vendor::default() };
        let header = rotated.header(&program_action("x-1", &["/bin/true"])).expect("a header");
        std::fs::write(dir.path().join("metadata/2.targets.json"), &header.targets).expect("written");
        let (newest, told) = stands(dir.path()).await;
        assert_eq!(newest, versions(1, 1, 1), "its role is on the way still");
        assert!(told.contains(&"2.targets.json".to_owned()), "{told:?}");
        publish(dir.path(), &rotated);
        assert_eq!(stands(dir.path()).await, (versions(1, 2, 2), vec![]));
    }

    #[tokio::test]
    async fn only_a_timestamp_that_the_online_keys_signed_is_a_floor() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("metadata")).expect("a folder");
        publish(dir.path(), &Vendor::default());
        let place = Place::Folder(dir.path().to_owned());
        let most = i64::MAX as u64;
        let rows = [
            ("the online keys'", (7, 4), 32, Floors { timestamp: 7, snapshot: 4 }, None),
            ("of keys that the root does not name", (most - 1, most - 1), 33, Floors::default(), Some("not signed")),
            ("of stolen keys: nothing fits above it", (most - 1, 4), 32, Floors::default(), Some("no room")),
            ("beyond what a counter holds", (7, u64::from(u32::MAX) << 32), 32, Floors::default(), Some("no room")),
        ];
        for (sentence, (version, snapshot), key, floors, told) in rows {
            let text = timestamp_text(version, Vendor::default().expires_at, (snapshot, Named::of(b"{}")));
            std::fs::write(dir.path().join("metadata/timestamp.json"), sign(text, &[key]).expect("signed")).expect("written");
            let listed = place.list(Shelf::Metadata).await.expect("lists");
            let trusted = Vendor::default().root_json().expect("a root");
            let found = standing(&place, &listed, trusted).await.expect("stands");
            assert_eq!(found.floors, floors, "{sentence}");
            assert_eq!(found.problems.len(), usize::from(told.is_some()), "{sentence}: {:?}", found.problems);
            assert!(told.is_none_or(|told| found.problems[0].why.contains(told)), "{sentence}: {:?}", found.problems);
        }
    }
}
