//! The commands: each reads files, says what it does, writes files. No network.

pub(crate) mod build;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod publish;
pub(crate) mod sign;
pub(crate) mod verify;

use mainstay_shared::time_source::UnixMs;
use ring::rand::SystemRandom;
use serde_json::Value;

use crate::bundle::Bundle;

/// What every command has.
pub(crate) struct Room {
    /// Now.
    pub(crate) now: UnixMs,
    /// Randomness for new keys.
    pub(crate) rng: SystemRandom,
    /// Whether answers are JSON.
    pub(crate) json: bool,
}

impl Room {
    /// Says what was done: lines for people, or one JSON object.
    pub(crate) fn say(&self, lines: &[String], object: &Value) {
        if self.json {
            println!("{object}");
        } else {
            for line in lines {
                println!("{line}");
            }
        }
    }

    /// Tells of a bundle that was written.
    pub(crate) fn say_bundle(&self, path: &std::path::Path, bundle: &Bundle) -> anyhow::Result<()> {
        let missing = bundle.missing();
        let mut lines = crate::readback::explain(bundle)?;
        let open = missing.values().any(|missing| *missing > 0);
        let next = if open {
            format!("next: mainstay-release sign {} --key YOUR.key", path.display())
        } else {
            "next: publish".to_owned()
        };
        lines.push(next);
        self.say(&lines, &serde_json::json!({"bundle": path, "missing": missing}));
        Ok(())
    }
}
