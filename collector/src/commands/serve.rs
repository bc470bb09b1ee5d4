//! `serve`: the composition root. It opens what the stories need, starts them, and waits for the end.
//!
//! No decision stands here. Readiness is told to systemd once the listeners are bound.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, watch};

use super::Room;
use super::exit::{Exit, Failure};
use crate::appliances::authority::Authority;
use crate::db::Engine;
use crate::flow::time_passes::LastLook;
use crate::flow::{World, changes, daily_mail, notices_go_out, outside_watch, repository_is_read, time_passes};
use crate::lifecycle::Lifecycle;
use crate::releases::place::Place;
use crate::{metrics, router, server};

/// How long begun work may take to end after the soft stop; within systemd's TimeoutStopSec.
const GRACE: Duration = Duration::from_secs(25);

/// How often due clocks, silence and closing are looked at.
const TIME_PERIOD: Duration = Duration::from_secs(1);

/// How often it is asked whether yesterday's mails are written.
const DAILY_PERIOD: Duration = Duration::from_secs(300);

/// Runs the collector until it is told to stop.
pub(crate) async fn run(room: Room) -> anyhow::Result<()> {
    let db = room.db().await?;
    let _only_one = only_one(&room.config.data_dir, db.engine())?;
    db.write_log_again().await?;
    let keys_dir = room.config.data_dir.join("keys");
    let authority = Authority::load(&keys_dir).with_context(|| format!("reading the keys in {}", keys_dir.display()))?;
    let repository = match &room.config.releases {
        Some(settings) => Some(Arc::new(Place::open(settings, &room.config.data_dir)?)),
        None => None,
    };
    let (publish, newest) = watch::channel(0);
    let world = World {
        config: Arc::new(room.config),
        db,
        time: room.time,
        rng: room.rng,
        changes: newest,
        look_now: Arc::new(Notify::new()),
        repository,
    };
    let (lifecycle, waiting) = Lifecycle::begin();
    time_passes::collector_starts(&world).await?;
    lifecycle.spawn("changes", changes::run(world.clone(), publish, lifecycle.stop()));
    let agents = server::serve_agents(&world, Arc::new(authority), &lifecycle).await?;
    let pages = router::web(&world, metrics::watched(agents.counts.clone()));
    let web = server::serve_web(&world, pages, &lifecycle).await?;
    start_stories(&world, &lifecycle)?;
    let engine = world.db.engine();
    tracing::info!(config = %room.config_path.display(), ?engine, agents = %agents.address, %web, "collector started");
    waiting.run(GRACE).await
}

fn start_stories(world: &World, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    notices_go_out::run(world, lifecycle)?;
    let (time, daily) = (world.clone(), world.clone());
    let last_look = Arc::new(LastLook::default());
    lifecycle.periodic("time passes", TIME_PERIOD, Arc::default(), move || {
        let (world, last_look) = (time.clone(), Arc::clone(&last_look));
        async move { time_passes::once(&world, &last_look).await }
    });
    lifecycle.periodic("daily mail", DAILY_PERIOD, Arc::default(), move || {
        let world = daily.clone();
        async move { daily_mail::once(&world).await }
    });
    if let Some(reader) = repository_is_read::Reader::new(world)? {
        let releases = world.clone();
        lifecycle.periodic("repository", reader.period(), Arc::default(), move || {
            let (world, reader) = (releases.clone(), Arc::clone(&reader));
            async move { reader.once(&world).await }
        });
    }
    if let Some(settings) = &world.config.watch {
        let (client, watched) = (outside_watch::client()?, world.clone());
        lifecycle.periodic("outside watch", settings.interval, Arc::default(), move || {
            let (world, client) = (watched.clone(), client.clone());
            async move { outside_watch::once(&world, &client).await }
        });
    }
    Ok(())
}

/// A second collector on the same SQLite file would be a second writer; on PostgreSQL several nodes are meant to be.
fn only_one(data_dir: &Path, engine: Engine) -> anyhow::Result<Option<File>> {
    if engine == Engine::Postgres {
        return Ok(None);
    }
    let path = data_dir.join("serve.lock");
    let file = File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(_) => Err(Failure::because(Exit::Refused, format!("{}: another collector serves from here", data_dir.display()))),
    }
}
