//! Signed documents: policy, service profile, licence, withdrawals, support key. Taken when verified; they change nothing by themselves.
//!
//! A part of `engine`. Kept by kind, each with a version that only grows. It must never shrink what was withdrawn.

use mainstay_patchkit::manifest::Body;
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::Verified;
use mainstay_shared::patch::PatchStep;

use super::disk::io_refusal;
use super::engine::Engine;
use super::state::{Kept, Known, Seal, State};

impl Engine {
    /// Takes a verified document in, with floors and root, in one write.
    ///
    /// # Errors
    /// What the disk said.
    pub(super) fn take_document(&mut self, verified: &Verified, known: Known) -> Result<(), Refusal> {
        let (manifest, now) = (&verified.manifest, self.now());
        let seal = Seal {
            root: verified.roots.last().map(|root| String::from_utf8_lossy(root).into_owned()),
            targets_version: verified.targets_version,
            role_version: verified.role_version,
            verified_at: now,
        };
        let (kind, sha256) = (known.kind, known.sha256.clone());
        let (body, version) = (manifest.body.clone(), manifest.version.clone());
        let taken = self.store.change(|state| {
            let text = take_in(state, body, now);
            state.documents.insert(kind, Kept { version, text });
            state.seal(&seal);
            state.files.retain(|file| file.sha256 != sha256);
            state.files.push(known);
            state.step(&sha256, PatchStep::Done, ("", ""), "", now);
        });
        taken.map_err(|error| io_refusal(&error))
    }
}

/// What it changes in the state; the text that is kept.
fn take_in(state: &mut State, body: Body, now: mainstay_shared::time_source::UnixMs) -> String {
    match body {
        Body::Licence(licence) => {
            state.features = licence.features;
            String::new()
        }
        Body::Withdrawal(withdrawal) => {
            state.withdrawn.extend(withdrawal.manifests);
            let waiting = |step| matches!(step, PatchStep::AwaitingConsent | PatchStep::AwaitingWindow);
            let hit = state.files.iter().filter(|file| waiting(file.step) && state.withdrawn.contains(&file.manifest_sha256));
            let hit: Vec<_> = hit.map(|file| file.sha256.clone()).collect();
            for sha256 in hit {
                let why = Refusal::Withdrawn;
                state.step(&sha256, PatchStep::Refused, (why.code(), &why.to_string()), "", now);
            }
            String::new()
        }
        Body::Policy(document) | Body::Profile(document) | Body::SupportKey(document) => document.text,
        Body::Patch(_) | Body::Action(_) => String::new(),
    }
}
