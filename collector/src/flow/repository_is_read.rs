//! The repository is read: new files are verified and listed, withdrawn ones taken back, snapshot and timestamp renewed in time, ends of
//! signatures told of 30 and 7 days ahead, offers that no box took up ended. One node does it, the holder of the lease.
//!
//! Expired signatures stop installs on the appliances, never reporting (R21): nothing here stands in the way of intake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;

use super::World;
use super::file_is_offered::end;
use crate::audit;
use crate::config::ReleasesConfig;
use crate::customers::{Role as StaffRole, VENDOR_TENANT, store as customers};
use crate::db::{Turn, mark_change, transact};
use crate::notices::{Recipient, outbox, patch_mail};
use crate::releases::life::OfferState;
use crate::releases::online::{OnlineKeys, Role, is_due, names_of, names_of_snapshot};
use crate::releases::repository::{self, Listed, Newest};
use crate::releases::{FileState, ReleaseFile, files, offers};

/// The lease and how long it lasts without its holder.
const LEASE: &str = "releases";
const LEASE_LASTS: Duration = Duration::from_secs(60);
/// Days ahead of an end at which it is told of.
const WARNED_DAYS: [i64; 2] = [30, 7];
const DAY_MS: i64 = 86_400_000;
/// Offers ended in one pass.
const ENDED_AT_ONCE: i64 = 100;

