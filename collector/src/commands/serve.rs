//! `serve`: the composition root. It opens what the stories need, starts them, and waits for the end.
//!
//! No decision stands here. Readiness is told to systemd once both listeners are bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Room;
use crate::appliances::authority::Authority;
use crate::flow::{World, changes, daily_mail, notices_go_out, outside_watch, time_passes};
use crate::lifecycle::Lifecycle;
use crate::server;

/// How long begun work may take to end after the soft stop; within systemd's TimeoutStopSec.
const GRACE: Duration = Duration::from_secs(25);
/// How exactly deadlines are told. One pass on a quiet database is a few indexed reads.
const TIME_PASSES_EVERY: Duration = Duration::from_secs(2);
const DAILY_MAIL_LOOKED_AT_EVERY: Duration = Duration::from_secs(600);

/// Runs the collector until it is told to stop.
pub(crate) async fn run(room: Room) -> anyhow::Result<()> {
    let db = room.db().await?;
    let authority = Arc::new(Authority::load(&room.config.data_dir.join("keys"))?);
    let (lifecycle, waiting) = Lifecycle::begin();
    let (publish, changed) = watch::channel(0);
    let world = World {
        config: Arc::new(room.config),
        db,
        time: room.time,
        rng: room.rng,
        changes: changed,
        look_now: Arc::new(Notify::new()),
    };
    time_passes::collector_starts(&world).await?;
    lifecycle.spawn("changes", changes::run(world.clone(), publish, lifecycle.stop()));
    let agents = server::serve_agents(&world, authority, &lifecycle).await?;
    tell_stories(&world, &lifecycle)?;
    tracing::info!(config = %room.config_path.display(), engine = ?world.db.engine(), agents = %agents.address, "collector started");
    waiting.run(GRACE).await
}

/// The stories that nobody asks for: they run on a period and when nudged.
fn tell_stories(world: &World, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    notices_go_out::run(world, lifecycle)?;
    let at = world.clone();
    lifecycle.periodic("time passes", TIME_PASSES_EVERY, Arc::default(), move || {
        let world = at.clone();
        async move { time_passes::once(&world).await }
    });
    let at = world.clone();
    lifecycle.periodic("daily mail", DAILY_MAIL_LOOKED_AT_EVERY, Arc::default(), move || {
        let world = at.clone();
        async move { daily_mail::once(&world).await }
    });
    let Some(outside) = &world.config.watch else { return Ok(()) };
    let (at, client) = (world.clone(), outside_watch::client()?);
    lifecycle.periodic("outside watch", outside.interval, Arc::default(), move || {
        let (world, client) = (at.clone(), client.clone());
        async move { outside_watch::once(&world, &client).await }
    });
    Ok(())
}
