//! One simulated appliance: the agent's real watching story, start and spool, on a machine whose power, clock, disk and services
//! the story moves by hand. It keeps the side log of what its spool accepted.
//!
//! Test code only. The agent's TLS client and its sleeping loops are left out: `story` carries its messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_agent::{
    ClockReference, Config, Current, Host, Limits, Reading, Retries, ServiceRound, Spool, StartKind, Story as Watching, Watch,
    Workers, announce, judge,
};
use mainstay_shared::api::WIRE_VERSION;
use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::fault::FaultKey;
use mainstay_shared::heartbeat::PollRequest;
use mainstay_shared::ids::EpisodeId;
use mainstay_shared::record::{Goodbye, Payload};
use mainstay_shared::report::ReportRequest;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;
use tokio::sync::{Notify, watch};

use super::fleet::Place;

/// How the way to the collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Good,
    /// Loses, delays, repeats, reorders.
    Bad,
    Away,
}

/// An episode that the spool accepted: the side log of TRUST's oracle.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) key: FaultKey,
    pub(super) episode: EpisodeId,
    pub(super) raised_at: UnixMs,
    pub(super) cleared_at: Option<UnixMs>,
    /// A rewind of the machine took the raise, or its clear, out of the spool before it was delivered.
    pub(super) rewound: bool,
}

/// A machine.
pub(super) struct Machine {
    pub(super) place: Place,
    pub(super) states: Vec<ServiceState>,
    pub(super) disk_percent: f64,
    pub(super) weather: Weather,
    /// How far the wall clock is off at the next boot.
    pub(super) wall_error_ms: i64,
    pub(super) powered: bool,
    pub(super) run: Option<Run>,
    pub(super) runs: u64,
    pub(super) accepted: Vec<Accepted>,
    /// Starts that told of an unexpected reboot.
    pub(super) sudden_reboots: usize,
    dir: PathBuf,
    config: Arc<Config>,
    boots: u64,
    booted_at: UnixMs,
}

/// One run of the agent.
pub(super) struct Run {
    pub(super) no: u64,
    pub(super) spool: Spool,
    pub(super) attempt: u64,
    pub(super) under_way: Option<u64>,
    pub(super) failures: u32,
    pub(super) clock: ClockReference,
    pub(super) time: TimeSource,
    watching: Watching,
    current: watch::Receiver<Current>,
    pub(super) rounds_under_way: bool,
    pub(super) measures_under_way: bool,
    advanced_to: UnixMs,
    known: Vec<Option<ServiceState>>,
    round: Vec<(UnixMs, Duration, Vec<CheckResult>)>,
}

impl Machine {
    pub(super) fn new(place: Place, home: &Path) -> Self {
        let dir = home.join(place.name.replace('/', "-"));
        std::fs::create_dir_all(&dir).expect("a folder");
        let mut text = String::new();
        for (n, service) in place.services.iter().enumerate() {
            let depends = if n == 0 && place.depends { "depends_on = [\"disk:/var\"]\n" } else { "" };
            text.push_str(&format!(
                "[[service]]\nname = \"{service}\"\n{depends}[[service.check]]\nname = \"port\"\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n"
            ));
        }
        let path = dir.join("agent.toml");
        std::fs::write(&path, text).expect("a file");
        let config = Arc::new(Config::load(&path).expect("a good configuration"));
        Self {
            states: vec![ServiceState::Up; place.services.len()],
            place,
            disk_percent: 40.0,
            weather: Weather::Good,
            wall_error_ms: 0,
            powered: false,
            run: None,
            runs: 0,
            accepted: Vec::new(),
            sudden_reboots: 0,
            dir,
            config,
            boots: 0,
            booted_at: UnixMs(0),
        }
    }

    fn spool_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// The machine comes up.
    pub(super) async fn boot(&mut self, now: UnixMs) -> StartKind {
        self.boots += 1;
        self.booted_at = now;
        self.powered = true;
        self.start(now).await
    }

