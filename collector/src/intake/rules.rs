//! What intake decides on a single record: pure. Where it stands in its lane, whether it is fit to be taken, when it happened.
//!
//! Text is cleaned on the way in, names are refused when they could not be one (R11). A refused record is acknowledged too: it
//! must not come again and never blocks the queue.

use std::collections::BTreeMap;

use mainstay_shared::check::{CheckResult, DeclaredService};
use mainstay_shared::fault::FaultChange;
use mainstay_shared::ids::{Epoch, Lane, RecordId};
use mainstay_shared::limits::{
    MAX_CHECKS, MAX_NAME_CHARS, MAX_OPEN_FAULTS, MAX_RECORD_BYTES, MAX_SERVICES, MAX_TEXT_CHARS, MAX_VALUES, clean_text,
    is_good_name,
};
use mainstay_shared::patch::{Installed, MAX_OUTPUT_CHARS, PatchReport};
use mainstay_shared::record::{Folded, Gap, Goodbye, Payload, Record, Started, TestMessage};
use mainstay_shared::time_source::UnixMs;
use ring::digest;

/// Where a record stands in its lane, whose records up to `mark` are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next one.
    Next,
    /// Later than the next: these ranges are missing and no gap record explains them.
    AfterHoles(Vec<(u64, u64)>),
    /// Settled before: a replay, or one that was thought lost.
    Before,
}

/// Finds a record's place. `gaps` are the ranges that gap records of the same report explain.
pub(crate) fn place(mark: u64, seq: u64, gaps: &[(u64, u64)]) -> Place {
    if seq <= mark {
        return Place::Before;
    }
    let mut holes = Vec::new();
    let mut from = mark + 1;
    while from < seq {
        match gaps.iter().find(|(first, last)| *first <= from && from <= *last) {
            Some((_, last)) => from = last.saturating_add(1),
            None => {
                let explained = gaps.iter().map(|(first, _)| *first).filter(|first| *first > from).min();
                let to = explained.map_or(seq - 1, |first| (first - 1).min(seq - 1));
                holes.push((from, to));
                from = to + 1;
            }
        }
    }
    if holes.is_empty() { Place::Next } else { Place::AfterHoles(holes) }
}

/// When and by which clocks a report was sent: what a record's age is computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) received_at: UnixMs,
    pub(crate) epoch: Epoch,
    pub(crate) sent_mono_ms: u64,
}

/// The clocks of a record: when it was made by its maker's reckoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made<'a> {
    pub(crate) epoch: &'a Epoch,
    pub(crate) at: UnixMs,
    pub(crate) mono_ms: u64,
}

/// When a record was made, by the collector's clock: receipt minus its monotonic age within the sender's epoch; for an older
/// epoch, whose monotonic clock is gone, what the agent's wall clock said, but never later than receipt.
pub(crate) fn occurred_at(frame: &Frame, record: Made<'_>) -> UnixMs {
    if *record.epoch == frame.epoch {
        let age_ms = frame.sent_mono_ms.saturating_sub(record.mono_ms);
        frame.received_at.plus_ms(i64::try_from(age_ms).unwrap_or(i64::MAX).saturating_neg())
    } else {
        record.at.min(frame.received_at)
    }
}

