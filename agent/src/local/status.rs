//! `status`: who this is, when the collector was last reached, what waits, how the services are, how long the certificate lasts.
//!
//! A running agent is asked; without one the files are read, so that the command always says something. For people `print`
//! writes it, else it is JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::check::ServiceState;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::words::{Lang, pick};
use super::{Exit, Failure, Output, say_json, socket};
use crate::checks::Checker;
use crate::config::Config;
use crate::config::Service;
use crate::flow::contact::{Alarm, Contact, ContactFacts, LOST_AFTER};
use crate::flow::watch::Current;
use crate::spool::{self, Limits, Spool, Stats};
use crate::uplink::{Identity, Uplink, Validity};

const DAY_MS: i64 = 86_400_000;

mod print;

/// What the running agent can tell.
#[derive(Clone)]
pub(crate) struct Facts {
    /// Records waiting, losses, epoch.
    pub(crate) spool: Spool,
    /// Last contact.
    pub(crate) contact: Contact,
    /// Identity and certificate.
    pub(crate) uplink: Arc<Uplink>,
    /// Service states.
    pub(crate) current: watch::Receiver<Current>,
    /// Declared services.
    pub(crate) services: Vec<Service>,
    /// Asks them.
    pub(crate) checker: Arc<Checker>,
    /// The machine's clocks.
    pub(crate) time: TimeSource,
    /// When the agent started.
    pub(crate) started_at: UnixMs,
    /// Whether it runs in safe mode.
    pub(crate) safe_mode: bool,
}