/// A node's reader of the repository.
pub(crate) struct Reader {
    node: String,
    settings: ReleasesConfig,
    /// What was refused is read once more after a start: the trusted root may have been put right.
    first_look: AtomicBool,
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
        let Some(settings) = world.config.releases.clone() else { return Ok(None) };
        online_keys(world)?;
        Ok(Some(Arc::new(Self { node: random_hex_128(&world.rng), settings, first_look: AtomicBool::new(true) })))
    }

    /// One pass.
    ///
    /// # Errors
    /// If the folder can't be read or the database refuses; the next period is the retry.
    pub(crate) async fn once(self: Arc<Self>, world: &World) -> anyhow::Result<()> {
        if !self.holds_lease(world).await? {
            return Ok(());
        }
        self.read_files(world).await.context("reading the repository's files")?;
        self.withdraw(world).await.context("taking back what was withdrawn")?;
        let reader = Arc::clone(&self);
        let newest = aside(move || repository::newest_metadata(&reader.settings.dir))
            .await
            .context("reading the repository's metadata")?;
        self.sign(world, &newest).await.context("signing snapshot and timestamp")?;
        self.warn(world, &newest).await.context("telling of signatures that end")?;
        end_overdue(world).await.context("ending offers that nobody took up")
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

    async fn read_files(self: &Arc<Self>, world: &World) -> anyhow::Result<()> {
        let known = files::list(&mut *world.db.read().await?).await?;
        let by_name: BTreeMap<&str, &ReleaseFile> = known.iter().map(|file| (file.file.as_str(), file)).collect();
        let reader = Arc::clone(self);
        let listed = aside(move || repository::listed(&reader.settings.dir)).await?;
        let now = world.time.now();
        let again = self.first_look.swap(false, Ordering::Relaxed);
        let stands = |known: &ReleaseFile, mark: &str| match known.state {
            FileState::Gone => false,
            FileState::Refused => known.mark == mark && !again,
            FileState::Good | FileState::Withdrawn => known.mark == mark,
        };
        for found in &listed {
            if by_name.get(found.file.as_str()).is_some_and(|known| stands(known, &found.mark)) {
                continue;
            }
            let file = self.read_file(found.clone(), now).await?;
            tracing::info!(
                file = file.file,
                state = file.state.as_str(),
                refusal = file.refusal,
                "a file of the repository was read"
            );
            keep(world, &file, now).await?;
        }
        for gone in
            known.iter().filter(|known| known.state != FileState::Gone && !listed.iter().any(|found| found.file == known.file))
        {
            keep(world, &ReleaseFile { state: FileState::Gone, ..gone.clone() }, now).await?;
        }
        Ok(())
    }

    async fn read_file(self: &Arc<Self>, found: Listed, now: UnixMs) -> anyhow::Result<ReleaseFile> {
        let reader = Arc::clone(self);
        aside(move || {
            let root = repository::trusted_root(&reader.settings)?;
            Ok(repository::read(&reader.settings.dir, &found, &root, now))
        })
        .await
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

    /// Snapshot and timestamp say what lies there now, and never run out while this service lives.
    async fn sign(&self, world: &World, newest: &BTreeMap<String, Newest>) -> anyhow::Result<()> {
        // Read each time: `releases keygen` needs no restart.
        let (Some(keys), Some(root)) = (online_keys(world)?, newest.get("root")) else { return Ok(()) };
        if !keys.are_listed(&root.bytes) {
            tracing::warn!(
                version = root.version,
                "the root does not list this collector's online keys (releases keys): nothing is signed"
            );
            return Ok(());
        }
        let now = world.time.now();
        let names = names_of(newest);
        let (last_snapshot, last_timestamp) = {
            let mut conn = world.db.read().await?;
            (files::newest_signed(&mut conn, Role::Snapshot).await?, files::newest_signed(&mut conn, Role::Timestamp).await?)
        };
        let snapshot_due = is_due(Role::Snapshot, last_snapshot.as_ref(), &names, now);
        let timestamp_due = snapshot_due
            || last_snapshot
                .as_ref()
                .is_none_or(|last| is_due(Role::Timestamp, last_timestamp.as_ref(), &names_of_snapshot(last), now));
        if !timestamp_due {
            return Ok(());
        }
        let floors = repository::published_online(&self.settings.dir);
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

    async fn warn(&self, world: &World, newest: &BTreeMap<String, Newest>) -> anyhow::Result<()> {
        let now = world.time.now();
        let known = files::expiries(&mut *world.db.read().await?).await?;
        for (role, newest) in newest {
            let version = i64::try_from(newest.version).unwrap_or(i64::MAX);
            let is_new = !known.iter().any(|(name, known, at)| name == role && *known == version && *at == newest.expires_at);
            let left_ms = newest.expires_at.since_ms(now);
            let warned = WARNED_DAYS.into_iter().filter(|days| left_ms <= days * DAY_MS).min();
            if is_new || warned.is_some() {
                transact!(world.db, Turn::Console, |tx| {
                    if is_new {
                        files::put_expiry(tx, role, version, newest.expires_at).await?;
                        mark_change(tx).await?;
                    }
                    if let Some(days) = warned {
                        tell_operators(tx, world, (role, version, newest.expires_at), days, now).await?;
                    }
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

/// Once for each role, version and number of days: the notice's id says so.
async fn tell_operators(
    tx: &mut crate::db::Conn,
    world: &World,
    (role, version, expires_at): (&str, i64, UnixMs),
    days: i64,
    now: UnixMs,
) -> anyhow::Result<()> {
    let about = format!("{role}.{version}.{days}");
    let told: Option<String> =
        sqlx::query_scalar("SELECT notice_id FROM outbox WHERE tenant_id = $1 AND subject_id = $2 LIMIT 1")
            .bind(VENDOR_TENANT)
            .bind(format!("expiry:{about}"))
            .fetch_optional(&mut *tx)
            .await?;
    if told.is_some() {
        return Ok(());
    }
    let subject_id = format!("expiry:{about}");
    for operator in customers::all_staff(tx).await? {
        if operator.role != StaffRole::Operator || operator.disabled_at.is_some() {
            continue;
        }
        let text = patch_mail::signatures_end(operator.language, &world.config.service_name, role, expires_at);
        let recipient = Recipient { name: operator.name, email: operator.email, language: operator.language };
        let row = outbox::New {
            tenant_id: VENDOR_TENANT,
            subject_id: &subject_id,
            about: &about,
            kind: "expiry",
            recipient: &recipient,
        };
        outbox::enqueue(tx, &world.config, now, &row, &text).await?;
    }
    Ok(())
}

async fn keep(world: &World, file: &ReleaseFile, now: UnixMs) -> anyhow::Result<()> {
    transact!(world.db, Turn::Console, |tx| {
        files::put(tx, file, now).await?;
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

/// Disks may be slow, or far away: never on a thread that answers.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("reading aside")?
}
