//! Reads one table of the configuration key by key and keeps every error, with the file that the key came from.
//!
//! It replaces a derived deserializer, which stops at the first error and does not know which of several merged files a key
//! came from. What no reader took is an unknown key, told with the keys that are accepted there.
//! It must never show a secret: values that look like credentials are left out of messages (R33).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::values::Accepted;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ConfigError {
    /// The file as a person would name it.
    pub(crate) file: String,
    /// The key, dotted from the top.
    pub(crate) key: String,
    /// The value as written, unless it may hold a secret or is absent.
    pub(crate) value: Option<String>,
    /// What is wrong, or what would have been accepted.
    pub(crate) problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)
    }
}

/// Where the keys came from, and what was found wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Dotted key to file.
    pub(crate) files: BTreeMap<String, String>,
    /// The errors so far.
    pub(crate) errors: RefCell<Vec<ConfigError>>,
}

impl Findings {
    /// Adds an error.
    pub(crate) fn add(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }
}

/// A table being read.
pub(crate) struct Section<'a> {
    path: String,
    /// The file of all its keys, where it is not a merged table.
    file: Option<String>,
    table: Table,
    known: Vec<&'static str>,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// The merged table at the top.
    pub(crate) fn top(table: Table, findings: &'a Findings) -> Self {
        Self { path: String::new(), file: None, table, known: Vec::new(), findings }
    }

    /// A table that stands in `file` as a whole, called `path` in messages.
    pub(crate) fn whole(path: String, file: String, table: Table, findings: &'a Findings) -> Self {
        Self { path, file: Some(file), table, known: Vec::new(), findings }
    }

    /// The sub-table `key`; absent is the same as empty.
    pub(crate) fn section(&mut self, key: &'static str) -> Self {
        let path = self.key(key);
        let table = match self.remove(key) {
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.refuse(key, Some(&other), "expected a table".to_owned());
                Table::new()
            }
            None => Table::new(),
        };
        Section { path, file: self.file.clone(), table, known: Vec::new(), findings: self.findings }
    }

    /// The list of tables `key`, each with its place in the list.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Table> {
        match self.remove(key) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
                items.into_iter().filter_map(|item| if let Value::Table(table) = item { Some(table) } else { None }).collect()
            }
            Some(other) => {
                self.refuse(key, Some(&other), format!("expected tables written as [[{}]]", self.key(key)));
                Vec::new()
            }
        }
    }

    /// The value of `key`, if it is there and good.
    pub(crate) fn get<T: Accepted>(&mut self, key: &'static str) -> Option<T> {
        self.get_where(key, T::EXPECTED, |_| true)
    }

    /// The value of `key`, or `default`.
    pub(crate) fn get_or<T: Accepted>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of `key` if `good` agrees; `expected` says what is accepted.
    pub(crate) fn get_where<T: Accepted>(&mut self, key: &'static str, expected: &str, good: impl Fn(&T) -> bool) -> Option<T> {
        let value = self.remove(key)?;
        let read = T::accept(&value).filter(good);
        if read.is_none() {
            self.refuse(key, Some(&value), format!("expected {expected}"));
        }
        read
    }

    /// As [`Self::get_where`], for a key that must be there.
    pub(crate) fn need<T: Accepted>(&mut self, key: &'static str, expected: &str, good: impl Fn(&T) -> bool) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.refuse(key, None, format!("is missing: expected {expected}"));
            return None;
        }
        self.get_where(key, expected, good)
    }

    /// Records that `key` is wrong.
    pub(crate) fn refuse(&self, key: &str, value: Option<&Value>, problem: String) {
        let value = value.filter(|value| !may_be_secret(key, value)).map(short);
        self.findings.add(ConfigError { file: self.file_of(key), key: self.key(key), value, problem });
    }

    /// The file that `key` came from.
    pub(crate) fn file_of(&self, key: &str) -> String {
        let of_key = || self.findings.files.get(&self.key(key)).cloned();
        self.file.clone().or_else(of_key).unwrap_or_else(|| "agent.toml".to_owned())
    }

    /// All has been read: what is left is unknown.
    pub(crate) fn finish(mut self) {
        self.known.sort_unstable();
        let accepted = self.known.join(", ");
        for (key, value) in &self.table {
            self.refuse(key, Some(value), format!("unknown key; accepted here: {accepted}"));
        }
    }

    fn remove(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn may_be_secret(key: &str, value: &Value) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token"].iter().any(|word| key.contains(word)) || value.to_string().contains('@')
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => "{..}".to_owned(),
        other => other.to_string(),
    };
    mainstay_shared::limits::clean_text(&text, 80)
}
