//! A file that comes once more after its version has come to run: brought by hand first, and offered afterwards.
//!
//! `verbs` asks here before it tells of a refusal. It must never call a file done whose version is not what runs.

use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::patch::PatchStep;

use super::disk::io_refusal;
use super::protocol::Answer;
use super::quarantine::Incoming;
use super::state::Subject;
use super::verbs::{Helper, Speaker, refusal};

impl Helper {
    /// The very file whose version runs here, brought once more: by an offer that was heard of after the file had come by hand. Not
    /// newer, yet no reason to tell the vendor of a refusal.
    pub(super) fn runs_already(
        &mut self,
        incoming: &Incoming,
        offer_id: Option<&str>,
        why: &Refusal,
        who: Speaker,
    ) -> Option<Answer> {
        if why.code() != "version" {
            return None;
        }
        let sha256 = incoming.hashes.file_sha256.clone();
        let state = self.engine.state();
        let known = state.file(&sha256)?;
        if known.step != PatchStep::Done || known.to_version != state.line(Subject::of(&known.product)).version.to_string() {
            return None;
        }
        if offer_id.is_some() && known.offer_id.as_deref() != offer_id {
            let now = self.engine.now();
            let noted = self.engine.store.change(|state| {
                if let Some(known) = state.file_mut(&sha256) {
                    known.offer_id = offer_id.map(str::to_owned);
                }
                state.step(&sha256, PatchStep::Done, ("", ""), "", now);
            });
            if let Err(error) = noted {
                return Some(refusal(&io_refusal(&error)));
            }
        }
        Some(self.told(&sha256, who))
    }
}
