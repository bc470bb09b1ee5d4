//! What happened, line by line, in order, and the hash over all of it: two runs of a seed are the same story if the hashes agree.
//!
//! Test code only. A line holds nothing that chance outside the seed made (epochs, nonces, keys).

use mainstay_shared::time_source::UnixMs;
use ring::digest;

/// The lines of one story.
pub(super) struct Trace {
    lines: Vec<String>,
    hash: digest::Context,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new(), hash: digest::Context::new(&digest::SHA256) }
    }

    pub(super) fn note(&mut self, now: UnixMs, what: impl std::fmt::Display) {
        let line = format!("{now} {what}");
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.lines.push(line);
    }

    /// All of it.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The first 16 hex digits.
    pub(super) fn hash(&self) -> String {
        hex::encode(&self.hash.clone().finish().as_ref()[..8])
    }

    /// The last lines that name `about` or nobody's name in particular.
    pub(super) fn tail(&self, about: &str, count: usize) -> String {
        let mut found: Vec<&str> =
            self.lines.iter().rev().filter(|line| line.contains(about)).take(count).map(String::as_str).collect();
        found.reverse();
        found.join("\n")
    }
}
