//! The repository is read: new files are verified and listed, withdrawn ones taken back, snapshot and timestamp renewed in time, offers
//! that no box took up ended. One node does it, the holder of the lease. What is wrong is told by `repository_warns`.
//!
//! Expired signatures stop installs on the appliances, never reporting (R21): nothing here stands in the way of intake.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::file_is_offered::end;
use super::file_is_renewed::file_is_renewed;
use super::repository_warns::{keep_problems, warn_of_ends};
use crate::appliances::directives;
use crate::audit;
use crate::db::{Turn, mark_change, transact};
use crate::releases::life::OfferState;
use crate::releases::online::{OnlineKeys, Role, is_due, names_of, names_of_snapshot, together};
use crate::releases::place::{Listed, Place, Shelf};
use crate::releases::problems::{Problem, What};
use crate::releases::standing::{Standing, standing};
use crate::releases::unread::Unread;
use crate::releases::{FileState, ReleaseFile, files, offers, repository};

/// The lease and how long it lasts without its holder.
const LEASE: &str = "releases";
const LEASE_LASTS: Duration = Duration::from_secs(60);
/// A long reading renews it so often.
const LEASE_RENEWED: Duration = Duration::from_secs(20);
/// Offers ended in one pass.
const ENDED_AT_ONCE: i64 = 100;

/// A node's reader of the repository.
pub(crate) struct Reader {
    node: String,
    place: Arc<Place>,
    root: Option<PathBuf>,
    /// What was refused is read once more after a start: the trusted root may have been put right.
    first_look: AtomicBool,
    /// What stood when the metadata was listed so: as long as it is, nothing is read of it.
    stood: Mutex<Option<(Vec<Listed>, Standing)>>,
    /// What could not be read waits before it is tried again.
    unread: Mutex<Unread>,
}

fn online_keys(world: &World) -> anyhow::Result<Option<OnlineKeys>> {
    OnlineKeys::load(&world.config.data_dir.join("keys")).context("the online signing keys")
}

impl Reader {
    /// A reader for this node; `None`: no repository is set up.
    ///
    /// # Errors
    /// If the online keys are there and can't be read.
    pub(crate) fn new(world: &World) -> anyhow::Result<Option<Arc<Self>>> {
        let (Some(place), Some(settings)) = (&world.repository, &world.config.releases) else { return Ok(None) };
        online_keys(world)?;
        Ok(Some(Arc::new(Self {
            node: random_hex_128(&world.rng),
            place: Arc::clone(place),
            root: settings.root.clone(),
            first_look: AtomicBool::new(true),
            stood: Mutex::default(),
            unread: Mutex::default(),
        })))
    }

    /// How often it passes.
    pub(crate) fn period(&self) -> Duration {
        self.place.period()
    }

    /// One pass.
    ///
    /// # Errors
    /// If the place can't be read or the database refuses; the next period is the retry.
    pub(crate) async fn once(self: Arc<Self>, world: &World) -> anyhow::Result<()> {
        if !self.holds_lease(world).await? {
            return Ok(());
        }
        let mut problems = Vec::new();
        let looked = match self.place.look_lasts() {
            Some(limit) => {
                let looked = self.keeping_lease(world, tokio::time::timeout(limit, self.look())).await?;
                let told = || format!("the store does not tell within {} s what lies there", limit.as_secs());
                looked.with_context(told).and_then(|looked| looked)
            }
            None => self.look().await,
        };
        match &looked {
            Ok((found, stands)) => {
                self.read_files(world, found, &mut problems).await.context("reading the repository's files")?;
                self.withdraw(world).await.context("taking back what was withdrawn")?;
                problems.extend(stands.problems.iter().cloned());
                if let Err(error) = self.sign(world, stands, &mut problems).await {
                    problems.push(Problem::new(What::NotSigned, "timestamp.json", &format!("{error:#}")));
                }
                warn_of_ends(world, &stands.newest).await.context("telling of signatures that end")?;
            }
            Err(error) => problems.push(Problem::new(What::Unreadable, "repository", &format!("{error:#}"))),
        }
        keep_problems(world, problems).await.context("telling what is wrong with the repository")?;
        end_overdue(world).await.context("ending offers that nobody took up")?;
        forget_expired(world).await.context("forgetting what no box heard in time")?;
        looked.map(drop).context("reading the repository")
    }

