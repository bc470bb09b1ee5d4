//! What the heartbeat shows of files on their way, by offer; in steps of ten percent, so that the poll is not renewed for less.

use std::collections::BTreeMap;

use mainstay_shared::patch::{PatchProgress, PatchStep};
use tokio::sync::watch;

/// Files told at a time.
const MAX_SHOWN: usize = 16;

/// The shared board.
#[derive(Debug, Clone)]
pub(crate) struct Progress(watch::Sender<BTreeMap<String, (PatchStep, u8)>>);

impl Default for Progress {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Progress {
    /// Shows where an offer's file stands.
    pub(crate) fn show(&self, offer_id: &str, step: PatchStep, percent: u8) {
        let shown = (step, percent.min(100) / 10 * 10);
        // An empty id is a file that came by hand: no offer's page shows it.
        if offer_id.is_empty() {
            return;
        }
        self.0.send_if_modified(|board| {
            let fits = board.len() < MAX_SHOWN || board.contains_key(offer_id);
            fits && board.insert(offer_id.to_owned(), shown) != Some(shown)
        });
    }

    /// Nothing more is shown of it: its records tell.
    pub(crate) fn hide(&self, offer_id: &str) {
        self.0.send_if_modified(|board| board.remove(offer_id).is_some());
    }

    /// For the heartbeat.
    pub(crate) fn shown(&self) -> Vec<PatchProgress> {
        let progress = |(offer_id, &(step, percent)): (&String, &(PatchStep, u8))| PatchProgress {
            offer_id: offer_id.clone(),
            step,
            percent,
        };
        self.0.borrow().iter().map(progress).collect()
    }

    /// Resolves at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<String, (PatchStep, u8)>> {
        self.0.subscribe()
    }
}