/// A status as it is told and printed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StatusReport {
    running: bool,
    enrolled: bool,
    appliance: Option<String>,
    addresses: Vec<String>,
    agent_version: String,
    now: UnixMs,
    started_at: Option<UnixMs>,
    epoch: Option<String>,
    safe_mode: bool,
    contact: ContactFacts,
    /// How long ago the collector last answered; none if it has not since the start.
    contact_age_ms: Option<u64>,
    certificate_not_after: Option<UnixMs>,
    certificate_days_left: Option<i64>,
    spool: Stats,
    /// How long the present disk operation has been under way, if over a second.
    spool_busy_ms: Option<u64>,
    spool_error: Option<String>,
    not_recording_ms: Option<u64>,
    open_faults: Vec<OpenFault>,
    services: BTreeMap<String, ServiceStatus>,
    /// No service is declared: an interruption of business can't be told from a general fault.
    severity_blind: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServiceStatus {
    /// None until it was asked for the first time.
    state: Option<ServiceState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenFault {
    component: String,
    code: String,
    summary: String,
    since: UnixMs,
}

impl From<spool::OpenEpisode> for OpenFault {
    fn from(open: spool::OpenEpisode) -> Self {
        let last = open.last;
        Self { component: last.key.component, code: last.key.code, summary: last.summary, since: last.at }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Facts {
    /// The status now.
    pub(super) fn report(&self) -> StatusReport {
        let identity = self.uplink.identity();
        let current = self.current.borrow();
        let (contact, busy_ms) = (self.contact.facts(), self.spool.busy_for().map(millis));
        StatusReport {
            running: true,
            started_at: Some(self.started_at),
            epoch: Some(self.spool.epoch().to_string()),
            safe_mode: self.safe_mode,
            contact_age_ms: contact.last_contact_mono.map(|at| millis(self.time.monotonic().saturating_sub(at))),
            contact,
            spool: self.spool.stats(),
            spool_busy_ms: busy_ms.filter(|busy| *busy >= 1000),
            spool_error: self.spool.last_error(),
            not_recording_ms: self.spool.refusing_for().map(millis),
            open_faults: self.spool.open_episodes().into_iter().map(OpenFault::from).collect(),
            services: self
                .services
                .iter()
                .map(|service| (service.name.clone(), ServiceStatus { state: current.services.get(&service.name).copied() }))
                .collect(),
            severity_blind: self.services.is_empty(),
            ..StatusReport::of_files(Some(&identity), self.uplink.clock().now())
        }
    }
}

impl StatusReport {
    fn of_files(identity: Option<&Identity>, now: UnixMs) -> Self {
        let validity: Option<Validity> = identity.map(Identity::validity);
        Self {
            running: false,
            enrolled: identity.is_some(),
            appliance: identity.map(|i| i.appliance.to_string()),
            addresses: identity.map(|i| i.addresses.clone()).unwrap_or_default(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            now,
            started_at: None,
            epoch: None,
            safe_mode: false,
            contact: ContactFacts::default(),
            contact_age_ms: None,
            certificate_not_after: validity.map(|v| v.not_after),
            certificate_days_left: validity.map(|v| v.not_after.since_ms(now).div_euclid(DAY_MS)),
            spool: Stats::default(),
            spool_busy_ms: None,
            spool_error: None,
            not_recording_ms: None,
            open_faults: Vec::new(),
            services: BTreeMap::new(),
            severity_blind: false,
        }
    }

    /// What keeps this appliance's faults from being told; none if nothing does.
    fn unreported(&self) -> Option<Unreported> {
        match (self.running, self.contact_age_ms, self.contact.alarm) {
            (true, _, _) if self.not_recording_ms.is_some() => Some(Unreported::NotRecorded),
            (false, _, _) => Some(Unreported::NotRunning),
            (true, None, _) => Some(Unreported::NoContactYet),
            (true, Some(age), _) if age > millis(LOST_AFTER) => Some(Unreported::NoContact),
            (true, Some(_), Some(Alarm::ReportsNotTaken)) => Some(Unreported::NotTaken),
            (true, Some(_), Some(Alarm::NoContact | Alarm::NotRecording) | None) => None,
        }
    }
}

/// Why nobody at the vendor would be told of a fault now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreported {
    NotRunning,
    NoContactYet,
    NoContact,
    NotTaken,
    NotRecorded,
}

impl Unreported {
    fn text(self, lang: Lang) -> &'static str {
        match self {
            Self::NotRunning => pick(lang, "代理程序未运行", "the agent does not run"),
            Self::NoContactYet => {
                pick(lang, "启动以来服务中心尚无应答", "the collector has not answered since the agent started")
            }
            Self::NoContact => pick(lang, "服务中心超过十分钟无应答", "the collector has not answered for more than ten minutes"),
            Self::NotTaken => pick(
                lang,
                "服务中心有应答，但超过十分钟未接收报告",
                "the collector answers, but has taken no report for more than ten minutes",
            ),
            Self::NotRecorded => pick(
                lang,
                "新故障无法记录：磁盘拒绝写入或队列已满",
                "a new fault can't be recorded: the disk refuses or the queue is full",
            ),
        }
    }
}

/// Prints the status.
///
/// # Errors
/// [`Exit::NotAllowed`] when not enrolled or not readable, [`Exit::Unavailable`] when no agent runs, the collector has not
/// answered for [`LOST_AFTER`] (or not at all since the start), it takes no reports, or
/// the disk refuses what was to be recorded.
pub(crate) async fn status(config: &Config, time: &TimeSource, output: Output) -> Result<(), Failure> {
    let report = match socket::ask_status(&config.state_dir).await {
        Ok(report) => report,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(Exit::NotAllowed, anyhow::anyhow!("run as root or as the agent's user")));
        }
        Err(_) => of_stopped_agent(config, time)?,
    };
    if output.json {
        say_json(&report)?;
    } else {
        print::print(&report, output.lang);
    }
    match report.unreported() {
        None => Ok(()),
        Some(why) => Err(Failure::new(Exit::Unavailable, anyhow::anyhow!(why.text(output.lang)))),
    }
}

fn of_stopped_agent(config: &Config, time: &TimeSource) -> Result<StatusReport, Failure> {
    let identity = Identity::load(&config.state_dir)?;
    let found = inspect(&config.state_dir, config.spool_max_bytes);
    let mut report = StatusReport::of_files(Some(&identity), time.now());
    if let Some(found) = found {
        report.spool = Stats {
            fault_records: found.fault_records as u64,
            sample_records: found.sample_records as u64,
            bytes: found.bytes,
            max_bytes: config.spool_max_bytes,
            counters: found.counters,
        };
        report.open_faults = found.open.into_iter().map(OpenFault::from).collect();
    }
    report.services = config.services.iter().map(|s| (s.name.clone(), ServiceStatus { state: None })).collect();
    report.severity_blind = config.services.is_empty();
    Ok(report)
}

fn inspect(state_dir: &Path, max_bytes: u64) -> Option<spool::Inspection> {
    spool::inspect(&state_dir.join("spool"), Limits { max_bytes }).ok()
}
