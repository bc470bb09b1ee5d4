//! The story of an offer's file: fetched in pieces over hours or days, resumed where it stopped, whole before the helper hears of it.
//!
//! One file at a time, the oldest offer first; a file that must wait lets the next one pass. It must never hold up reports or the poll: it
//! has a connection of its own. What it gives up is told to the vendor, with the reason, by the helper's reports.

use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::patch::PatchStep;
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use tokio::sync::watch;

use super::patch::PatchDesk;
use crate::config::PatchSettings;
use crate::lifecycle::StopSignal;
use crate::patches::{Download, Ended, GiveUp, Held, Limits, Metadata, Next, Point, Stage, free_bytes, next};
use crate::pause::Pause;
use crate::probes::aside::Aside;
use crate::uplink::{Backoff, Uplink};

/// So old, the vendor's metadata is looked at again, with or without an offer.
const REFRESH_EVERY: Duration = Duration::from_secs(86_400);
/// An offer is fetched on the word of metadata no older than this.
const FRESH: Duration = Duration::from_secs(600);
/// A file that must wait (no room, a wrong answer) is looked at again after this.
const LATER: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(3600);
const STAT: Duration = Duration::from_secs(30);

/// What fetching needs.
pub(crate) struct Fetching {
    /// What is to be fetched, and what is told of it.
    pub(crate) desk: PatchDesk,
    /// The way to the collector.
    pub(crate) uplink: Arc<Uplink>,
    /// Limits.
    pub(crate) settings: PatchSettings,
    /// Monotonic time.
    pub(crate) time: TimeSource,
    /// Threads for the disk.
    pub(crate) aside: Aside,
}

/// Fetches until `stop`.
///
/// # Errors
/// None so far: every failure is tried again or given up.
pub(crate) async fn run(fetching: Fetching, stop: StopSignal) -> anyhow::Result<()> {
    let uplink = Arc::clone(&fetching.uplink);
    let metadata =
        Metadata { uplink, root: fetching.settings.root.clone(), dir: fetching.desk.keeper.dir().with_file_name("tuf") };
    let mut story = Story { fetching, metadata, refreshed: None, backoff: Backoff::default() };
    let pause = Pause::new();
    loop {
        let wait = tokio::select! {
            wait = story.round() => wait,
            () = stop.clone().requested() => return Ok(()),
        };
        tokio::select! {
            () = pause.wait(wait) => {}
            () = story.fetching.desk.fetch_now.notified() => {}
            () = stop.clone().requested() => return Ok(()),
        }
    }
}

struct Story {
    fetching: Fetching,
    metadata: Metadata,
    /// When the metadata was last found good, monotonic.
    refreshed: Option<Duration>,
    backoff: Backoff,
}

impl Story {
    /// Does what can be done; how long until the next look.
    async fn round(&mut self) -> Duration {
        let mut wait = IDLE;
        let offers = self.fetching.desk.keeper.book().offers;
        let wanted = offers.iter().any(|held| held.stage == Stage::Wanted);
        if !self.is_fresh(if wanted { FRESH } else { REFRESH_EVERY }) && !self.refresh().await && wanted {
            return self.backoff.next(&SystemRandom::new());
        }
        for held in offers {
            match next(&held, &self.limits(&held).await) {
                Next::Nothing | Next::HandOver => {}
                Next::Fetch => wait = wait.min(self.fetch(held).await),
                Next::WaitForRoom { needed_bytes } => {
                    tracing::warn!(file = held.offer.file, needed_bytes, "an offered file waits: there is no room for it");
                    wait = wait.min(LATER);
                }
                Next::GiveUp(why) => self.give_up(&held, why).await,
            }
        }
        wait
    }

    fn is_fresh(&self, within: Duration) -> bool {
        self.refreshed.is_some_and(|at| self.fetching.time.monotonic().saturating_sub(at) < within)
    }

