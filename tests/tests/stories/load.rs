//! Peers that tell numbered faults as agents do: raised, cleared, raised again, sent until acknowledged, sometimes once more after
//! that, at any door of the service. What they raised, cleared and heard acknowledged is the side log that the oracle reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::collector::CUSTOMER;
use e2e::patience::A_WHILE;
use e2e::seed::Seed;
use e2e::wire::WireAgent;
use mainstay_shared::api::PATH_REPORTS;
use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::report::ReportReply;
use mainstay_shared::time_source::TimeSource;

use crate::scene::{Scene, clear, raise};

/// Services that each peer declares; the last is one of a pair with another peer's.
const SERVICES: [&str; 4] = ["door", "desk", "vault", "core"];
/// The longest that a peer waits for one answer, unless told otherwise.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What is under way at this moment.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    asking: AtomicUsize,
    asked: AtomicU64,
    refused: AtomicU64,
    landed: AtomicBool,
}

impl Flight {
    /// Whether everything is acknowledged.
    pub(crate) fn has_landed(&self) -> bool {
        self.landed.load(Ordering::SeqCst)
    }

    /// Reports whose answer has not come.
    pub(crate) fn asking(&self) -> usize {
        self.asking.load(Ordering::SeqCst)
    }

    /// Reports sent so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Reports that were answered by something else than an acknowledgement.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

/// One peer and its side log.
pub(crate) struct LoadedPeer {
    wire: WireAgent,
    seed: Seed,
    doors: Vec<String>,
    answer_limit: Duration,
    /// What fails now, and the record that said so.
    failing: BTreeMap<&'static str, Record>,
    waiting: Vec<Record>,
    /// Heard acknowledged.
    pub(crate) accepted: Vec<Record>,
    /// The slowest answer of the last delivery.
    pub(crate) slowest: Duration,
}

impl LoadedPeer {
    /// Which appliance it is.
    pub(crate) fn appliance(&self) -> String {
        self.wire.enrolment.appliance.to_string()
    }

    /// Episodes that it raised and heard acknowledged.
    pub(crate) fn raised(&self) -> BTreeSet<String> {
        self.of_kind(FaultChangeKind::Raised).map(|record| record.id.to_string()).collect()
    }

    /// Episodes whose end it heard acknowledged.
    pub(crate) fn cleared(&self) -> BTreeSet<String> {
        let episode = |record: &Record| match &record.payload {
            Payload::Fault(fault) => fault.episode.as_ref().map(ToString::to_string),
            _ => None,
        };
        self.of_kind(FaultChangeKind::Cleared).filter_map(episode).collect()
    }

    /// How long it waits for one answer before it asks again, at another door where there is one.
    pub(crate) fn waits_at_most(&mut self, limit: Duration) {
        self.answer_limit = limit;
    }

    fn of_kind(&self, kind: FaultChangeKind) -> impl Iterator<Item = &Record> {
        self.accepted.iter().filter(move |record| matches!(&record.payload, Payload::Fault(fault) if fault.kind == kind))
    }

    /// One to three of its services fail or recover.
    pub(crate) fn lives_on(&mut self) {
        for _ in 0..=self.seed.below(3) {
            let service = SERVICES[self.seed.place(SERVICES.len())];
            let record = match self.failing.remove(service) {
                Some(raised) => clear(&mut self.wire, service, &raised),
                None => {
                    let raised = raise(&mut self.wire, service);
                    self.failing.insert(service, raised.clone());
                    raised
                }
            };
            self.waiting.push(record);
        }
    }

