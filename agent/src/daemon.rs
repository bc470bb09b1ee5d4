//! The composition root of `run`: opens, connects, starts the loops. No logic.
//!
//! Order: configuration, logs, signals, identity, spool (a new epoch), the judgement of the last run, the loops. It must never decide
//! what a flow or a stage should.

use std::sync::Arc;

use anyhow::Context as _;
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch as cell};

use crate::checks::Checker;
use crate::config::Config;
use crate::flow::alarm::{self, Alarming};
use crate::flow::contact::Contact;
use crate::flow::fetch::{self, Fetching};
use crate::flow::patch::{self, PatchDesk, Patching};
use crate::flow::poll::{self, Polling};
use crate::flow::renewal::{self, Renewing};
use crate::flow::report::{self, Reporting};
use crate::flow::start;
use crate::flow::watch::{self, Current, Watch};
use crate::lifecycle::Lifecycle;
use crate::local::{Answering, Facts, Failure, answer_requests};
use crate::patches::{HelperClient, Keeper};
use crate::probes::aside::{Aside, Workers};
use crate::probes::{ClockReference, Host, Place};
use crate::spool::{Limits, Spool};
use crate::uplink::{Identity, Proxy, Settings, TrustedClock, Uplink};

/// Runs the agent until it is stopped.
///
/// # Errors
/// What kept it from starting, or the task that failed.
pub(crate) async fn run(config: Config, time: TimeSource) -> Result<(), Failure> {
    // A stop may be asked for while the spool is still being read: it must get its goodbye too.
    let mut life = Lifecycle::begin()?;
    let config = Arc::new(config);
    let identity = Identity::load(&config.state_dir)?;
    let clock = TrustedClock::new(time.clone(), &config.state_dir);
    let uplink = Arc::new(Uplink::new(identity, settings(&config)?, clock)?);
    let limits = Limits { max_bytes: config.spool_max_bytes };
    let (spool, opened) = Spool::open(&config.state_dir.join("spool"), limits, &SystemRandom::new(), time.clone())?;
    let host = Host::look(&Place::here(time.clone()));
    let kind = start::judge(&opened.starts, &host.boot_id, host.uptime_s);
    let workers = Workers::default();
    let helper =
        config.patches.enabled.then(|| HelperClient::at(config.patches.helper_socket.clone(), Aside::on(workers.clone())));
    let installed = patch::installed(helper.as_ref()).await;
    // A full lane or disk must not keep the agent from delivering what fills it.
    if let Err(error) = start::announce(&spool, kind, host, (config.declared_services(), installed), time.now()).await {
        tracing::error!("the start could not be recorded: {:#}", anyhow::Error::new(error));
    }
    let safe_mode = kind.is_safe_mode();
    let (current, current_seen) = cell::channel(Current::default());
    let (contact, nudge, reference) = (Contact::default(), Arc::new(Notify::new()), ClockReference::default());
    let checker = Arc::new(Checker::here(time.clone(), reference.clone(), workers.clone()));
    let facts = Facts {
        spool: spool.clone(),
        contact: contact.clone(),
        uplink: Arc::clone(&uplink),
        current: current_seen.clone(),
        services: config.services.clone(),
        checker: Arc::clone(&checker),
        time: time.clone(),
        started_at: time.now(),
        safe_mode,
    };
    let stop = || life.stop_signal();
    let (watching_stop, reporting_stop, polling_stop) = (stop(), stop(), stop());
    let (renewing_stop, alarming_stop, answering_stop) = (stop(), stop(), stop());
    let watch = Watch {
        config: Arc::clone(&config),
        spool: spool.clone(),
        time: time.clone(),
        workers: workers.clone(),
        current,
        nudge: Arc::clone(&nudge),
        clock: reference.clone(),
        safe_mode,
    };
    life.spawn("watch", watch::run(watch, watching_stop.requested()));
    let reporting = Reporting {
        spool: spool.clone(),
        uplink: Arc::clone(&uplink),
        time: time.clone(),
        contact: contact.clone(),
        clock: reference.clone(),
    };
    life.spawn("report", report::run(reporting, reporting_stop));
    let alarming = Alarming { spool: spool.clone(), contact: contact.clone(), time: time.clone() };
    life.spawn("alarm", alarm::run(alarming, alarming_stop));
    let patching =
        Patches { config: &config, spool: &spool, uplink: &uplink, time: &time, checker: &checker, contact: &contact, workers };
    let desk = helper.map(|helper| patching.start(helper, &mut life)).transpose()?;
    let patch_news = desk.as_ref().map(|desk| Arc::clone(&desk.help_now));
    let polling = Polling {
        spool,
        uplink: Arc::clone(&uplink),
        time,
        contact: contact.clone(),
        clock: reference,
        current: current_seen,
        nudge,
        patches: desk,
        wait: config.poll_wait,
    };
    life.spawn("poll", poll::run(polling, polling_stop));
    life.spawn("renew", renewal::run(Renewing { uplink, contact, state_dir: config.state_dir.clone() }, renewing_stop));
    life.spawn("local", answer_requests(Answering { state_dir: config.state_dir.clone(), facts, patch_news }, answering_stop));
    Ok(life.run().await?)
}

/// What the two loops of patches are made of.
struct Patches<'a> {
    config: &'a Config,
    spool: &'a Spool,
    uplink: &'a Arc<Uplink>,
    time: &'a TimeSource,
    checker: &'a Arc<Checker>,
    contact: &'a Contact,
    workers: Workers,
}

impl Patches<'_> {
    fn start(&self, helper: HelperClient, life: &mut Lifecycle) -> anyhow::Result<PatchDesk> {
        let desk = PatchDesk::new(Keeper::open(&self.config.state_dir, Aside::on(self.workers.clone()))?);
        let patching = Patching {
            desk: desk.clone(),
            helper,
            spool: self.spool.clone(),
            services: self.config.services.clone(),
            contact: self.contact.clone(),
            checker: Arc::clone(self.checker),
            time: self.time.clone(),
        };
        let stop = life.stop_signal();
        life.spawn("patch", patch::run(patching, stop));
        let (settings, time) = (self.config.patches.clone(), self.time.clone());
        let fetching = Fetching {
            desk: desk.clone(),
            uplink: Arc::clone(self.uplink),
            settings,
            time,
            aside: Aside::on(self.workers.clone()),
        };
        let stop = life.stop_signal();
        life.spawn("fetch", fetch::run(fetching, stop));
        Ok(desk)
    }
}

/// The way out, as configured.
///
/// # Errors
/// When the proxy's password file can't be read.
pub(crate) fn settings(config: &Config) -> anyhow::Result<Settings> {
    let proxy = match &config.proxy {
        None => None,
        Some(proxy) => {
            let password = match &proxy.password_file {
                None => String::new(),
                Some(path) => std::fs::read_to_string(path)
                    .with_context(|| format!("proxy.password_file {}: can't be read", path.display()))?
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            };
            Some(Proxy { url: proxy.url.clone(), username: proxy.username.clone(), password })
        }
    };
    Ok(Settings { addresses: config.collector_addresses.clone(), proxy })
}

#[cfg(test)]
mod tests;
