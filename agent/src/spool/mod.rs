//! A stand-in for the durable queue until the real one is here: keeps records in memory.

use std::sync::{Arc, Mutex};

use mainstay_shared::fault::{FaultChange, FaultChangeKind};
use mainstay_shared::ids::{EpisodeId, Epoch, Lane, RecordId};
use mainstay_shared::record::Payload;

#[derive(Clone)]
pub(crate) struct Spool(Arc<Mutex<Kept>>);

struct Kept {
    epoch: Epoch,
    payloads: Vec<(RecordId, Payload)>,
}

#[derive(Debug, thiserror::Error)]
#[error("the spool is full")]
pub(crate) struct SpoolError;

pub(crate) struct OpenEpisode {
    pub(crate) episode: EpisodeId,
    pub(crate) last: FaultChange,
}

impl Spool {
    pub(crate) fn new() -> Self {
        let epoch = Epoch::random(&ring::rand::SystemRandom::new());
        Self(Arc::new(Mutex::new(Kept { epoch, payloads: Vec::new() })))
    }

    #[expect(clippy::unused_async, reason = "the real one is async")]
    pub(crate) async fn push(&self, payload: Payload) -> Result<RecordId, SpoolError> {
        let mut kept = self.0.lock().map_err(|_| SpoolError)?;
        let id = RecordId { epoch: kept.epoch.clone(), lane: Lane::Fault, seq: kept.payloads.len() as u64 + 1 };
        kept.payloads.push((id.clone(), payload));
        Ok(id)
    }

    pub(crate) fn open_episodes(&self) -> Vec<OpenEpisode> {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut open: Vec<OpenEpisode> = Vec::new();
        for (id, payload) in &kept.payloads {
            let Payload::Fault(change) = payload else { continue };
            match change.kind {
                FaultChangeKind::Raised => open.push(OpenEpisode { episode: id.clone(), last: change.clone() }),
                FaultChangeKind::Cleared => open.retain(|other| other.last.key != change.key),
                FaultChangeKind::Worsened | FaultChangeKind::Restated => {}
            }
        }
        open
    }

    pub(crate) fn payloads(&self) -> Vec<Payload> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .payloads
            .iter()
            .map(|(_, payload)| payload.clone())
            .collect()
    }
}
