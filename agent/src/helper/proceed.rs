//! Beginning what is due: the last look at a file, the appliance and the room on its disk before anything is changed.
//!
//! A part of `verbs`. The file is verified again, since time has passed: it may have expired, been withdrawn, or no longer fit. It must
//! never begin what nobody agreed to, outside the window (unless root says now), or on a sick appliance.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use mainstay_patchkit::manifest::{Body, Content, DataChange, Patch};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::Verified;
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{AGENT, PatchProgress, PatchStep};

use super::disk::io_refusal;
use super::engine::Plan;
use super::protocol::Answer;
use super::rules;
use super::state::{AgreedBy, How, Install, Known, Stage, Subject};
use super::verbs::{Helper, Speaker, refused};

/// Room for folders and the file system's own needs, per entry and in all.
const ENTRY_BYTES: u64 = 4096;
const RESERVE_BYTES: u64 = 16 << 20;

impl Helper {
    /// Begins the oldest file that is due and can begin.
    pub(super) fn proceed(
        &mut self,
        sha256: Option<&str>,
        now: bool,
        services: &BTreeMap<String, ServiceState>,
        who: Speaker,
        say: &mut dyn FnMut(Answer),
    ) -> Answer {
        if now && who != Speaker::Root {
            return refused("not_allowed", "only the administrator on the box installs outside the window");
        }
        if self.engine.renewed {
            return refused("busy", "the helper is being renewed");
        }
        if let Some((under_way, _)) = self.under_way() {
            // Without a person's word it goes on when it is time.
            if self.engine.watch.is_none()
                && who == Speaker::Root
                && let Err(error) = self.engine.take_up_again()
            {
                return refused("io", error.to_string());
            }
            return if sha256.is_none_or(|wanted| wanted == under_way) {
                self.told_to(&under_way, who)
            } else {
                refused("busy", "another file is being applied")
            };
        }
        let open = now || self.engine.settings.windows.is_open(self.engine.now(), &chrono::Local);
        let wanted = |file: &&Known| sha256.is_none_or(|wanted| wanted == file.sha256);
        let due = self.engine.state().files.iter().filter(wanted).filter(|file| rules::is_due(file, open));
        let mut not_begun = None;
        // One that must wait on keeps nothing waiting behind it: it may be what repairs the appliance.
        for file in due.cloned().collect::<Vec<_>>() {
            match self.begin(&file, services, say) {
                Ok(step) => {
                    tracing::info!(sha256 = file.sha256, ?step, "{} {}", file.product, file.to_version);
                    return self.told_to(&file.sha256, who);
                }
                Err(refusal) => {
                    tracing::warn!(sha256 = file.sha256, "not begun: {refusal}");
                    self.not_begun(&file.sha256, &refusal);
                    not_begun = not_begun.or_else(|| Some(refused(refusal.code(), refusal.to_string())));
                    // Its undoing could not be written down: the journal's next start is first.
                    if self.engine.state().job.is_some() {
                        break;
                    }
                }
            }
        }
        not_begun.unwrap_or_else(|| sha256.map_or(Answer::Nothing, |sha256| self.told_to(sha256, who)))
    }

    fn begin(
        &mut self,
        file: &Known,
        services: &BTreeMap<String, ServiceState>,
        say: &mut dyn FnMut(Answer),
    ) -> Result<PatchStep, Refusal> {
        let (opened, unread) = self.judge_kept(file)?;
        let verified = unread.header();
        let seal = self.seal(verified);
        match &verified.manifest.body {
            Body::Action(action) => self.engine.act(&file.sha256, &verified.manifest.name, action, seal),
            Body::Patch(patch) => {
                let install = self.plan(file, patch, verified, services)?;
                let plan = Plan { sha256: file.sha256.clone(), install, seal, payload: patch.payload.clone() };
                let mut payload = Section { file: opened, at: verified.payload_offset, left: verified.payload_length };
                let offer_id = file.offer_id.clone().unwrap_or_default();
                let tell =
                    &mut |step, percent| say(Answer::Progress(PatchProgress { offer_id: offer_id.clone(), step, percent }));
                self.engine.install(&plan, &mut payload, tell)
            }
            _ => Err(Refusal::Content("a document is not begun".into())),
        }
    }

