//! Finds and merges the files of a configuration: service profiles, `agent.toml`, then `agent.d/*.toml` in name order.
//!
//! Tables merge, a later scalar or list replaces an earlier one, `[[service]]` tables are appended. A profile may hold services
//! only: it comes with the product and must never change how the agent itself behaves. Missing files are no error.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::section::{ConfigError, Findings};

/// A file as it was read.
struct Source {
    /// Its name in messages: `agent.toml`, `agent.d/10-web.toml`, `profiles.d/gateway.toml`.
    name: String,
    table: Table,
}

/// The merged configuration before it is checked.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// Everything but the services.
    pub(crate) table: Table,
    /// The services, each with its file.
    pub(crate) services: Vec<(String, Table)>,
    /// The files that were read, in order.
    pub(crate) files: Vec<PathBuf>,
}

/// Reads what belongs to the configuration at `path`; what can't be read or parsed goes into `findings`.
pub(crate) fn read(path: &Path, findings: &mut Findings) -> Merged {
    let mut merged = Merged::default();
    for (label, file, profile) in listed(path, findings) {
        let Some(source) = read_one(label, &file, findings) else { continue };
        merged.files.push(file);
        take(source, profile, &mut merged, findings);
    }
    merged
}

/// The same of one file's text.
pub(crate) fn read_text(text: &str, findings: &mut Findings) -> Merged {
    let mut merged = Merged::default();
    if let Some(source) = parse("agent.toml".to_owned(), text, findings) {
        take(source, false, &mut merged, findings);
    }
    merged
}

/// Label, path, and whether it is a profile, in the order of merging.
fn listed(path: &Path, findings: &Findings) -> Vec<(String, PathBuf, bool)> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let main = path.file_name().map_or_else(|| "agent.toml".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut files = drop_ins(folder, "profiles.d", true, findings);
    files.push((main, path.to_owned(), false));
    files.extend(drop_ins(folder, "agent.d", false, findings));
    files
}

fn drop_ins(folder: &Path, name: &str, profile: bool, findings: &Findings) -> Vec<(String, PathBuf, bool)> {
    let entries = match std::fs::read_dir(folder.join(name)) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                findings.add(unreadable(name, &error));
            }
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (format!("{name}/{}", file.file_name().unwrap_or_default().to_string_lossy()), file, profile))
        .collect()
}

fn read_one(name: String, file: &Path, findings: &Findings) -> Option<Source> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            findings.add(unreadable(&name, &error));
            return None;
        }
    };
    parse(name, &text, findings)
}

fn parse(name: String, text: &str, findings: &Findings) -> Option<Source> {
    match text.parse::<Table>() {
        Ok(table) => Some(Source { name, table }),
        Err(error) => {
            let line = error
                .span()
                .map_or(1, |span| text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1);
            let problem = format!("line {line}: {}", error.message());
            findings.add(ConfigError { file: name, key: String::new(), value: None, problem });
            None
        }
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> ConfigError {
    ConfigError { file: name.to_owned(), key: String::new(), value: None, problem: format!("cannot be read: {error}") }
}

fn take(mut source: Source, profile: bool, merged: &mut Merged, findings: &mut Findings) {
    match source.table.remove("service") {
        Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
            let tables = items.into_iter().filter_map(|item| if let Value::Table(table) = item { Some(table) } else { None });
            merged.services.extend(tables.map(|table| (source.name.clone(), table)));
        }
        Some(_) => findings.add(ConfigError {
            file: source.name.clone(),
            key: "service".to_owned(),
            value: None,
            problem: "expected tables written as [[service]]".to_owned(),
        }),
        None => {}
    }
    if profile {
        for key in source.table.keys() {
            findings.add(ConfigError {
                file: source.name.clone(),
                key: key.clone(),
                value: None,
                problem: "a service profile may hold [[service]] tables only; the agent is configured in agent.toml".to_owned(),
            });
        }
    } else {
        merge(&mut merged.table, source.table, "", &source.name, findings);
    }
}

fn merge(into: &mut Table, from: Table, path: &str, file: &str, findings: &mut Findings) {
    for (key, value) in from {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        findings.files.insert(full.clone(), file.to_owned());
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, &full, file, findings),
            (_, Value::Table(new)) => {
                let mut table = Table::new();
                merge(&mut table, new, &full, file, findings);
                into.insert(key, Value::Table(table));
            }
            (_, other) => {
                into.insert(key, other);
            }
        }
    }
}
