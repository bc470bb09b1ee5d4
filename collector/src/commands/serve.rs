//! `serve`: the composition root. It opens what the stories need, starts them, and waits for the end.
//!
//! No decision stands here. Readiness is told to systemd once both listeners are bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Room;
use crate::flow::World;
use crate::lifecycle::Lifecycle;

/// How long begun work may take to end after the soft stop; within systemd's TimeoutStopSec.
const GRACE: Duration = Duration::from_secs(25);

/// Runs the collector until it is told to stop.
pub(crate) async fn run(room: Room) -> anyhow::Result<()> {
    let db = room.db().await?;
    let (lifecycle, waiting) = Lifecycle::begin();
    let (_changes, changes) = watch::channel(0);
    let world =
        World { config: Arc::new(room.config), db, time: room.time, rng: room.rng, changes, look_now: Arc::new(Notify::new()) };
    tracing::info!(config = %room.config_path.display(), engine = ?world.db.engine(), "collector started");
    drop(lifecycle);
    waiting.run(GRACE).await
}
