//! Changes reach this node: one cheap read of the `change` counter every half second, or at once when something here has just
//! committed. Pages, event streams and long polls wait on what is published; none of them asks the database by itself.

use std::time::Duration;

use tokio::sync::watch;

use super::World;
use crate::lifecycle::Stop;

const PERIOD: Duration = Duration::from_millis(500);
/// The longest that one look may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// Publishes on `publish`, whose receiver is `world.changes`, until the soft stop.
///
/// # Errors
/// Never: a read that fails is logged and tried again.
pub(crate) async fn run(world: World, publish: watch::Sender<i64>, stop: Stop) -> anyhow::Result<()> {
    while !stop.is_stopping() {
        // A connection that the network forgot never says so.
        let looked = tokio::time::timeout(ANSWERS_WITHIN, once(&world)).await;
        match looked.unwrap_or_else(|_| Err(anyhow::anyhow!("the database does not answer"))) {
            Ok(newest) => {
                publish.send_if_modified(|known| std::mem::replace(known, newest) != newest);
            }
            Err(error) => tracing::warn!(error = %format!("{error:#}"), "looking for changes failed"),
        }
        tokio::select! {
            () = stop.stopping() => {}
            () = world.look_now.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    Ok(())
}

/// The counter's value now.
///
/// # Errors
/// If the database does not answer.
pub(crate) async fn once(world: &World) -> anyhow::Result<i64> {
    let mut conn = world.db.read().await?;
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT value FROM counters WHERE name = 'change'").fetch_optional(&mut *conn).await?;
    Ok(newest.unwrap_or_default())
}
