//! A report made ready for the batch: each record judged, its text cleaned, its samples packed. Pure work for the processor, done
//! beside the one transaction at a time and never inside it.

use std::cell::RefCell;

use anyhow::Context as _;
use mainstay_shared::ids::{Epoch, Lane, Nonce, RecordId};
use mainstay_shared::record::{Payload, Record};
use mainstay_shared::report::ReportRequest;
use mainstay_shared::time_source::UnixMs;

use super::rules::{self, Unfit};

/// The level of compression of a record of samples: small blocks, many of them.
const ZSTD_LEVEL: i32 = 3;
const LONGEST_SPAN_MS: i64 = 86_400_000;

thread_local! {
    /// Making a compressor costs more than a record of samples.
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// A report as the batch takes it.
#[derive(Debug)]
pub(crate) struct ReadyReport {
    pub(crate) epoch: Epoch,
    pub(crate) attempt: u64,
    pub(crate) nonce_echo: Option<Nonce>,
    pub(crate) sent_at: UnixMs,
    pub(crate) sent_mono_ms: u64,
    pub(crate) records: Vec<ReadyRecord>,
}

/// One record of it.
#[derive(Debug)]
pub(crate) struct ReadyRecord {
    pub(crate) id: RecordId,
    pub(crate) at: UnixMs,
    pub(crate) mono_ms: u64,
    pub(crate) content: Result<Content, Unfit>,
}

/// What a record that is fit to be taken says.
#[derive(Debug)]
pub(crate) enum Content {
    /// A span of samples, as it will be stored.
    Samples(PackedSamples),
    /// Anything else, with its texts cleaned; the record as it came, for the fault lane's rows and receipts.
    Other { payload: Box<Payload>, json: String, hash: String },
}

/// Samples of a span: the metrics' JSON in zstd.
#[derive(Debug)]
pub(crate) struct PackedSamples {
    pub(crate) span_ms: i64,
    pub(crate) metrics: Vec<u8>,
}

impl ReadyRecord {
    /// The range of numbers that a gap record explains.
    pub(crate) fn explains(&self) -> Option<(u64, u64)> {
        match &self.content {
            Ok(Content::Other { payload, .. }) => match &**payload {
                Payload::Gap(gap) => Some((gap.from_seq, gap.to_seq)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Makes a report ready.
///
/// # Errors
/// If a record can't be written as JSON or packed: never, but for a broken machine.
pub(crate) fn ready(request: ReportRequest) -> anyhow::Result<ReadyReport> {
    let ReportRequest { epoch, attempt, nonce_echo, sent_at, sent_mono_ms, records, .. } = request;
    let records = records.into_iter().map(ready_record).collect::<anyhow::Result<_>>()?;
    Ok(ReadyReport { epoch, attempt, nonce_echo, sent_at, sent_mono_ms, records })
}

fn ready_record(mut record: Record) -> anyhow::Result<ReadyRecord> {
    let content = match &mut record.payload {
        Payload::Samples(samples) if record.id.lane == Lane::Sample => {
            let (metrics, span_ms) = (std::mem::take(&mut samples.metrics), samples.to.since_ms(samples.from));
            let json = serde_json::to_vec(&metrics)?;
            let around_bytes = serde_json::to_vec(&record)?.len() - "{}".len();
            match rules::fit_samples(&record.id, &metrics, around_bytes + json.len()) {
                Ok(()) => Ok(Content::Samples(PackedSamples {
                    span_ms: span_ms.clamp(0, LONGEST_SPAN_MS),
                    metrics: pack(&json).context("packing samples")?,
                })),
                Err(unfit) => Err(unfit),
            }
        }
        _ => {
            let json = serde_json::to_string(&record)?;
            match rules::clean(&record, json.len()) {
                Ok(payload) => Ok(Content::Other { payload: Box::new(payload), hash: record.hash(), json }),
                Err(unfit) => Err(unfit),
            }
        }
    };
    Ok(ReadyRecord { id: record.id, at: record.at, mono_ms: record.mono_ms, content })
}

fn pack(json: &[u8]) -> std::io::Result<Vec<u8>> {
    PACKER.with_borrow_mut(|packer| match packer {
        Some(packer) => packer.compress(json),
        None => packer.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?).compress(json),
    })
}
