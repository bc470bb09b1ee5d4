//! The stories: one short file per thing that happens. Load everything, decide purely, store in one transaction; effects leave
//! through the outbox. Stages (the rooms above) are passive and never call each other; only these files bring them together.

use std::sync::Arc;

use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::db::Db;
use crate::releases::place::Place;

pub(crate) mod record;
pub(crate) mod told;
pub(crate) mod scene;
pub(crate) mod faults_arrive;
pub(crate) mod collector_faults;
pub(crate) mod explain;
pub(crate) mod patch_is_reported;
pub(crate) mod silence_falls;
pub(crate) mod taking;
pub(crate) mod report_arrives;
pub(crate) mod heartbeat_arrives;
pub(crate) mod batch;
pub(crate) mod intake_worker;
pub(crate) mod appliance_enrols;
pub(crate) mod certificate_renews;
pub(crate) mod appliance_acts;
pub(crate) mod directives_wait;
pub(crate) mod file_is_offered;
pub(crate) mod link_is_used;
pub(crate) mod receipt_is_read;
pub(crate) mod file_is_renewed;
pub(crate) mod repository_warns;
pub(crate) mod repository_is_read;
pub(crate) mod changes;
pub(crate) mod time_passes;
pub(crate) mod staff_acts;
pub(crate) mod daily_mail;
pub(crate) mod notices_go_out;
pub(crate) mod outside_watch;

/// What every story needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) db: Db,
    pub(crate) time: TimeSource,
    pub(crate) rng: SystemRandom,
    /// The newest value of the `change` counter that this node has seen: pages and long polls wait on it.
    pub(crate) changes: watch::Receiver<i64>,
    /// Asks this node to look for changes now rather than at the next tick.
    pub(crate) look_now: Arc<Notify>,
    /// Where the release engineers publish, as the settings say; commands go without.
    pub(crate) repository: Option<Arc<Place>>,
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