    async fn holds_lease(&self, world: &World) -> anyhow::Result<bool> {
        let now = world.time.now();
        let held = files::lease(&mut *world.db.read().await?, LEASE).await?;
        match held {
            Some((holder, until)) if holder == self.node && now < until.plus_ms(-30_000) => return Ok(true),
            Some((holder, until)) if holder != self.node && now < until => return Ok(false),
            _ => {}
        }
        let times = (now, now.plus(LEASE_LASTS));
        Ok(transact!(world.db, Turn::Console, |tx| { Ok(files::take_lease(tx, LEASE, &self.node, times).await?) }))
    }

    /// What lies there now.
    async fn look(&self) -> anyhow::Result<(Vec<Listed>, Standing)> {
        let found = self.place.list(Shelf::Files).await?;
        let listed = self.place.list(Shelf::Metadata).await?;
        let stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, stands)) = stood.filter(|(known, _)| *known == listed) {
            return Ok((found, stands));
        }
        let stands = standing(&self.place, &listed, self.trusted_root().await?).await?;
        *self.stood.lock().unwrap_or_else(PoisonError::into_inner) = Some((listed, stands.clone()));
        Ok((found, stands))
    }

    /// The root that this service trusts first.
    async fn trusted_root(&self) -> anyhow::Result<Vec<u8>> {
        match &self.root {
            Some(path) => {
                tokio::fs::read(path).await.with_context(|| format!("{}: the first root that is trusted", path.display()))
            }
            None => self.place.metadata("1.root.json").await?.context("metadata/1.root.json: it is not there yet"),
        }
    }

    async fn read_files(&self, world: &World, listed: &[Listed], problems: &mut Vec<Problem>) -> anyhow::Result<()> {
        let known = files::list(&mut *world.db.read().await?).await?;
        let verified = known.iter().filter(|file| file.state != FileState::Gone && file.manifest.is_some()).count();
        if listed.is_empty() && verified > 0 {
            // A disk that is not mounted, a prefix that is wrong: nobody took all of it away file by file.
            let why = format!("nothing lies there, where {verified} verified files lay: they are kept as they were");
            problems.push(Problem::new(What::Unreadable, Shelf::Files.as_str(), &why));
            return Ok(());
        }
        let mut by_name: BTreeMap<String, ReleaseFile> = known.into_iter().map(|file| (file.file.clone(), file)).collect();
        let now = world.time.now();
        let again = self.first_look.swap(false, Ordering::Relaxed);
        let stands = |known: &ReleaseFile, mark: &str| match known.state {
            FileState::Gone => false,
            FileState::Refused => known.mark == mark && !again,
            FileState::Good | FileState::Withdrawn => known.mark == mark,
        };
        for found in listed {
            let known = by_name.get(&found.name);
            if known.is_some_and(|known| stands(known, &found.mark)) {
                continue;
            }
            if let Some(why) = self.unread().waits(found, now) {
                problems.push(Problem::new(What::Unreadable, &found.name, &why));
                continue;
            }
            let file = match self.keeping_lease(world, self.read_file(found, now)).await? {
                Ok(read) => repository::beside(known, read),
                Err(error) => {
                    let why = format!("{error:#}");
                    self.unread().failed(found, &why, world.time.now());
                    problems.push(Problem::new(What::Unreadable, &found.name, &why));
                    continue;
                }
            };
            tracing::info!(
                file = file.file,
                state = file.state.as_str(),
                refusal = file.refusal,
                "a file of the repository was read"
            );
            keep(world, &file, now).await?;
            by_name.insert(file.file.clone(), file);
        }
        let unreadable = |name: &str| problems.iter().any(|problem| problem.what == What::Unreadable && problem.about == name);
        self.unread().keep_only(unreadable);
        for file in by_name.values().filter(|file| file.state != FileState::Gone) {
            if !listed.iter().any(|found| found.name == file.file) {
                keep(world, &ReleaseFile { state: FileState::Gone, ..file.clone() }, now).await?;
            } else if file.refusal.starts_with(repository::REPUBLISHED) {
                problems.push(Problem::new(What::Republished, &file.file, &file.refusal));
            }
        }
        Ok(())
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_file(&self, found: &Listed, now: UnixMs) -> anyhow::Result<ReleaseFile> {
        let (root, file) = (self.trusted_root().await?, self.place.whole(found).await?);
        let found = found.clone();
        tokio::task::spawn_blocking(move || repository::read(&file, &found, &root, now)).await?
    }

    /// Does what may take long, and holds the lease meanwhile.
    async fn keeping_lease<T>(&self, world: &World, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(LEASE_RENEWED) => {
                    anyhow::ensure!(self.holds_lease(world).await?, "another node reads the repository by now");
                }
            }
        }
    }

    /// Files that a signed withdrawal names are offered no more; what was offered of them is taken back.
    async fn withdraw(&self, world: &World) -> anyhow::Result<()> {
        let known = files::list(&mut *world.db.read().await?).await?;
        let named = files::withdrawn_manifests(&known);
        let now = world.time.now();
        let concerned = known.into_iter().filter(|file| file.state == FileState::Good && named.contains(&file.manifest_sha256));
        for file in concerned {
            keep(world, &ReleaseFile { state: FileState::Withdrawn, ..file.clone() }, now).await?;
            transact!(world.db, Turn::Console, |tx| {
                for offer in offers::of_name(tx, &file.file, None, i64::MAX).await? {
                    if offer.ended_at.is_none() {
                        end(tx, world, audit::SYSTEM, offer, OfferState::TakenBack, now).await?;
                    }
                }
                Ok(())
            });
        }
        Ok(())
    }

    /// Snapshot and timestamp say what stands now, and never run out while this service lives.
    async fn sign(&self, world: &World, stands: &Standing, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
        // Read each time: `releases keygen` needs no restart.
        let (Some(keys), Some(root)) = (online_keys(world)?, stands.newest.get("root")) else { return Ok(()) };
        if !keys.are_listed(&root.bytes) {
            let why = "the root does not list this collector's online keys (releases keys): nothing is signed";
            problems.push(Problem::new(What::KeysNotListed, &format!("{}.root.json", root.version), why));
            return Ok(());
        }
        let now = world.time.now();
        let (last_snapshot, last_timestamp) = {
            let mut conn = world.db.read().await?;
            (files::newest_signed(&mut conn, Role::Snapshot).await?, files::newest_signed(&mut conn, Role::Timestamp).await?)
        };
        let (names, went_back) = together(last_snapshot.as_ref(), names_of(&stands.newest));
        for (name, why) in went_back {
            problems.push(Problem::new(What::WentBack, &name, &why));
        }
        if names.is_empty() {
            return Ok(());
        }
        let snapshot_due = is_due(Role::Snapshot, last_snapshot.as_ref(), &names, now);
        let timestamp_due = snapshot_due
            || last_snapshot
                .as_ref()
                .is_none_or(|last| is_due(Role::Timestamp, last_timestamp.as_ref(), &names_of_snapshot(last), now));
        if !timestamp_due {
            return Ok(());
        }
        let floors = stands.floors;
        transact!(world.db, Turn::Console, |tx| {
            let snapshot = match last_snapshot.clone().filter(|_| !snapshot_due) {
                Some(last) => last,
                None => {
                    let version = files::next_version(tx, "tuf_snapshot", floors.snapshot).await?;
                    let signed = keys.sign(Role::Snapshot, version, &names, now)?;
                    files::add_signed(tx, &signed).await?;
                    signed
                }
            };
            let version = files::next_version(tx, "tuf_timestamp", floors.timestamp).await?;
            let timestamp = keys.sign(Role::Timestamp, version, &names_of_snapshot(&snapshot), now)?;
            files::add_signed(tx, &timestamp).await?;
            Ok(())
        });
        Ok(())
    }
}

