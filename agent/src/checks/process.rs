//! Processes of this machine, by name or command line, from /proc (proc(5)).
//!
//! Reading another process's command line may wait for a lock in the kernel: it is done aside. Zombies don't count.

use std::path::Path;
use std::time::Duration;

use super::{Checker, Found};
use crate::config::ProcessCheck;

pub(super) async fn ask(checker: &Checker, check: &ProcessCheck, object: &str, limit: Duration) -> Found {
    let (proc, wanted) = (checker.proc.clone(), check.clone());
    match checker.aside.run(object, limit, move || count(&proc, &wanted)).await {
        Ok(Some(count)) if count >= check.min_count => Found::up(format!("{count} running")),
        Ok(Some(count)) => Found::down("missing", format!("{count} running, {} expected", check.min_count)),
        Ok(None) => Found::cannot_run(format!("{} can't be read", checker.proc.display())),
        Err(error) => Found::cannot_run(error.to_string()),
    }
}

fn count(proc: &Path, wanted: &ProcessCheck) -> Option<u32> {
    let entries = std::fs::read_dir(proc).ok()?.flatten();
    let numbered = entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    Some(numbered.filter(|entry| matches(&entry.path(), wanted)).count().try_into().unwrap_or(u32::MAX))
}

fn matches(process: &Path, wanted: &ProcessCheck) -> bool {
    let Ok(stat) = std::fs::read(process.join("stat")) else { return false };
    let stat = String::from_utf8_lossy(&stat);
    // PID (NAME) STATE ..: the name may itself hold brackets.
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { return false };
    if rest.trim_start().starts_with(['Z', 'X']) {
        return false;
    }
    // The kernel keeps 15 bytes of the name; only a name of that length, or a command line asked for, needs the arguments read.
    let named = wanted.process.as_deref().is_none_or(|wanted| wanted == name);
    let maybe_cut = wanted.process.as_deref().is_some_and(|wanted| wanted.starts_with(name) || name.len() < wanted.len());
    if (named && wanted.cmdline.is_none()) || !(named || maybe_cut) {
        return named;
    }
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments);
    let program = arguments.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let named = named || wanted.process.as_deref() == Some(program);
    named && wanted.cmdline.as_deref().is_none_or(|part| arguments.replace('\0', " ").contains(part))
}