    /// Sends what waits until all of it is acknowledged.
    pub(crate) async fn deliver(&mut self, flight: &Flight) -> Result<()> {
        let time = TimeSource::system();
        self.slowest = Duration::ZERO;
        let mut last = String::new();
        while !self.waiting.is_empty() {
            if time.monotonic() > A_WHILE {
                bail!("{} has not been acknowledged for {A_WHILE:?}: {last}", self.appliance());
            }
            if self.seed.once_in(4) {
                self.moves();
            }
            let count = 1 + self.seed.place(self.waiting.len());
            let begun = time.monotonic();
            match self.ask(flight, count).await {
                Ok(reply) => self.keep(&reply)?,
                Err(error) => {
                    last = format!("{error:#}");
                    flight.refused.fetch_add(1, Ordering::SeqCst);
                    self.moves();
                    tokio::time::sleep(Duration::from_millis(20 + self.seed.below(60))).await;
                }
            }
            self.slowest = self.slowest.max(time.monotonic().saturating_sub(begun));
        }
        if self.seed.once_in(4)
            && let Some(last) = self.accepted.last().cloned()
        {
            self.repeat(flight, last).await;
        }
        Ok(())
    }

    /// On to the next door.
    fn moves(&mut self) {
        if !self.doors.is_empty() {
            self.doors.rotate_left(1);
            self.wire = self.wire.at(&self.doors[0]);
        }
    }

    async fn ask(&mut self, flight: &Flight, count: usize) -> Result<ReportReply> {
        let request = self.wire.report_of(self.waiting[..count].to_vec());
        flight.asking.fetch_add(1, Ordering::SeqCst);
        flight.asked.fetch_add(1, Ordering::SeqCst);
        let answer = tokio::time::timeout(self.answer_limit, self.wire.send(PATH_REPORTS, &request)).await;
        flight.asking.fetch_sub(1, Ordering::SeqCst);
        answer.context("no answer in time")??.good()
    }

    fn keep(&mut self, reply: &ReportReply) -> Result<()> {
        ensure!(!reply.held, "{} is taken for a copy", self.appliance());
        ensure!(reply.refused.is_empty(), "{:?}", reply.refused);
        self.wire.nonce = Some(reply.nonce.clone());
        let is_acknowledged = |record: &Record| {
            reply.acks.iter().any(|ack| ack.epoch == record.id.epoch && ack.lane == record.id.lane && ack.seq >= record.id.seq)
        };
        let (done, left) = std::mem::take(&mut self.waiting).into_iter().partition(is_acknowledged);
        self.waiting = left;
        self.accepted.extend::<Vec<Record>>(done);
        Ok(())
    }

    /// A record that was acknowledged comes again: the answer may be lost, nothing may come of it.
    async fn repeat(&mut self, flight: &Flight, record: Record) {
        self.waiting.push(record);
        if let Ok(reply) = self.ask(flight, 1).await {
            self.wire.nonce = Some(reply.nonce);
        }
        self.waiting.clear();
    }
}

/// So many enrolled peers, neighbours paired by a service group; `doors` empty: the first collector's.
pub(crate) async fn peers(scene: &Scene, count: usize, doors: &[String], seed: &mut Seed) -> Result<Vec<LoadedPeer>> {
    let mut all = Vec::new();
    for n in 0..count {
        let wire = scene.peer(&format!("loaded-{n}"), &SERVICES).await?;
        all.push(LoadedPeer {
            wire,
            seed: seed.branch(),
            doors: doors.to_vec(),
            answer_limit: ANSWER_LIMIT,
            failing: BTreeMap::new(),
            waiting: Vec::new(),
            accepted: Vec::new(),
            slowest: Duration::ZERO,
        });
    }
    for (n, pair) in all.chunks_exact(2).enumerate() {
        let name = format!("pair-{n}");
        let members: Vec<String> = pair.iter().map(|peer| format!("{}:core", peer.appliance())).collect();
        let mut command = vec!["group", "set", &name, "--customer", CUSTOMER, "--name", &name, "--needs", "1"];
        members.iter().for_each(|member| command.extend(["--member", member]));
        scene.collector.command(&command).await?.good().context("group set")?;
    }
    Ok(all)
}

/// All of them deliver at once.
pub(crate) async fn deliver_all(peers: &mut [LoadedPeer], flight: &Flight) -> Result<()> {
    futures_util::future::try_join_all(peers.iter_mut().map(|peer| peer.deliver(flight))).await?;
    flight.landed.store(true, Ordering::SeqCst);
    Ok(())
}
