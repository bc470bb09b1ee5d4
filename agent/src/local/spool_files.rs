//! `spool check | dump | repair`: the queue on disk, looked at from outside.
//!
//! `check` and `dump` only read and work beside a running agent. `repair` takes the spool's lock, so it refuses while one runs;
//! it does what every start does: quarantine bad ranges, count them, put gap records in their place.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;

use super::words::pick;
use super::{Exit, Failure, Output, say, say_json};
use crate::spool::{Inspection, Limits, Spool, inspect, waiting_records};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpoolCommand {
    /// Say whether it is sound.
    Check,
    /// Print every waiting record, one JSON object per line.
    Dump,
    /// Put it right.
    Repair,
}

/// Does it.
///
/// # Errors
/// [`Exit::BadData`] when `check` finds something accepted missing, [`Exit::TryLater`] when `repair` meets a running agent.
pub(crate) fn spool(command: SpoolCommand, dir: &Path, limits: Limits, time: &TimeSource, output: Output) -> Result<(), Failure> {
    let unreadable = || format!("spool {}: can't be read", dir.display());
    match command {
        SpoolCommand::Check => report(&inspect(dir, limits).with_context(unreadable)?, output),
        SpoolCommand::Dump => {
            let mut out = std::io::stdout().lock();
            let mut print = |record: &_| writeln!(out, "{}", serde_json::to_string(record)?);
            match waiting_records(dir, limits, &mut print) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                done => Ok(done.with_context(unreadable)?),
            }
        }
        SpoolCommand::Repair => {
            drop(Spool::open(dir, limits, &SystemRandom::new(), time.clone())?);
            report(&inspect(dir, limits).with_context(unreadable)?, output)
        }
    }
}

fn report(found: &Inspection, output: Output) -> Result<(), Failure> {
    if output.json {
        say_json(found)?;
    } else {
        print(found, output);
    }
    if found.is_sound() {
        return Ok(());
    }
    let error =
        anyhow::anyhow!("accepted records are damaged or missing; a start of the agent or `spool repair` accounts for them");
    Err(Failure::new(Exit::BadData, error))
}

fn print(found: &Inspection, output: Output) {
    let lang = output.lang;
    say(format_args!("{} {} ({} B)", pick(lang, "段文件", "segments"), found.segments, found.bytes));
    say(format_args!("{} {}", pick(lang, "待发故障记录", "fault records waiting"), found.fault_records));
    say(format_args!("{} {}", pick(lang, "待发采样记录", "sample records waiting"), found.sample_records));
    say(format_args!("{} {}", pick(lang, "未恢复故障", "open faults"), found.open.len()));
    let lost = found.counters;
    say(format_args!(
        "{} {} / {} / {}",
        pick(lang, "累计丢弃 / 损坏 / 拒收", "dropped / corrupt / poison so far"),
        lost.dropped,
        lost.corrupt_records,
        lost.poison
    ));
    for bad in &found.bad_ranges {
        say(format_args!("{} {} @{} {} B {}", pick(lang, "损坏区段", "bad range"), bad.segment, bad.offset, bad.bytes, bad.kind));
    }
    for hole in &found.holes {
        say(format_args!("{} {}:{} {}-{}", pick(lang, "缺失记录", "missing"), hole.epoch, hole.lane, hole.from_seq, hole.to_seq));
    }
}