async fn keep(world: &World, file: &ReleaseFile, now: UnixMs) -> anyhow::Result<()> {
    transact!(world.db, Turn::Console, |tx| {
        files::put(tx, file, now).await?;
        if file.state == FileState::Good {
            file_is_renewed(tx, world, file, now).await?;
        }
        mark_change(tx).await?;
        Ok(())
    });
    Ok(())
}

/// An offer that its box never took up in time is over. One that waits on the box for consent is the box's to end.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn end_overdue(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    let due = offers::overdue(&mut *world.db.read().await?, now, ENDED_AT_ONCE).await?;
    for offer in due.into_iter().filter(|offer| offer.state == OfferState::Offered) {
        transact!(world.db, Turn::Console, |tx| {
            let again = offers::get(tx, &offer.tenant_id, &offer.offer_id).await?;
            if let Some(again) = again.filter(|again| again.state == OfferState::Offered) {
                end(tx, world, audit::SYSTEM, again, OfferState::Expired, now).await?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// What was asked of a box and expired is forgotten: a code that was typed at a link among it.
async fn forget_expired(world: &World) -> anyhow::Result<()> {
    let now = world.time.now();
    if directives::any_expired(&mut *world.db.read().await?, now).await? {
        transact!(world.db, Turn::Console, |tx| { Ok(directives::forget_expired(tx, now).await?) });
    }
    Ok(())
}
