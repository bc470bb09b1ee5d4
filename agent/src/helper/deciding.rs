//! What people decide about a waiting file: who may, with what code; and what the vendor takes back.
//!
//! A part of `verbs`. A code is made here, judged here, and worth nothing after five wrong ones. It must never count a decision of the network
//! side's without a code.

use mainstay_patchkit::refusal::Refusal;
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::PatchStep;

use super::disk::io_refusal;
use super::protocol::Answer;
use super::rules::{self, MAX_CODE_TRIES};
use super::state::AgreedBy;
use super::verbs::{Helper, Speaker, refusal, refused};

impl Helper {
    /// Six digits, each as likely as the other.
    pub(super) fn fresh_code(&self) -> Result<String, Refusal> {
        loop {
            let mut bytes = [0; 4];
            self.random.fill(&mut bytes).map_err(|_| Refusal::Io("no randomness".into()))?;
            let drawn = u32::from_le_bytes(bytes);
            if drawn < 4_294_000_000 {
                return Ok(format!("{:06}", drawn % 1_000_000));
            }
        }
    }

    /// Whether `who` may decide about the file with what they bring; a wrong code is counted first.
    fn may_decide(&mut self, sha256: &str, code: Option<&str>, who: Speaker) -> Result<AgreedBy, Box<Answer>> {
        let told = |code: &str, detail: String| Box::new(refused(code, detail));
        let Some(known) = self.engine.state().file(sha256).cloned() else {
            return Err(told("no_such_file", format!("{sha256}: not known here")));
        };
        match (who, code) {
            (Speaker::Root, None) => Ok(AgreedBy::Administrator),
            (Speaker::Reporter, None) => {
                Err(told("not_allowed", "only the administrator on the box decides without a code".into()))
            }
            // Typed at a page, and carried by an agent that may itself live as root: judged all the same.
            (_, Some(typed)) => {
                let counts = rules::code_counts(&known, self.engine.state().wrong_codes);
                let Some(code) = known.code.filter(|_| counts) else {
                    return Err(told("not_allowed", "it is decided on the box alone".into()));
                };
                if typed == code {
                    return Ok(AgreedBy::Code);
                }
                let left = format!("{} tries are left", MAX_CODE_TRIES - known.tries - 1);
                let now = self.engine.now();
                let counted = self.engine.store.change(|state| {
                    state.wrong_codes += 1;
                    if let Some(file) = state.file_mut(sha256) {
                        file.tries += 1;
                    }
                    // Whoever typed it waits at a page for the box's word.
                    state.step(sha256, known.step, ("wrong_code", &left), "", now);
                });
                match counted {
                    Ok(()) => Err(told("wrong_code", left)),
                    Err(error) => Err(Box::new(refusal(&io_refusal(&error)))),
                }
            }
        }
    }

    pub(super) fn consent(&mut self, sha256: &str, code: Option<&str>, who: Speaker) -> Answer {
        let agreed = match self.may_decide(sha256, code, who) {
            Ok(agreed) => agreed,
            Err(answer) => return *answer,
        };
        let waits = self.engine.state().file(sha256).is_some_and(|file| file.step == PatchStep::AwaitingConsent);
        if waits {
            let now = self.engine.now();
            let changed = self.engine.store.change(|state| {
                state.wrong_codes = 0;
                if let Some(file) = state.file_mut(sha256) {
                    file.agreed = Some(agreed);
                    file.code = None;
                }
                state.step(sha256, PatchStep::AwaitingWindow, ("", ""), "", now);
            });
            if let Err(error) = changed {
                return refusal(&io_refusal(&error));
            }
        }
        self.told(sha256, who)
    }

    pub(super) fn refuse(&mut self, sha256: &str, code: Option<&str>, reason: &str, who: Speaker) -> Answer {
        if let Err(answer) = self.may_decide(sha256, code, who) {
            return *answer;
        }
        if let Err(error) = self.engine.store.change(|state| state.wrong_codes = 0) {
            return refusal(&io_refusal(&error));
        }
        let why = Refusal::Customer(clean_text(reason, MAX_TEXT_CHARS));
        self.end_waiting(sha256, why.code(), &clean_text(reason, MAX_TEXT_CHARS));
        self.told(sha256, who)
    }

    pub(super) fn taken_back(&mut self, offer_id: &str) -> Answer {
        let found = self.engine.state().files.iter().find(|file| file.offer_id.as_deref() == Some(offer_id) && !file.by_hand);
        let Some(sha256) = found.map(|file| file.sha256.clone()) else { return Answer::Nothing };
        self.end_waiting(&sha256, "taken_back", "the vendor took the offer back");
        self.told(&sha256, Speaker::Reporter)
    }

    /// What has not begun, does not begin.
    fn end_waiting(&mut self, sha256: &str, code: &str, detail: &str) {
        let waiting = |step| matches!(step, PatchStep::AwaitingConsent | PatchStep::AwaitingWindow);
        if !self.engine.state().file(sha256).is_some_and(|file| waiting(file.step)) {
            return;
        }
        let now = self.engine.now();
        if let Err(error) = self.engine.store.change(|state| state.step(sha256, PatchStep::Refused, (code, detail), "", now)) {
            tracing::error!("the refusal can't be recorded: {error}");
        }
    }
}
