//! The manifest: the one signed text that names every byte that a file brings (R7) and everything that is done with them.
//!
//! JSON, at most [`MAX_BYTES`]; its SHA-256 and length stand in the signed metadata. It must never be read before they were checked.

use std::collections::BTreeSet;

use mainstay_shared::patch::{AGENT, PatchKind};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// A manifest's most bytes.
pub const MAX_BYTES: u64 = 256 << 10;
/// A version's most characters, what stands behind `-` and `+` included.
pub const MAX_VERSION_CHARS: usize = 64;
/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// What a signed file is and does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The product that it is for: lower-case letters, digits, dashes.
    pub product: String,
    /// What it is called among its product's files, e.g. `2.1.0`, `restart-web-1`: target names are made of product and this.
    pub name: String,
    /// The version that a patch leads to: of the product, or of the agent if it updates that; of other kinds the document's own, which only grows.
    pub version: Version,
    /// Models that it fits; empty: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hardware: BTreeSet<String>,
    /// What it is, in one line each.
    pub title: Texts,
    /// What a person should know before they agree.
    #[serde(default)]
    pub notes: Texts,
    /// What it does.
    pub body: Body,
}

/// A text in both languages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// Simplified Chinese.
    pub zh: String,
    /// English.
    pub en: String,
}

/// What a signed file does, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Takes the product to `version`.
    Patch(Patch),
    /// Runs a program once.
    Action(Action),
    /// Limits on what the collector may ask.
    Policy(Document),
    /// Services and checks by nature.
    Profile(Document),
    /// Features bought; see [`Licence`].
    Licence(Licence),
    /// Files not to be applied.
    Withdrawal(Withdrawal),
    /// The key for evidence.
    SupportKey(Document),
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Versions that it can be applied to, e.g. `>=2.0.0, <2.1.0`.
    pub from: VersionReq,
    /// Features that the licence on the box must name (C13).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub features: BTreeSet<String>,
    /// The bytes.
    pub payload: Payload,
    /// How they are put in place.
    pub content: Content,
    /// Business services to stop before the swap and start after it, by the names of the box's settings, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// What it does to the product's data.
    pub data_change: DataChange,
    /// When the new version is believed.
    pub health: Health,
    /// Whether it closes a security hole: never withheld during an open critical ticket.
    #[serde(default)]
    pub security_fix: bool,
}

/// The bytes behind the manifest in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Their length.
    pub length: u64,
    /// Their SHA-256, hex.
    pub sha256: String,
    /// Regular files and folders once unpacked.
    pub entries: u64,
    /// Bytes of all files once unpacked.
    pub unpacked_bytes: u64,
    /// For a delta: the tree hash of the version that it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_from: Option<String>,
}

/// How a patch's bytes are put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Content {
    /// A tree of files, swapped as a whole. The payload is a tar, compressed with zstd.
    Tree {
        /// The tree hash of what must stand there afterwards, hex (see the crate's `archive`).
        tree_sha256: String,
        /// Programs in the tree to run before the services start, each with its time limit; run by the executor with fixed arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scripts: Vec<Script>,
    },
    /// Debian packages, installed forward: a cut continues where it stopped. The payload is a tar of .deb files, compressed with zstd.
    Packages {
        /// Name and version of each package that must be installed afterwards.
        packages: Vec<(String, String)>,
    },
    /// The agent itself: the payload's tree holds one program, `mainstay-agent` ([`AGENT`]); all versions are the agent's.
    Agent {
        /// The tree hash, as for a tree.
        tree_sha256: String,
    },
}

/// A program of the new tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its path within the tree, and arguments. No shell.
    pub argv: Vec<String>,
    /// Seconds before it is killed with its whole group.
    pub timeout_s: u32,
}

/// What a patch does to the product's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataChange {
    /// None: the old version can run again on it.
    None,
    /// The old version can still read it.
    Reversible,
    /// The old version can't: explicit consent on the box, no rollback by itself.
    OneWay,
}

/// When the new version is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// So many good looks at all services, one after the other.
    pub consecutive_ok: u32,
    /// Seconds after the start within which they must have come, else it goes back.
    pub deadline_s: u32,
}

/// A program that is run once, as the executor, with fixed arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What is done.
    pub run: Run,
    /// Seconds before it is killed with its whole group.
    pub timeout_s: u32,
    /// Seconds that must pass between two runs of it on one appliance; the default policy is an hour.
    pub min_interval_s: u32,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Run {
    /// Restarts a business service by the box's own settings for it.
    RestartService {
        /// Its name.
        service: String,
    },
    /// Runs a program with these arguments; no shell.
    Program {
        /// Absolute path and arguments.
        argv: Vec<String>,
    },
}