    fn plan(
        &self,
        file: &Known,
        patch: &Patch,
        verified: &Verified,
        services: &BTreeMap<String, ServiceState>,
    ) -> Result<Install, Refusal> {
        let io = |error: io::Error| io_refusal(&error);
        let one_way = patch.data_change == DataChange::OneWay;
        if one_way && file.agreed != Some(AgreedBy::Administrator) {
            return Err(Refusal::Customer(
                "its change of the data can't be undone: only the administrator on the box agrees".into(),
            ));
        }
        rules::baseline(services, &patch.services, file.agreed)?;
        let subject = Subject::of(verified.manifest.subject());
        let how = match &patch.content {
            Content::Tree { tree_sha256, scripts } => {
                self.room(&self.engine.settings.tree, patch)?;
                How::Tree {
                    from_release: self.engine.tree().current().map_err(io)?,
                    to_release: release_name(&verified.manifest.version, tree_sha256),
                    tree_sha256: tree_sha256.clone(),
                    scripts: scripts.clone(),
                }
            }
            Content::Packages { packages } => {
                self.room(&self.engine.settings.state_dir, patch)?;
                let names: Vec<_> = packages.iter().map(|(name, _)| name.clone()).collect();
                How::Packages { packages: packages.clone(), before: self.engine.installed_packages(&names) }
            }
            Content::Agent { tree_sha256 } => {
                let from_release = self.engine.agent_release()?;
                self.room(self.engine.tree_of(Subject::Agent).dir, patch)?;
                How::Tree {
                    from_release: Some(from_release),
                    to_release: release_name(&verified.manifest.version, tree_sha256),
                    tree_sha256: tree_sha256.clone(),
                    scripts: Vec::new(),
                }
            }
        };
        Ok(Install {
            stage: Stage::Staging,
            subject,
            how,
            from_version: self.engine.state().line(subject).version.clone(),
            to_version: verified.manifest.version.clone(),
            services: if subject == Subject::Agent { vec![AGENT.to_owned()] } else { patch.services.clone() },
            baseline: services.clone(),
            health: patch.health,
            one_way,
            rounds: 0,
        })
    }

    /// For what is unpacked in `dir`, and for the journal: a patch that can't be written down is not begun.
    fn room(&self, dir: &Path, patch: &Patch) -> Result<(), Refusal> {
        let entries = patch.payload.entries.saturating_mul(ENTRY_BYTES);
        let unpacked_bytes = patch.payload.unpacked_bytes.saturating_add(entries);
        for (dir, bytes) in [(dir, unpacked_bytes), (self.engine.settings.state_dir.as_path(), 0)] {
            let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
            let free_bytes = self.engine.disk.free_bytes(there).map_err(|error| io_refusal(&error))?;
            let needed_bytes = bytes.saturating_add(RESERVE_BYTES);
            if needed_bytes > free_bytes {
                return Err(Refusal::Space { needed_bytes, free_bytes });
            }
        }
        Ok(())
    }

    /// What may be over the next time, waits on, with its reason told once.
    fn not_begun(&mut self, sha256: &str, refusal: &Refusal) {
        let Some(file) = self.engine.state().file(sha256) else { return };
        let waits_on = rules::passes(refusal) || matches!(refusal, Refusal::Customer(_));
        let told = file.step.is_final() || (waits_on && file.reason.0 == refusal.code());
        if told {
            return;
        }
        let (step, now) = (if waits_on { PatchStep::AwaitingWindow } else { PatchStep::Refused }, self.engine.now());
        let detail = refusal.to_string();
        if let Err(error) = self.engine.store.change(|state| state.step(sha256, step, (refusal.code(), &detail), "", now)) {
            tracing::error!("the refusal can't be recorded: {error}");
        }
    }
}

fn release_name(version: &semver::Version, tree_sha256: &str) -> String {
    format!("{version}-{}", tree_sha256.get(..8).unwrap_or(tree_sha256))
}

/// A part of a file, read at positions.
struct Section {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
