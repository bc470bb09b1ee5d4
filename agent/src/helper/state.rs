//! What the helper knows durably: the trusted root and its floors, what is installed, every file it has taken, what it has told, and the
//! one job under way, which is the journal.
//!
//! All of it is one value that is stored whole (`store`), so that what belongs together moves together: version, floors and roots in the
//! same write as "done". It must never hold anything that was not verified, nor a secret but the codes of waiting files. An agent that went
//! back reads what a newer one wrote: fields may be added with a default, and nothing else changes from one version to the next.
//!
//! ```text
//!  Staging ─▶ Swapping ─▶ Scripts ─▶ Starting ─▶ Probation ─▶ (none: done)
//!     │           │           │          │            │
//!     ▼           └───────────┴────┬─────┴────────────┘
//!  (none: as before)               ▼
//!                              GoingBack ─▶ (none: rolled back, or waiting again if it was only interrupted)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use mainstay_patchkit::manifest::{Health, Run, Script};
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{AGENT, MAX_OUTPUT_CHARS, PatchKind, PatchReport, PatchStep};
use mainstay_shared::time_source::UnixMs;
use semver::Version;
use serde::{Deserialize, Serialize};

/// Files that are remembered; the oldest that are over go first.
const MAX_FILES: usize = 48;
/// Reports that are kept for the reporter.
const MAX_REPORTS: usize = 200;
/// Files and reports whose output is kept; of older ones it goes first.
const MAX_OUTPUTS: usize = 8;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Grows with every write.
    pub(super) sequence: u64,
    /// The product.
    #[serde(flatten)]
    pub(super) product: Line,
    /// The agent itself.
    #[serde(default = "Line::of_this_program")]
    pub(super) agent: Line,
    /// What is believed.
    pub(super) trust: Trusted,
    /// Features of the licence.
    pub(super) features: BTreeSet<String>,
    /// Documents by kind.
    pub(super) documents: BTreeMap<PatchKind, Kept>,
    /// Manifests that the vendor has withdrawn, by SHA-256.
    pub(super) withdrawn: BTreeSet<String>,
    /// Manifests that failed here, by SHA-256.
    pub(super) failed: BTreeSet<String>,
    /// Files, oldest first.
    pub(super) files: Vec<Known>,
    /// Reports, oldest first.
    pub(super) reports: Vec<PatchReport>,
    /// The number of the last report.
    pub(super) last_report: u64,
    /// When each action last began, by its manifest's name.
    pub(super) ran: BTreeMap<String, UnixMs>,
    /// The journal.
    pub(super) job: Option<Job>,
    /// Wrong codes on any files since a right one, or since root decided.
    #[serde(default)]
    pub(super) wrong_codes: u32,
    /// How often a damaged copy of this was found (R30).
    pub(super) damages: u32,
}

/// What a patch brings a version of: each has its tree, its versions, its way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    /// The vendor's product.
    #[default]
    Product,
    /// This very program.
    Agent,
}

impl Subject {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Product, Self::Agent];

    /// By the name that a listing has.
    pub(super) fn of(product: &str) -> Self {
        if product == AGENT { Self::Agent } else { Self::Product }
    }
}

/// The versions of one subject on this box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// What runs.
    pub(super) version: Version,
    /// What can be gone back to.
    pub(super) previous: Option<Previous>,
    /// Tree hashes of the releases that were put here by us, by folder name.
    pub(super) releases: BTreeMap<String, String>,
    /// Of the agent: the release that is believed, while `proven` may not point to it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moving: Option<String>,
}

impl Line {
    fn shipped(version: Version) -> Self {
        Self { version, previous: None, releases: BTreeMap::new(), moving: None }
    }

    /// Of an agent that was never updated.
    fn of_this_program() -> Self {
        Self::shipped(this_version())
    }
}

/// The version of this program.
pub(super) fn this_version() -> Version {
    Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(Version::new(0, 0, 0))
}

/// A version that can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Previous {
    pub(super) release: String,
    pub(super) version: Version,
    /// The file that replaced it.
    pub(super) sha256: String,
    /// The services to stop and start around it.
    pub(super) services: Vec<String>,
}

/// The root and the floors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trusted {
    /// root.json.
    pub(super) root: String,
    pub(super) targets_floor: u64,
    pub(super) role_floor: u64,
    /// It was at least this late when the last file was done: a clock below it is wrong.
    pub(super) time_floor: UnixMs,
}

/// A document as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) version: Version,
    pub(super) text: String,
}