/// Why a record is refused, for a person at the appliance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// Its number can't be one.
    #[error("its number is {0}: expected 1 to 9223372036854775807")]
    Number(u64),
    /// It is larger than one record may be.
    #[error("it is {0} bytes of JSON: at most {MAX_RECORD_BYTES} are accepted")]
    TooLarge(usize),
    /// A name that can't be one.
    #[error("{0}: expected 1 to {MAX_NAME_CHARS} characters without control characters")]
    Name(&'static str),
    /// More of something than is accepted.
    #[error("{what}: at most {most} are accepted")]
    TooMany { what: &'static str, most: usize },
    /// A kind of record in a lane where it does not belong.
    #[error("a record of this kind does not travel in the {0} lane")]
    Lane(&'static str),
    /// A range that is none.
    #[error("its range of numbers is empty or too long")]
    Range,
}

/// The payload of a record other than samples, with all its texts cleaned.
///
/// # Errors
/// [`Unfit`] says why the record is set aside.
pub(crate) fn clean(record: &Record, json_bytes: usize) -> Result<Payload, Unfit> {
    fit(&record.id, json_bytes)?;
    let in_fault_lane = record.id.lane == Lane::Fault;
    match &record.payload {
        Payload::Gap(gap) => clean_gap(gap).map(Payload::Gap),
        Payload::Fault(change) if in_fault_lane => clean_fault(change).map(Payload::Fault),
        Payload::Started(started) if in_fault_lane => clean_started(started).map(Payload::Started),
        Payload::Goodbye(goodbye) if in_fault_lane => {
            Ok(Payload::Goodbye(Goodbye { reason: word(&goodbye.reason), ..goodbye.clone() }))
        }
        Payload::OpenFaults(open) if in_fault_lane => {
            most(open.episodes.len(), MAX_OPEN_FAULTS, "open faults")?;
            Ok(Payload::OpenFaults(open.clone()))
        }
        Payload::Patch(report) if in_fault_lane => clean_patch(report).map(Payload::Patch),
        Payload::Test(test) if in_fault_lane => Ok(Payload::Test(TestMessage { mark: word(&test.mark), note: line(&test.note) })),
        _ => Err(Unfit::Lane(record.id.lane.as_str())),
    }
}

fn fit(id: &RecordId, json_bytes: usize) -> Result<(), Unfit> {
    if id.seq == 0 || i64::try_from(id.seq).is_err() {
        return Err(Unfit::Number(id.seq));
    }
    if json_bytes > MAX_RECORD_BYTES { Err(Unfit::TooLarge(json_bytes)) } else { Ok(()) }
}

fn clean_fault(change: &FaultChange) -> Result<FaultChange, Unfit> {
    name(&change.key.component, "component")?;
    name(&change.key.code, "code")?;
    most(change.grounds.checks.len(), MAX_CHECKS * 3, "tries in the grounds")?;
    let mut clean = change.clone();
    clean.summary = line(&change.summary);
    clean.grounds.unit = word(&change.grounds.unit);
    clean.grounds.checks = change.grounds.checks.iter().map(clean_check).collect::<Result<_, _>>()?;
    Ok(clean)
}

fn clean_check(check: &CheckResult) -> Result<CheckResult, Unfit> {
    name(&check.check, "check")?;
    Ok(CheckResult {
        kind: word(&check.kind),
        reason: word(&check.reason),
        text: line(&check.text),
        perf_data: line(&check.perf_data),
        ..check.clone()
    })
}

fn clean_started(started: &Started) -> Result<Started, Unfit> {
    most(started.services.len(), MAX_SERVICES, "declared services")?;
    let services = started.services.iter().map(clean_service).collect::<Result<_, _>>()?;
    Ok(Started {
        agent_version: word(&started.agent_version),
        boot_id: word(&started.boot_id),
        hostname: word(&started.hostname),
        platform: line(&started.platform),
        services,
        installed: started.installed.as_ref().map(clean_installed),
        ..started.clone()
    })
}

fn clean_installed(installed: &Installed) -> Installed {
    Installed {
        product: word(&installed.product),
        version: word(&installed.version),
        hardware: word(&installed.hardware),
        patch_consent: word(&installed.patch_consent),
        action_consent: word(&installed.action_consent),
    }
}

/// A report on a signed file, from a record or from a receipt.
///
/// # Errors
/// [`Unfit`] says why it is set aside.
pub(crate) fn clean_patch(report: &PatchReport) -> Result<PatchReport, Unfit> {
    let is_hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if report.number == 0 || i64::try_from(report.number).is_err() {
        return Err(Unfit::Number(report.number));
    }
    if !is_hex(&report.sha256, 64) || report.offer_id.as_ref().is_some_and(|offer| !is_hex(offer, 32)) {
        return Err(Unfit::Name("file's hash or offer"));
    }
    name(&report.product, "product")?;
    name(&report.to_version, "version")?;
    Ok(PatchReport {
        from_version: report.from_version.as_deref().map(word),
        reason: word(&report.reason),
        detail: line(&report.detail),
        output: lines(&report.output, MAX_OUTPUT_CHARS),
        ..report.clone()
    })
}

fn clean_service(service: &DeclaredService) -> Result<DeclaredService, Unfit> {
    name(&service.name, "service")?;
    most(service.checks.len(), MAX_CHECKS, "checks of a service")?;
    most(service.depends_on.len(), MAX_SERVICES, "components that a service depends on")?;
    for text in service.checks.iter().chain(&service.depends_on) {
        name(text, "check or component")?;
    }
    Ok(DeclaredService { title: line(&service.title), ..service.clone() })
}

/// Whether samples are fit to be taken as they are: there is nothing in them to clean.
///
/// # Errors
/// [`Unfit`] says why the record is set aside.
pub(crate) fn fit_samples(id: &RecordId, metrics: &BTreeMap<String, Folded>, json_bytes: usize) -> Result<(), Unfit> {
    fit(id, json_bytes)?;
    most(metrics.len(), MAX_VALUES, "metrics")?;
    metrics.keys().try_for_each(|metric| name(metric, "metric"))
}

fn clean_gap(gap: &Gap) -> Result<Gap, Unfit> {
    let fits = |seq: u64| seq > 0 && i64::try_from(seq).is_ok();
    if gap.from_seq > gap.to_seq || !fits(gap.from_seq) || !fits(gap.to_seq) || i64::try_from(gap.count).is_err() {
        return Err(Unfit::Range);
    }
    Ok(Gap { why: word(&gap.why), ..gap.clone() })
}

/// A record that came under the id of another one is a new event: its episode gets an id of its own, the same at every try.
pub(crate) fn id_of_its_own(id: &RecordId, hash: &str) -> RecordId {
    let digest = hex::encode(digest::digest(&digest::SHA256, format!("{id} {hash}").as_bytes()));
    let epoch = digest.get(..32).and_then(|hex| hex.parse().ok()).unwrap_or_else(|| id.epoch.clone());
    RecordId { epoch, ..id.clone() }
}

fn name(text: &str, what: &'static str) -> Result<(), Unfit> {
    if is_good_name(text) { Ok(()) } else { Err(Unfit::Name(what)) }
}

fn most(count: usize, most: usize, what: &'static str) -> Result<(), Unfit> {
    if count <= most { Ok(()) } else { Err(Unfit::TooMany { what, most }) }
}

fn word(text: &str) -> String {
    clean_text(text, MAX_NAME_CHARS)
}

fn line(text: &str) -> String {
    clean_text(text, MAX_TEXT_CHARS)
}

/// Text that keeps its lines; of what is too long, the end.
fn lines(text: &str, max_chars: usize) -> String {
    let skipped = text.chars().count().saturating_sub(max_chars);
    let kept: String = text.chars().skip(skipped).collect();
    kept.lines().map(|line| clean_text(line, max_chars)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