    /// Whether the metadata is good now; if not, what is offered waits, and nothing else does.
    async fn refresh(&mut self) -> bool {
        if !self.metadata.root.exists() && self.fetching.desk.keeper.book().offers.is_empty() {
            return false;
        }
        match self.metadata.refresh(&self.fetching.aside, self.fetching.uplink.clock().now()).await {
            Ok(fresh_until) => {
                tracing::info!(?fresh_until, "the vendor's metadata is current");
                self.refreshed = Some(self.fetching.time.monotonic());
                true
            }
            Err(error) => {
                tracing::warn!("the vendor's metadata is not current, offered files wait: {error:#}");
                false
            }
        }
    }

    async fn limits(&self, held: &Held) -> Limits {
        let (keeper, offer_id) = (self.fetching.desk.keeper.clone(), held.offer.offer_id.clone());
        let looked = move || (free_bytes(keeper.dir()), keeper.others_bytes(&offer_id));
        let found = self.fetching.aside.run("the disk of patches", STAT, looked).await;
        let (free_bytes, others_bytes) = found.unwrap_or_default();
        Limits { max_bytes: self.fetching.settings.max_bytes, free_bytes, others_bytes }
    }

    async fn give_up(&self, held: &Held, why: GiveUp) {
        let offer = &held.offer;
        tracing::error!(file = offer.file, offer = offer.offer_id, "an offered file is given up: {why}");
        let desk = &self.fetching.desk;
        desk.keep(|book| book.give_up(&offer.offer_id, &why.to_string())).await;
        desk.over(&offer.offer_id).await;
        desk.help_now.notify_one();
    }

    async fn fetch(&mut self, mut held: Held) -> Duration {
        let (points, mut moved) = watch::channel(Point::default());
        let Fetching { desk, uplink, settings, time, aside } = &self.fetching;
        let (offer, progress) = (held.offer.clone(), desk.progress.clone());
        let download = Download {
            uplink,
            aside,
            time,
            path: desk.keeper.file_of(&offer.offer_id),
            max_kib_per_s: settings.max_kib_per_s,
            points,
        };
        let mut show = |here: u64| {
            let percent = u8::try_from(here.saturating_mul(100) / offer.bytes.max(1)).unwrap_or(100);
            progress.show(&offer.offer_id, PatchStep::Fetching, percent);
        };
        show(held.durable_bytes);
        let ended = {
            let fetching = download.run(&mut held, &mut show);
            tokio::pin!(fetching);
            loop {
                tokio::select! {
                    ended = &mut fetching => break ended,
                    Ok(()) = moved.changed() => {
                        let point = moved.borrow_and_update().clone();
                        desk.keep(|book| book.with(&offer.offer_id, |held| {
                            (held.durable_bytes, held.tag) = (point.durable_bytes, point.tag);
                        })).await;
                    }
                }
            }
        };
        let wait = match &ended {
            Ended::Complete => {
                tracing::info!(file = offer.file, "an offered file is here");
                held.stage = Stage::Complete;
                self.backoff.reset();
                Duration::ZERO
            }
            Ended::Cut { after, why } => {
                tracing::warn!(why, file = offer.file, bytes = held.durable_bytes, "fetching goes on later");
                after.unwrap_or_else(|| self.backoff.next(&SystemRandom::new()))
            }
            Ended::Wrong(why) => {
                tracing::warn!(why, file = offer.file, "what came of an offered file is dropped");
                held.tries += 1;
                held.trouble.clone_from(why);
                download.drop_partial(&mut held).await;
                LATER.min(Duration::from_secs(1 << held.tries.min(10)))
            }
            Ended::Disk(why) => {
                tracing::error!(why, file = offer.file, "an offered file can't be written");
                held.tries += 1;
                held.trouble.clone_from(why);
                LATER
            }
        };
        desk.keep(|book| book.with(&offer.offer_id, |known| *known = held)).await;
        if desk.keeper.book().held(&offer.offer_id).is_none() {
            // Taken back meanwhile.
            progress.hide(&offer.offer_id);
        }
        desk.keeper.tidy();
        desk.help_now.notify_one();
        wait
    }
}