    /// The agent starts, in the boot that is.
    pub(super) async fn start(&mut self, now: UnixMs) -> StartKind {
        self.kill();
        wait_for_lock(&self.spool_dir());
        let time = TimeSource::manual(now.plus_ms(self.wall_error_ms));
        let limits = Limits { max_bytes: 16 << 20 };
        let (spool, opened) =
            Spool::open(&self.spool_dir(), limits, &SystemRandom::new(), time.clone()).expect("the spool opens");
        let uptime_s = u64::try_from(now.since_ms(self.booted_at) / 1000).expect("after the boot") + 20;
        let host = Host {
            hostname: self.place.name.clone(),
            platform: "simulated".into(),
            boot_id: format!("boot-{}", self.boots),
            uptime_s,
        };
        let kind = judge(&opened.starts, &host.boot_id, uptime_s);
        announce(&spool, kind, host, (self.config.declared_services(), None), time.now()).await.expect("the start is accepted");
        if kind == StartKind::AfterUnexpectedReboot {
            self.sudden_reboots += 1;
        }
        let (sender, current) = watch::channel(Current::default());
        let clock = ClockReference::default();
        let watching = Watching::begin(Watch {
            config: Arc::clone(&self.config),
            spool: spool.clone(),
            time: time.clone(),
            workers: Workers::default(),
            current: sender,
            nudge: Arc::new(Notify::new()),
            clock: clock.clone(),
            safe_mode: kind.is_safe_mode(),
        });
        self.runs += 1;
        let services = self.states.len();
        self.run = Some(Run {
            no: self.runs,
            spool,
            attempt: 0,
            under_way: None,
            failures: 0,
            clock,
            time,
            watching,
            current,
            rounds_under_way: false,
            measures_under_way: false,
            advanced_to: now,
            known: vec![None; services],
            round: vec![(UnixMs(0), Duration::ZERO, Vec::new()); services],
        });
        self.log(now);
        kind
    }

    /// The agent is gone at once; what the spool accepted stays.
    pub(super) fn kill(&mut self) {
        self.run = None;
    }

    pub(super) async fn say_goodbye(&mut self, now: UnixMs, reason: &str, back_in_ms: Option<i64>) {
        let Some(run) = self.run.as_mut() else { return };
        run.advance(now);
        let expected_return_at = back_in_ms.map(|ms| run.time.now().plus_ms(ms));
        run.spool.push(Payload::Goodbye(Goodbye { reason: reason.into(), expected_return_at })).await.expect("accepted");
    }

    /// A try of a service's check; `true`: another one in ten seconds.
    pub(super) async fn ask(&mut self, now: UnixMs, service: usize) -> bool {
        let state = self.states[service];
        let Some(run) = self.run.as_mut() else { return false };
        run.advance(now);
        let (at, mono) = (run.time.now(), run.time.monotonic());
        if run.round[service].2.is_empty() {
            run.round[service] = (at, mono, Vec::new());
        }
        let tries = &mut run.round[service].2;
        let attempt = u8::try_from(tries.len() + 1).expect("three at most");
        tries.push(CheckResult {
            check: "port".into(),
            kind: "tcp".into(),
            state,
            reason: "simulated".into(),
            text: String::new(),
            took_ms: 1,
            attempt,
            at,
            perf_data: String::new(),
        });
        let retries = Retries { count: 2, after: Duration::from_secs(10), known: run.known[service] };
        if retries.ask_again(attempt, state) {
            return true;
        }
        let (began_at, began_mono, tries) = std::mem::take(&mut run.round[service]);
        run.known[service] = Some(state);
        let name = self.place.services[service].to_owned();
        run.watching.asked(ServiceRound { service: name, state, tries, began_at, began_mono }).await;
        self.log(now);
        false
    }

    /// A round of readings.
    pub(super) async fn measure(&mut self, now: UnixMs) {
        let used = self.disk_percent;
        let Some(run) = self.run.as_mut() else { return };
        run.advance(now);
        let mut readings = vec![Reading { component: "disk:/var".into(), metric: "used_percent", value: used }];
        if let Some(offset_ms) = run.clock.offset_ms(&run.time) {
            #[expect(clippy::cast_precision_loss, reason = "a reading is a float")]
            readings.push(Reading { component: "clock".into(), metric: "offset_ms", value: offset_ms as f64 });
        }
        run.watching.measured(readings).await;
        run.watching.catch_up().await;
        self.log(now);
    }