/// Who agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgreedBy {
    /// Root on the box.
    Administrator,
    /// Somebody with the box's code.
    Code,
    /// The box's settings.
    Settings,
}

/// A file that was verified once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) sha256: String,
    pub(super) manifest_sha256: String,
    pub(super) offer_id: Option<String>,
    /// Root brought it: no offer that is taken back takes it away.
    pub(super) by_hand: bool,
    pub(super) kind: PatchKind,
    pub(super) name: String,
    pub(super) product: String,
    pub(super) from_version: Option<String>,
    pub(super) to_version: String,
    pub(super) title: (String, String),
    pub(super) notes: (String, String),
    pub(super) bytes: u64,
    pub(super) one_way: bool,
    pub(super) step: PatchStep,
    pub(super) reason: (String, String),
    pub(super) output: String,
    pub(super) at: UnixMs,
    pub(super) code: Option<String>,
    pub(super) tries: u32,
    pub(super) agreed: Option<AgreedBy>,
    /// How often it was begun.
    pub(super) attempts: u32,
}

/// What moves when a file is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// The newest root, if the file brought one.
    pub(super) root: Option<String>,
    pub(super) targets_version: u64,
    pub(super) role_version: u64,
    /// When it was verified.
    pub(super) verified_at: UnixMs,
}

/// What is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) sha256: String,
    pub(super) work: Work,
    pub(super) seal: Seal,
    /// Why it goes back, once it does: code and text.
    pub(super) why: (String, String),
    /// What its scripts said.
    pub(super) output: String,
}

/// By kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub(super) enum Work {
    /// A tree, or packages, with what surrounds them.
    Install(Install),
    /// A program that runs once.
    Action { run: Run, timeout_s: u32 },
}

/// A patch under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Install {
    pub(super) stage: Stage,
    #[serde(default)]
    pub(super) subject: Subject,
    pub(super) how: How,
    pub(super) from_version: Version,
    pub(super) to_version: Version,
    /// Services to stop and start.
    pub(super) services: Vec<String>,
    /// How the services were before.
    pub(super) baseline: BTreeMap<String, ServiceState>,
    pub(super) health: Health,
    pub(super) one_way: bool,
    /// How often this stage was begun after a crash.
    pub(super) rounds: u32,
}

impl Install {
    /// Where the agent's `proven` must point once it is over: to the new release, or to the old one; none for other subjects.
    pub(super) fn proven_after(&self, is_new: bool) -> Option<String> {
        match (&self.how, self.subject) {
            (How::Tree { to_release, .. }, Subject::Agent) if is_new => Some(to_release.clone()),
            (How::Tree { from_release, .. }, Subject::Agent) => from_release.clone(),
            _ => None,
        }
    }
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The new tree is unpacked and read back; nothing that runs is touched.
    Staging,
    /// Services are stopped, `current` is swapped.
    Swapping,
    Scripts,
    Starting,
    Probation,
    GoingBack,
}

/// What is put in place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub(super) enum How {
    Tree {
        /// The folder that `current` pointed to.
        from_release: Option<String>,
        to_release: String,
        tree_sha256: String,
        scripts: Vec<Script>,
    },
    Packages {
        /// Name and version, afterwards.
        packages: Vec<(String, String)>,
        /// Name and version, before; of those that were installed.
        before: Vec<(String, String)>,
    },
}

impl State {
    /// Of a box that has never had a patch, or lost its memory of it: its reports are numbered from the present moment on, so that no number
    /// of a forgotten life comes again.
    pub(super) fn shipped(version: Version, root: String, now: UnixMs) -> Self {
        Self {
            sequence: 0,
            product: Line::shipped(version),
            agent: Line::of_this_program(),
            trust: Trusted { root, ..Trusted::default() },
            features: BTreeSet::new(),
            documents: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            failed: BTreeSet::new(),
            files: Vec::new(),
            reports: Vec::new(),
            last_report: u64::try_from(now.0).unwrap_or(0),
            ran: BTreeMap::new(),
            job: None,
            wrong_codes: 0,
            damages: 0,
        }
    }

    pub(super) fn line(&self, subject: Subject) -> &Line {
        match subject {
            Subject::Product => &self.product,
            Subject::Agent => &self.agent,
        }
    }

    pub(super) fn line_mut(&mut self, subject: Subject) -> &mut Line {
        match subject {
            Subject::Product => &mut self.product,
            Subject::Agent => &mut self.agent,
        }
    }

