//! What a peer of the load says: the report of the real agent with eleven values, or one alert to Alertmanager.
//!
//! Messages are made of the wire's own types, never of templates: what they cost here is counted against us and printed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use mainstay_shared::api::{PATH_REPORTS, WIRE_VERSION};
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{EpisodeId, Epoch, Lane, Nonce, RecordId};
use mainstay_shared::record::{Folded, Payload, Record, Samples};
use mainstay_shared::report::{ReportReply, ReportRequest};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;

/// What a small appliance measures.
pub const METRICS: [&str; 11] = [
    "clock.offset_ms",
    "cpu.busy_percent",
    "cpu.iowait_percent",
    "disk./.free_bytes",
    "disk./.inodes_used_percent",
    "disk./.used_percent",
    "load.avg1",
    "memory.available_bytes",
    "memory.used_percent",
    "net.eth0.rx_bytes_per_s",
    "net.eth0.tx_bytes_per_s",
];

/// One peer's way of speaking.
pub enum Speaker {
    /// As the agent does.
    Agent(Box<Agent>),
    /// To Alertmanager: one alert a request.
    Alerts {
        /// Where, for the head.
        address: SocketAddr,
        /// Which of the alerts.
        name: usize,
    },
}

/// Where a worker writes its requests: the agent's compression, its tables used again and again.
pub struct Page {
    pub(super) out: Vec<u8>,
    packer: zstd::bulk::Compressor<'static>,
}

impl Page {
    /// An empty one.
    ///
    /// # Errors
    /// When the compressor can't be made.
    pub fn new() -> Result<Self> {
        Ok(Self { out: Vec::new(), packer: zstd::bulk::Compressor::new(3)? })
    }
}

/// An agent's state, as far as reports need it.
pub struct Agent {
    address: SocketAddr,
    epoch: Epoch,
    attempt: u64,
    nonce: Option<Nonce>,
    next_seq: [u64; 2],
    open: Option<(EpisodeId, FaultKey)>,
    faults: u64,
    time: TimeSource,
}

impl Agent {
    /// An agent that has just started.
    #[must_use]
    pub fn new(address: SocketAddr, time: TimeSource) -> Self {
        Self {
            address,
            epoch: Epoch::random(&SystemRandom::new()),
            attempt: 0,
            nonce: None,
            next_seq: [1, 1],
            open: None,
            faults: 0,
            time,
        }
    }

    fn record(&mut self, lane: Lane, payload: impl FnOnce(&RecordId) -> Payload) -> Record {
        let next = &mut self.next_seq[usize::from(lane == Lane::Sample)];
        let id = RecordId { epoch: self.epoch.clone(), lane, seq: *next };
        *next += 1;
        let mono_ms = u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX);
        Record { payload: payload(&id), id, at: self.time.now(), mono_ms }
    }

    fn samples(&mut self) -> Record {
        let now = self.time.now();
        let seed = self.next_seq[1].wrapping_mul(2_654_435_761) ^ u64::try_from(now.0).unwrap_or(0);
        let folded = |(n, name): (usize, &&str)| {
            let last = f64::from(u32::try_from((seed >> (n * 3)) % 100_000).unwrap_or(0)) / 1000.0;
            ((*name).to_owned(), Folded { min: last / 2.0, avg: last * 0.75, max: last * 2.0, last })
        };
        let metrics: BTreeMap<String, Folded> = METRICS.iter().enumerate().map(folded).collect();
        self.record(Lane::Sample, |_| Payload::Samples(Samples { from: now.plus_ms(-300_000), to: now, metrics }))
    }

    /// Opens a fault that was not there before, or clears the one that is.
    fn fault(&mut self) -> Record {
        let at = self.time.now();
        let open = self.open.take();
        let (kind, episode, key) = match &open {
            Some((episode, key)) => (FaultChangeKind::Cleared, Some(episode.clone()), key.clone()),
            None => {
                self.faults += 1;
                let key = FaultKey::new(format!("disk:/srv/{}", self.faults), "disk_space_low");
                (FaultChangeKind::Raised, None, key)
            }
        };
        let grounds = FaultGrounds {
            value: Some(96.2),
            unit: "percent".into(),
            threshold: Some(95.0),
            lasted_ms: 30_000,
            ..Default::default()
        };
        let told = key.clone();
        let record = self.record(Lane::Fault, |_| {
            let summary = "96.2 % used".to_owned();
            Payload::Fault(FaultChange {
                kind,
                key: told,
                episode,
                level: Level::Warning,
                summary,
                grounds,
                at,
                present_at_start: false,
            })
        });
        if open.is_none() {
            self.open = Some((record.id.clone(), key));
        }
        record
    }

    fn write(&mut self, Page { out, packer }: &mut Page, with_fault: bool) -> Result<()> {
        let mut records = Vec::with_capacity(2);
        if with_fault {
            records.push(self.fault());
        }
        records.push(self.samples());
        self.attempt += 1;
        let request = ReportRequest {
            version: WIRE_VERSION,
            epoch: self.epoch.clone(),
            attempt: self.attempt,
            nonce_echo: self.nonce.clone(),
            sent_at: self.time.now(),
            sent_mono_ms: u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX),
            records,
        };
        let body = packer.compress(&serde_json::to_vec(&request)?)?;
        let version = env!("CARGO_PKG_VERSION");
        // The head as the agent's HTTP library writes it.
        let head = format!(
            "POST {PATH_REPORTS} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-encoding: zstd\r\naccept: */*\r\n\
             user-agent: mainstay-agent/{version}\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&body);
        Ok(())
    }
}

impl Speaker {
    /// Puts the next request onto `page`.
    pub(super) fn write(&mut self, page: &mut Page, with_fault: bool) -> Result<()> {
        page.out.clear();
        match self {
            Self::Agent(agent) => agent.write(page, with_fault),
            Self::Alerts { address, name } => {
                let body = format!(
                    r#"[{{"labels":{{"alertname":"disk_space_low","appliance":"a-{name}","component":"disk:/var"}},"annotations":{{"summary":"96.2 % used"}}}}]"#
                );
                let length = body.len();
                let head = format!(
                    "POST /api/v2/alerts HTTP/1.1\r\ncontent-type: application/json\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n"
                );
                page.out.extend_from_slice(head.as_bytes());
                page.out.extend_from_slice(body.as_bytes());
                Ok(())
            }
        }
    }

    /// Takes the answer in, as the agent does.
    pub(super) fn heard(&mut self, body: &[u8]) -> Result<()> {
        if let Self::Agent(agent) = self {
            let reply: ReportReply = serde_json::from_slice(body)?;
            agent.nonce = Some(reply.nonce);
        }
        Ok(())
    }
}