    /// The next report, if something waits and none is under way.
    pub(super) async fn report(&mut self, now: UnixMs) -> Option<ReportRequest> {
        let run = self.run.as_mut()?;
        run.advance(now);
        let stats = run.spool.stats();
        if run.under_way.is_some() || stats.fault_records + stats.sample_records == 0 {
            return None;
        }
        let records = run.spool.next_batch(200, 900 << 10).await.expect("the spool reads");
        run.attempt += 1;
        run.under_way = Some(run.attempt);
        Some(ReportRequest {
            version: WIRE_VERSION,
            epoch: run.spool.epoch().clone(),
            attempt: run.attempt,
            nonce_echo: run.spool.nonce(),
            sent_at: run.time.now(),
            sent_mono_ms: run.spool.mono_ms(),
            records,
        })
    }

    pub(super) fn poll(&mut self, now: UnixMs) -> Option<PollRequest> {
        let run = self.run.as_mut()?;
        run.advance(now);
        let current = run.current.borrow().clone();
        let stats = run.spool.stats();
        Some(PollRequest {
            version: WIRE_VERSION,
            epoch: run.spool.epoch().clone(),
            sent_at: run.time.now(),
            wait_s: 55,
            values: current.values(),
            services: current.services,
            backlog: stats.fault_records + stats.sample_records,
            done: Vec::new(),
            patches: Vec::new(),
        })
    }

    pub(super) fn waits(&self) -> bool {
        self.run.as_ref().is_some_and(|run| {
            let stats = run.spool.stats();
            stats.fault_records + stats.sample_records > 0
        })
    }

    /// Writes the side log: what became open or over in the spool since the last look.
    pub(super) fn log(&mut self, now: UnixMs) {
        let Some(run) = &self.run else { return };
        let open: BTreeMap<String, FaultKey> =
            run.spool.open_episodes().into_iter().map(|open| (open.episode.to_string(), open.last.key)).collect();
        for known in self.accepted.iter_mut().filter(|known| known.cleared_at.is_none() && !known.rewound) {
            if !open.contains_key(&known.episode.to_string()) {
                known.cleared_at = Some(now);
            }
        }
        for open in run.spool.open_episodes() {
            if !self.accepted.iter().any(|known| known.episode == open.episode) {
                self.accepted.push(Accepted {
                    key: open.last.key,
                    episode: open.episode,
                    raised_at: now,
                    cleared_at: None,
                    rewound: false,
                });
            }
        }
    }

    /// Copies the disk.
    pub(super) fn snapshot(&self) {
        let to = self.dir.join("snapshot");
        drop(std::fs::remove_dir_all(&to));
        copy_dir(&self.spool_dir(), &to);
    }

    /// Another machine with a copy of this one's disk.
    pub(super) fn copied(&self, home: &Path, copies: usize) -> Self {
        let place = Place { name: format!("{}-copy{copies}", self.place.name), ..self.place.clone() };
        let copy = Self::new(place, home);
        copy_dir(&self.spool_dir(), &copy.spool_dir());
        copy
    }

    /// Puts the copy back; what was accepted since is out of the spool.
    pub(super) fn rewind(&mut self, taken_at: UnixMs) {
        self.kill();
        wait_for_lock(&self.spool_dir());
        std::fs::remove_dir_all(self.spool_dir()).expect("removed");
        copy_dir(&self.dir.join("snapshot"), &self.spool_dir());
        for known in &mut self.accepted {
            let later = known.raised_at > taken_at || known.cleared_at.is_some_and(|at| at > taken_at);
            known.rewound |= later;
        }
    }
}

impl Run {
    /// The machine's clocks go on with the world's.
    pub(super) fn advance(&mut self, now: UnixMs) {
        let by = u64::try_from(now.since_ms(self.advanced_to)).unwrap_or(0);
        self.time.advance(Duration::from_millis(by));
        self.advanced_to = now;
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The thread of the run before lets go of its lock when it has seen that nobody asks any more.
fn wait_for_lock(spool_dir: &Path) {
    let Ok(file) = std::fs::File::options().write(true).open(spool_dir.join("lock")) else { return };
    while file.try_lock().is_err() {
        std::thread::yield_now();
    }
}
