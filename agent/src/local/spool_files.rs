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
use crate::atomic_file::hand_contents_to_owner_of;
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
            hand_contents_to_owner_of(dir)
                .with_context(|| format!("spool {}: can't be given to the agent's user", dir.display()))?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::Lang;
    use super::*;

    #[test]
    fn what_root_repairs_still_belongs_to_the_agents_user_and_to_nobody_else() {
        const AGENT: u32 = 4711;
        let dir = tempfile::tempdir().unwrap();
        let (limits, time) = (Limits { max_bytes: 16 << 20 }, TimeSource::system());
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(dir.path(), Some(AGENT), Some(AGENT)).unwrap();
        }
        spool(SpoolCommand::Repair, dir.path(), limits, &time, Output { json: true, lang: Lang::En }).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let (found, name) = (entry.metadata().unwrap(), entry.file_name());
            assert_eq!(found.mode() & 0o077, 0, "{name:?} is closed to others");
            assert!(!is_root || found.uid() == AGENT, "{name:?} belongs to {}", found.uid());
        }
    }
}
