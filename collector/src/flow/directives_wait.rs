//! Long polls wait for directives. A waiting poll costs a place in a table: when something has changed, one question per node
//! finds the appliances of which something is asked, and only their polls wake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::directive::Directive;
use tokio::sync::Notify;

use super::World;
use crate::appliances::directives;
use crate::appliances::links::LinkKey;
use crate::lifecycle::Stop;

/// Who waits. Cheap to clone; all clones are one board.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<HashMap<LinkKey, Arc<Notify>>>>);

impl Board {
    /// A place on the board, to be taken before the first look at the database, so that nothing falls between.
    pub(crate) fn place(&self, key: &LinkKey) -> Place {
        let notify = Arc::clone(self.table().entry(key.clone()).or_default());
        Place { board: self.clone(), key: key.clone(), notify }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<LinkKey, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait, on every change, until the soft stop.
    ///
    /// # Errors
    /// Never: a question that fails is logged and asked again at the next change.
    pub(crate) async fn run(self, world: World, stop: Stop) -> anyhow::Result<()> {
        let mut changes = world.changes.clone();
        loop {
            tokio::select! {
                () = stop.stopping() => return Ok(()),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
            if self.table().is_empty() {
                continue;
            }
            let asked = async {
                let mut conn = world.db.read().await?;
                directives::asked_appliances(&mut conn, world.time.now()).await
            };
            match asked.await {
                Ok(keys) => {
                    let table = self.table();
                    keys.iter().filter_map(|key| table.get(key)).for_each(|notify| notify.notify_one());
                }
                Err(error) => tracing::warn!(%error, "looking for directives failed"),
            }
        }
    }
}

/// One poll's place; it leaves the board when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    board: Board,
    key: LinkKey,
    notify: Arc<Notify>,
}

impl Place {
    /// Waits until something is asked of this appliance, at most `wait`, or until the soft stop.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(crate) async fn wait(&self, world: &World, wait: Duration, stop: &Stop) -> anyhow::Result<Vec<Directive>> {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            let woken = self.notify.notified();
            tokio::select! {
                () = &mut over => return Ok(Vec::new()),
                () = stop.stopping() => return Ok(Vec::new()),
                () = woken => {}
            }
            let mut conn = world.db.read().await?;
            let mut open = directives::open_of(&mut conn, std::slice::from_ref(&self.key), world.time.now()).await?;
            if let Some(asked) = open.remove(&self.key) {
                return Ok(asked);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.board.table();
        // Two: this place and the table. Another poll of the same appliance keeps the entry.
        if Arc::strong_count(&self.notify) <= 2 {
            table.remove(&self.key);
        }
    }
}
