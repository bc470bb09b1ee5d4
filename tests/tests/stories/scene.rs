//! What stories share: a collector with its desk, the records that a peer on the wire tells, and what to look for in tickets.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::desk::Desk;
use e2e::wire::WireAgent;
use mainstay_shared::check::{CheckResult, DeclaredService, ServiceState};
use mainstay_shared::fault::{CODE_SERVICE_DOWN, FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{EpisodeId, Lane};
use mainstay_shared::record::{Payload, Record, Started};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use serde_json::Value;

/// A serving collector and a desk at it.
pub(crate) struct Scene {
    pub(crate) collector: Collector,
    pub(crate) desk: Desk,
}

impl Scene {
    pub(crate) async fn set(engine: Engine) -> Result<Self> {
        Self::with(engine, Settings::default()).await
    }

    pub(crate) async fn with(engine: Engine, settings: Settings) -> Result<Self> {
        let collector = Collector::serving(engine, settings).await?;
        let desk = Desk::of(&collector).await?;
        Ok(Self { collector, desk })
    }

    /// A peer on the wire that has told which services it declares.
    pub(crate) async fn peer(&self, hostname: &str, services: &[&str]) -> Result<WireAgent> {
        let join = self.collector.join_string(&[]).await?;
        let mut peer = WireAgent::enrol(&self.collector.agents_url(), &join, hostname).await?;
        let started = peer.record(Lane::Fault, started(services));
        peer.report(vec![started]).await.context("the first report")?;
        Ok(peer)
    }

    /// Requests of agents that the collector has counted since its start.
    pub(crate) async fn requests(&self) -> Result<u64> {
        let url = format!("{}/metrics", self.collector.web_url());
        let text = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.text().await?;
        let counted = text.lines().filter(|line| line.starts_with("mainstay_intake_messages_total"));
        counted.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    }

    /// How many tickets there are about each component.
    pub(crate) async fn tickets_by_component(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for ticket in self.desk.tickets().await? {
            *counts.entry(text(&ticket, "component")?.to_owned()).or_default() += 1;
        }
        Ok(counts)
    }
}

/// The record that tells again, in a new run, what `raised` began.
pub(crate) fn restate(peer: &mut WireAgent, raised: &Record) -> Result<Record> {
    let Payload::Fault(fault) = &raised.payload else { anyhow::bail!("only a fault is told again") };
    let service = fault.key.service().context("a service's fault")?.to_owned();
    Ok(peer.record(Lane::Fault, change(&service, FaultChangeKind::Restated, Some(raised.id.clone()))))
}

/// The first record of a run.
pub(crate) fn started(services: &[&str]) -> Payload {
    Payload::Started(Started {
        agent_version: "0.1.0".into(),
        boot_id: "5e0e9c1e-0000-4000-8000-000000000001".into(),
        uptime_s: 1000,
        hostname: "peer".into(),
        platform: "test".into(),
        after_crash: false,
        safe_mode: false,
        installed: None,
        services: services
            .iter()
            .map(|name| DeclaredService {
                name: (*name).to_owned(),
                title: String::new(),
                checks: vec!["page".into()],
                interval_s: 60,
                depends_on: Vec::new(),
            })
            .collect(),
    })
}

/// A change of `service`'s `service_down`.
pub(crate) fn change(service: &str, kind: FaultChangeKind, episode: Option<EpisodeId>) -> Payload {
    let now = TimeSource::system().now();
    let checks = if kind == FaultChangeKind::Raised { tries(now) } else { Vec::new() };
    Payload::Fault(FaultChange {
        kind,
        key: FaultKey::new(format!("service:{service}"), CODE_SERVICE_DOWN),
        episode,
        level: Level::Serious,
        summary: format!("{service}: connection refused"),
        grounds: FaultGrounds { checks, last_known: Some(ServiceState::Up), ..FaultGrounds::default() },
        at: now,
        present_at_start: false,
    })
}

/// Three tries of one check, all refused.
fn tries(now: UnixMs) -> Vec<CheckResult> {
    (1..=3)
        .map(|attempt| CheckResult {
            check: "page".into(),
            kind: "http".into(),
            state: ServiceState::Down,
            reason: "refused".into(),
            text: "connection refused".into(),
            took_ms: 1,
            attempt,
            at: now,
            perf_data: String::new(),
        })
        .collect()
}

/// The record that raises `service_down` of a service.
pub(crate) fn raise(peer: &mut WireAgent, service: &str) -> Record {
    peer.record(Lane::Fault, change(service, FaultChangeKind::Raised, None))
}

/// The record that clears what `raised` began.
pub(crate) fn clear(peer: &mut WireAgent, service: &str, raised: &Record) -> Record {
    peer.record(Lane::Fault, change(service, FaultChangeKind::Cleared, Some(raised.id.clone())))
}

/// A text field of a JSON answer.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("a text {name:?} in {value}"))
}

/// The kinds of a ticket's events, in order.
pub(crate) fn event_kinds(ticket: &Value) -> Vec<String> {
    let entries = ticket["timeline"].as_array().cloned().unwrap_or_default();
    entries.iter().filter_map(|entry| entry["event"]["type"].as_str().map(str::to_owned)).collect()
}