/// A document that the agent keeps for other parts of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its text, whose form its reader knows.
    pub text: String,
}

/// The features that a customer has bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// Serials that it is for; empty: every appliance of the product.
    #[serde(default)]
    pub serials: BTreeSet<String>,
    /// The features.
    pub features: BTreeSet<String>,
}

/// Files that must not be applied any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// SHA-256 of their manifests, hex.
    pub manifests: BTreeSet<String>,
}

impl Manifest {
    /// Reads a manifest whose bytes were already checked against the signed hash. Whoever only repeats what an unchecked one says of itself
    /// is told no longer product, name or version than a checked one may have.
    ///
    /// # Errors
    /// [`Refusal::Format`] with the place.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Refusal::Format(format!("manifest: {} bytes; at most {MAX_BYTES} are accepted", bytes.len())));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| Refusal::Format(format!("manifest: {error}")))?;
        if manifest.format != FORMAT {
            return Err(Refusal::Format(format!("manifest: format {}; this version reads {FORMAT}", manifest.format)));
        }
        if !is_word(&manifest.product) || !is_word(&manifest.name) {
            return Err(Refusal::Format(
                "manifest: product and name: expected lower-case letters, digits, dots and dashes".into(),
            ));
        }
        let version_chars = manifest.version.to_string().len();
        if version_chars > MAX_VERSION_CHARS {
            return Err(Refusal::Format(format!(
                "manifest: version: {version_chars} characters; at most {MAX_VERSION_CHARS} are accepted"
            )));
        }
        Ok(manifest)
    }

    /// What kind of file it is.
    #[must_use]
    pub fn kind(&self) -> PatchKind {
        match self.body {
            Body::Patch(_) => PatchKind::Patch,
            Body::Action(_) => PatchKind::Action,
            Body::Policy(_) => PatchKind::Policy,
            Body::Profile(_) => PatchKind::Profile,
            Body::Licence(_) => PatchKind::Licence,
            Body::Withdrawal(_) => PatchKind::Withdrawal,
            Body::SupportKey(_) => PatchKind::SupportKey,
        }
    }

    /// What its versions are versions of: the product, or [`AGENT`].
    #[must_use]
    pub fn subject(&self) -> &str {
        if self.updates_agent() { AGENT } else { &self.product }
    }

    /// Whether it updates the agent itself.
    #[must_use]
    pub fn updates_agent(&self) -> bool {
        matches!(&self.body, Body::Patch(Patch { content: Content::Agent { .. }, .. }))
    }

    /// The manifest's name as a signed target.
    #[must_use]
    pub fn target_name(&self) -> String {
        format!("{}-{}.manifest.json", self.product, self.name)
    }

    /// The payload's name as a signed target.
    #[must_use]
    pub fn payload_target_name(&self) -> String {
        format!("{}-{}.payload", self.product, self.name)
    }

    /// The file's name.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}.mpatch", self.product, self.name)
    }

    /// The delegated role that signs a product's files.
    #[must_use]
    pub fn role_name(product: &str) -> String {
        format!("{product}-offline")
    }
}

/// Whether `text` may be part of a file name: 1 to 64 of `a-z 0-9 . -`, beginning with a letter or digit.
#[must_use]
pub fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (1..=64).contains(&text.len()) && text.chars().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::manifest;

    fn read(version: &str, title: &str) -> Result<Manifest, Refusal> {
        let list = Body::Withdrawal(Withdrawal { manifests: BTreeSet::new() });
        let mut written = manifest("w-1".into(), version.parse().unwrap(), list);
        title.clone_into(&mut written.title.en);
        Manifest::read(&serde_json::to_vec(&written).unwrap())
    }

    #[test]
    fn neither_a_manifest_nor_its_version_is_longer_than_told() {
        assert!(read(&format!("2.1.0-{}", "a".repeat(58)), "").is_ok());
        for (what, version, title) in [
            ("a version of 65 characters", format!("2.1.0-{}", "a".repeat(59)), String::new()),
            ("likewise, behind a plus", format!("2.1.0+{}", "a".repeat(59)), String::new()),
            ("more than 256 KiB", "2.1.0".into(), "t".repeat(256 << 10)),
        ] {
            assert!(matches!(read(&version, &title), Err(Refusal::Format(_))), "{what}");
        }
    }
}
