//! What the stories of a batch share: what was loaded for all its messages, what will be written for all of them, and what became of
//! a report. Types only: it decides nothing and reads nothing.

use std::collections::HashMap;

use mainstay_shared::ids::{Epoch, Lane, Nonce, RecordId};
use mainstay_shared::report::RefusedRecord;
use ring::rand::SystemRandom;

use crate::appliances::clone::StaleReason;
use crate::appliances::links::{LinkKey, LoadedLink};
use crate::config::Config;
use crate::db::Conn;
use crate::intake::marks::Marks;
use crate::intake::{LaneKey, Loss, StoredSamples};

/// A batch being taken: what was loaded for all its messages, and what will be written for all of them at its end.
pub(crate) struct Taking<'t> {
    pub(crate) tx: &'t mut Conn,
    pub(crate) config: &'t Config,
    pub(crate) rng: &'t SystemRandom,
    pub(crate) links: HashMap<LinkKey, LoadedLink>,
    pub(crate) marks: Marks,
    pub(crate) samples: Vec<(LinkKey, StoredSamples)>,
    pub(crate) losses: Vec<Loss>,
    /// How often an ended epoch of an appliance has spoken lately.
    pub(crate) ended_epochs: &'t HashMap<LinkKey, u32>,
    /// Something that a page shows has changed.
    pub(crate) changed: bool,
}

/// What became of a report.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It was taken.
    Taken(Box<Taken>),
    /// A newer one came before it: nothing was processed.
    Stale(StaleReason),
    /// Its appliance is gone.
    Gone,
}

/// A taken report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) acks: Vec<RecordId>,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) refused: Vec<RefusedRecord>,
    /// Fault-lane records that the receipt names, with their hashes; replays among them.
    pub(crate) receipted: Vec<(RecordId, String)>,
    pub(crate) held: bool,
    /// New records by lane, for the counters: fault, sample.
    pub(crate) new_records: [u64; 2],
    pub(crate) replays: u64,
    /// Records lost by lane: fault, sample.
    pub(crate) lost: [u64; 2],
    /// Another run of the agent had spoken in between: two machines take turns.
    pub(crate) ended_epoch: bool,
    /// The sender says goodbye: its services are unknown from now on.
    pub(crate) says_goodbye: bool,
    /// The appliance was held by this report.
    pub(crate) newly_held: bool,
}

/// A lane of an appliance's run.
pub(super) fn lane_key((tenant_id, appliance_id): &LinkKey, epoch: &Epoch, lane: Lane) -> LaneKey {
    LaneKey { tenant_id: tenant_id.clone(), appliance_id: appliance_id.clone(), epoch: epoch.clone(), lane }
}