    pub(super) fn file(&self, sha256: &str) -> Option<&Known> {
        self.files.iter().find(|file| file.sha256 == sha256)
    }

    pub(super) fn file_mut(&mut self, sha256: &str) -> Option<&mut Known> {
        self.files.iter_mut().find(|file| file.sha256 == sha256)
    }

    /// Moves a file to `step`, with a report.
    pub(super) fn step(&mut self, sha256: &str, step: PatchStep, reason: (&str, &str), output: &str, at: UnixMs) {
        let number = self.last_report + 1;
        let Some(file) = self.file_mut(sha256) else { return };
        file.step = step;
        file.reason = (reason.0.to_owned(), reason.1.to_owned());
        file.at = at;
        if !output.is_empty() {
            file.output = output.chars().take(MAX_OUTPUT_CHARS).collect();
        }
        if step.is_final() {
            file.code = None;
        }
        let report = PatchReport {
            number,
            offer_id: file.offer_id.clone(),
            sha256: file.sha256.clone(),
            kind: file.kind,
            product: file.product.clone(),
            from_version: file.from_version.clone(),
            to_version: file.to_version.clone(),
            step,
            reason: file.reason.0.clone(),
            detail: file.reason.1.clone(),
            output: file.output.clone(),
        };
        self.last_report = number;
        self.reports.push(report);
        self.trim();
    }

    /// Keeps it bounded.
    pub(super) fn trim(&mut self) {
        while self.files.len() > MAX_FILES {
            let Some(oldest) = self.files.iter().position(|file| file.step.is_final()) else { break };
            self.files.remove(oldest);
        }
        let excess = self.reports.len().saturating_sub(MAX_REPORTS);
        self.reports.drain(..excess);
        let outputs = self.reports.iter_mut().rev().map(|report| &mut report.output).filter(|output| !output.is_empty());
        outputs.skip(MAX_OUTPUTS).for_each(String::clear);
        let outputs = self.files.iter_mut().rev().map(|file| &mut file.output).filter(|output| !output.is_empty());
        outputs.skip(MAX_OUTPUTS).for_each(String::clear);
    }

    /// Whoever carries the reports knows of a later number than this memory, which was lost, or is an older copy: what was told after the
    /// number `before` is numbered on from there.
    pub(super) fn number_on(&mut self, before: u64, from: u64) {
        let by = from.saturating_sub(before);
        for report in self.reports.iter_mut().filter(|report| report.number > before) {
            report.number += by;
        }
        self.last_report += by;
    }

    /// Takes in what a file that is done proves.
    pub(super) fn seal(&mut self, seal: &Seal) {
        if let Some(root) = &seal.root {
            self.trust.root.clone_from(root);
        }
        self.trust.targets_floor = self.trust.targets_floor.max(seal.targets_version);
        self.trust.role_floor = self.trust.role_floor.max(seal.role_version);
        self.trust.time_floor = self.trust.time_floor.max(seal.verified_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(state: &mut State, count: usize) {
        for _ in 0..count {
            state.last_report += 1;
            let number = state.last_report;
            state.reports.push(PatchReport {
                number,
                offer_id: None,
                sha256: String::new(),
                kind: PatchKind::Patch,
                product: String::new(),
                from_version: None,
                to_version: String::new(),
                step: PatchStep::Done,
                reason: String::new(),
                detail: String::new(),
                output: String::new(),
            });
        }
    }

    #[test]
    fn a_memory_that_was_lost_numbers_on_and_one_restored_from_a_copy_tells_nothing_twice() {
        let mut first = State::shipped(Version::new(1, 0, 0), String::new(), UnixMs(1_000));
        told(&mut first, 3);
        let second = State::shipped(Version::new(1, 0, 0), String::new(), UnixMs(2_000));
        assert!(second.last_report > first.last_report, "a clock that goes is enough");

        let mut at_1970 = State::shipped(Version::new(1, 0, 0), String::new(), UnixMs(5));
        told(&mut at_1970, 2);
        at_1970.number_on(5, 1_003);
        assert_eq!(at_1970.reports.iter().map(|report| report.number).collect::<Vec<_>>(), [1_004, 1_005]);
        assert_eq!(at_1970.last_report, 1_005);

        // Of an older copy, only what was told since its start is new.
        let before = first.last_report;
        told(&mut first, 1);
        first.number_on(before, 1_009);
        assert_eq!(first.reports.iter().map(|report| report.number).collect::<Vec<_>>(), [1_001, 1_002, 1_003, 1_010]);
    }
}
