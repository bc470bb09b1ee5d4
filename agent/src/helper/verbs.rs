//! What the verbs of the socket do, on the engine and the store: who may, what is verified, what is remembered.
//!
//! Between `server` and `engine`. Every file is verified from the box's own trust each time that it is used. It must never act on a word of
//! the reporter's without the signature, the customer's say and the window; consent without a code and rollback are root's alone.

use std::fs::File;

use mainstay_patchkit::file::PatchFile;
use mainstay_patchkit::manifest::{Body, Manifest};
use mainstay_patchkit::refusal::Refusal;
use mainstay_patchkit::verify::{Facts, Trust, Unread, Verified, verify_header};
use mainstay_shared::limits::{MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::{Offer, PatchKind, PatchProgress, PatchReport, PatchStep};
use ring::rand::SecureRandom;

use super::disk::io_refusal;
use super::engine::Engine;
use super::probation::Sight;
use super::protocol::{Answer, Request};
use super::quarantine::{Incoming, Quarantine};
use super::rules;
use super::state::{Known, Seal, Subject};
use super::view;

/// Of a product or version that an offer names.
const MAX_NAME_CHARS: usize = 128;
/// A number beyond which no report is told: what every reader of JSON counts exactly.
const MAX_NUMBER: u64 = 1 << 53;

/// Who speaks, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The administrator on the box.
    Root,
    /// The network's side.
    Reporter,
}

/// The helper's hands: one at a time uses them.
pub(super) struct Helper {
    pub(super) engine: Engine,
    pub(super) quarantine: Quarantine,
    pub(super) random: Box<dyn SecureRandom + Send>,
    /// The number of the last report before this start.
    pub(super) told_before: u64,
}

/// A refusal of the socket's own.
pub(super) fn refused(code: &str, detail: impl Into<String>) -> Answer {
    Answer::Refused { code: code.to_owned(), detail: detail.into() }
}

pub(super) fn refusal(refusal: &Refusal) -> Answer {
    refused(refusal.code(), refusal.to_string())
}

type Say<'a> = &'a mut dyn FnMut(Answer);

impl Helper {
    /// Does what is asked; the last answer is returned, those before are said.
    pub(super) fn answer(
        &mut self,
        request: Request,
        incoming: Option<Incoming>,
        (who, pid): (Speaker, Option<u32>),
        say: Say<'_>,
    ) -> Answer {
        let answer = match request {
            Request::Take { offer_id } => incoming.map(|mut incoming| self.take(&mut incoming, offer_id, who)),
            Request::Verify => incoming.map(|incoming| self.verify(&incoming)),
            Request::Consent { sha256, code } => Some(self.consent(&sha256, code.as_deref(), who)),
            Request::Refuse { sha256, code, reason } => Some(self.refuse(&sha256, code.as_deref(), &reason, who)),
            Request::TakenBack { offer_id } => Some(self.taken_back(&offer_id)),
            Request::Proceed { sha256, now, services } => Some(self.proceed(sha256.as_deref(), now, &services, who, say)),
            Request::Health { services, reached } => {
                let exe = pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok());
                Some(self.health(&Sight { services, reached, exe }, say))
            }
            Request::Rollback { agent } => Some(self.rollback(if agent { Subject::Agent } else { Subject::Product }, who)),
            Request::NotFetched { offer, why } => Some(self.not_fetched(&offer, &why)),
            Request::Reports { after } => Some(self.reports(after)),
            // Answered by the server from what is published.
            Request::List | Request::Installed => Some(Answer::Nothing),
        };
        self.clean_up();
        answer.unwrap_or_else(|| refused("bad_request", "expected a file as a descriptor beside the request"))
    }

    /// Whether the file may be believed; its payload is seen by whoever copies or unpacks it.
    fn judge(&self, file: &File) -> Result<Unread, Refusal> {
        let (state, settings) = (self.engine.state(), &self.engine.settings);
        let trust = Trust {
            root: state.trust.root.clone().into_bytes(),
            targets_floor: state.trust.targets_floor,
            role_floor: state.trust.role_floor,
        };
        let documents = state.documents.iter().map(|(kind, kept)| (*kind, kept.version.clone())).collect();
        let facts = Facts {
            documents: &documents,
            product: &settings.product,
            hardware: &settings.hardware,
            serial: &settings.serial,
            installed: Some(&state.product.version),
            agent: Some(&state.agent.version),
            features: &state.features,
            withdrawn: &state.withdrawn,
            failed: &state.failed,
            now: self.engine.now().max(state.trust.time_floor),
        };
        let unread = verify_header(file, &trust, &facts)?;
        self.fits_here(&unread.header().manifest)?;
        Ok(unread)
    }

    fn judge_incoming(&self, incoming: &Incoming) -> Result<Verified, Refusal> {
        self.judge(&incoming.file)?.seen(&incoming.hashes)
    }

    /// What it names must be there on this box.
    fn fits_here(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let Body::Patch(patch) = &manifest.body else { return Ok(()) };
        if manifest.updates_agent() {
            return self.engine.takes_agents();
        }
        match patch.services.iter().find(|name| !self.engine.settings.services.contains_key(*name)) {
            Some(name) => Err(Refusal::Content(format!("it restarts the service {name:?}, which helper.toml does not name"))),
            None => Ok(()),
        }
    }

    fn verify(&self, incoming: &Incoming) -> Answer {
        match self.judge_incoming(incoming) {
            Ok(verified) => {
                Answer::File(view::file(&self.known(&verified, &incoming.file, None, Speaker::Root), &self.view(), true))
            }
            Err(why) => refusal(&why),
        }
    }

    fn view(&self) -> view::View<'_> {
        let wrong_codes = self.engine.state().wrong_codes;
        view::View { settings: &self.engine.settings, now: self.engine.now(), wrong_codes }
    }

    fn known(&self, verified: &Verified, file: &File, offer_id: Option<String>, who: Speaker) -> Known {
        let manifest = &verified.manifest;
        let one_way =
            matches!(&manifest.body, Body::Patch(p) if p.data_change == mainstay_patchkit::manifest::DataChange::OneWay);
        let agreed = rules::agreed_at_once(&self.engine.settings, manifest.kind(), one_way);
        let text = |text: &str| clean_text(text, MAX_TEXT_CHARS);
        Known {
            sha256: verified.file_sha256.clone(),
            manifest_sha256: verified.manifest_sha256.clone(),
            offer_id,
            by_hand: who == Speaker::Root,
            kind: manifest.kind(),
            name: manifest.name.clone(),
            product: manifest.subject().to_owned(),
            from_version: Some(self.engine.state().line(Subject::of(manifest.subject())).version.to_string()),
            to_version: manifest.version.to_string(),
            title: (text(&manifest.title.zh), text(&manifest.title.en)),
            notes: (text(&manifest.notes.zh), text(&manifest.notes.en)),
            bytes: file.metadata().map_or(0, |found| found.len()),
            one_way,
            step: if agreed.is_some() { PatchStep::AwaitingWindow } else { PatchStep::AwaitingConsent },
            reason: Default::default(),
            output: String::new(),
            at: self.engine.now(),
            code: None,
            tries: 0,
            agreed,
            attempts: 0,
        }
    }

    fn take(&mut self, incoming: &mut Incoming, offer_id: Option<String>, who: Speaker) -> Answer {
        if offer_id.as_ref().is_some_and(|id| id.len() != 32 || !id.bytes().all(|c| c.is_ascii_hexdigit())) {
            return refused("bad_request", "offer_id: expected 32 hex digits");
        }
        let judged = self.judge_incoming(incoming);
        match judged.and_then(|verified| self.take_verified(incoming, &verified, offer_id.clone(), who)) {
            Ok(answer) => answer,
            Err(why) => {
                if let Some(answer) = self.runs_already(incoming, offer_id.as_deref(), &why, who) {
                    return answer;
                }
                tracing::warn!("a file is refused: {why}");
                self.report_refused(incoming, offer_id, &why);
                refusal(&why)
            }
        }
    }

    fn take_verified(
        &mut self,
        incoming: &mut Incoming,
        verified: &Verified,
        offer_id: Option<String>,
        who: Speaker,
    ) -> Result<Answer, Refusal> {
        let io = |error: std::io::Error| io_refusal(&error);
        let sha256 = &verified.file_sha256;
        if let Some(known) = self.engine.state().file(sha256)
            && !is_ordered_again(known, offer_id.as_deref(), who)
        {
            let by_hand = known.by_hand || who == Speaker::Root;
            self.engine
                .store
                .change(|state| {
                    if let Some(known) = state.file_mut(sha256) {
                        known.by_hand = by_hand;
                        known.offer_id = offer_id.or(known.offer_id.take());
                    }
                })
                .map_err(io)?;
            return Ok(self.told(sha256, who));
        }
        let mut known = self.known(verified, &incoming.file, offer_id, who);
        if !matches!(known.kind, PatchKind::Patch | PatchKind::Action) {
            return self.engine.take_document(verified, known).map(|()| self.told(sha256, who));
        }
        if who == Speaker::Reporter && !rules::has_room_for_another(&self.engine.state().files) {
            return Err(Refusal::Io("too many files wait here already".into()));
        }
        known.code = (known.agreed.is_none() && !known.one_way).then(|| self.fresh_code()).transpose()?;
        self.quarantine.keep(incoming, sha256)?;
        let (step, now) = (known.step, self.engine.now());
        self.engine
            .store
            .change(|state| {
                state.files.retain(|file| file.sha256 != *sha256);
                state.files.push(known);
                state.step(sha256, step, ("", ""), "", now);
            })
            .map_err(io)?;
        Ok(self.told(sha256, who))
    }

    /// An offer that was refused is told to the vendor; what the file says of itself is only repeated, not believed.
    fn report_refused(&mut self, incoming: &Incoming, offer_id: Option<String>, why: &Refusal) {
        let Some(offer_id) = offer_id else { return };
        let manifest = PatchFile::open(&incoming.file).and_then(|file| Manifest::read(&file.header.manifest)).ok();
        let report = |number| PatchReport {
            number,
            offer_id: Some(offer_id),
            sha256: incoming.hashes.file_sha256.clone(),
            kind: manifest.as_ref().map_or(PatchKind::Patch, Manifest::kind),
            product: manifest.as_ref().map_or_else(String::new, |m| m.subject().to_owned()),
            from_version: None,
            to_version: manifest.as_ref().map_or_else(String::new, |m| clean_text(&m.version.to_string(), MAX_NAME_CHARS)),
            step: PatchStep::Refused,
            reason: why.code().to_owned(),
            detail: clean_text(&why.to_string(), MAX_TEXT_CHARS),
            output: String::new(),
        };
        let told = self.engine.store.change(|state| {
            state.last_report += 1;
            let report = report(state.last_report);
            state.reports.push(report);
            state.trim();
        });
        if let Err(error) = told {
            tracing::error!("the refusal can't be recorded: {error}");
        }
    }

    /// The network's side has given an offer's file up. What the offer said of it is only repeated, not believed.
    fn not_fetched(&mut self, offer: &Offer, why: &str) -> Answer {
        let hex = |text: &str, length| text.len() == length && text.bytes().all(|c| c.is_ascii_hexdigit());
        if !hex(&offer.offer_id, 32) || !hex(&offer.sha256, 64) {
            return refused("bad_request", "offer: expected an id of 32 and a SHA-256 of 64 hex digits");
        }
        // It came by another way.
        if self.engine.state().file(&offer.sha256).is_some_and(|known| !known.step.is_final()) {
            return Answer::Nothing;
        }
        let told = self.engine.store.change(|state| {
            state.last_report += 1;
            state.reports.push(PatchReport {
                number: state.last_report,
                offer_id: Some(offer.offer_id.clone()),
                sha256: offer.sha256.clone(),
                kind: offer.kind,
                product: clean_text(&offer.product, MAX_NAME_CHARS),
                from_version: None,
                to_version: clean_text(&offer.version, MAX_NAME_CHARS),
                step: PatchStep::Refused,
                reason: "not_fetched".to_owned(),
                detail: clean_text(why, MAX_TEXT_CHARS),
                output: String::new(),
            });
            state.trim();
        });
        told.map_or_else(|error| refusal(&io_refusal(&error)), |()| Answer::Nothing)
    }

    /// Reports after a number that this memory has not reached.
    fn reports(&mut self, after: u64) -> Answer {
        if after > self.engine.state().last_report && after <= MAX_NUMBER {
            tracing::warn!(after, "the agent knows of later reports than the helper: they are numbered on from there");
            let before = self.told_before;
            if let Err(error) = self.engine.store.change(|state| state.number_on(before, after)) {
                return refusal(&io_refusal(&error));
            }
            self.told_before = after;
        }
        Answer::Reports(view::reports(self.engine.state(), after))
    }

    /// The file as it stands, for `who`.
    pub(super) fn told(&self, sha256: &str, who: Speaker) -> Answer {
        match self.engine.state().file(sha256) {
            Some(known) => Answer::File(view::file(known, &self.view(), who == Speaker::Root)),
            None => refused("no_such_file", format!("{sha256}: not known here")),
        }
    }

    fn health(&mut self, sight: &Sight, say: Say<'_>) -> Answer {
        let Some((sha256, offer_id)) = self.under_way() else { return Answer::Nothing };
        if let Some((step, percent)) = self.engine.look(sight) {
            say(Answer::Progress(PatchProgress { offer_id, step, percent }));
        }
        self.told(&sha256, Speaker::Reporter)
    }

    fn rollback(&mut self, subject: Subject, who: Speaker) -> Answer {
        if who != Speaker::Root {
            return refused("not_allowed", "only the administrator on the box goes back");
        }
        let sha256 = match self.under_way() {
            // In probation: back at once.
            Some((sha256, _)) if self.engine.watch.is_some() && self.engine.subject() == subject => {
                self.engine.give_up("by_administrator", "the administrator asked for it");
                sha256
            }
            Some(_) => return refused("busy", "another file is being applied"),
            None => {
                let sha256 = self
                    .engine
                    .state()
                    .line(subject)
                    .previous
                    .as_ref()
                    .map(|previous| previous.sha256.clone())
                    .unwrap_or_default();
                if let Err(why) = self.engine.roll_back_installed(subject) {
                    return refused("nothing_to_roll_back", why.to_string());
                }
                sha256
            }
        };
        self.told(&sha256, who)
    }

    /// The file of the job, and its offer (empty: none).
    pub(super) fn under_way(&self) -> Option<(String, String)> {
        let sha256 = self.engine.state().job.as_ref()?.sha256.clone();
        let offer_id = self.engine.state().file(&sha256).and_then(|file| file.offer_id.clone()).unwrap_or_default();
        Some((sha256, offer_id))
    }

    /// A copy of what moves when this file is done.
    pub(super) fn seal(&self, verified: &Verified) -> Seal {
        Seal {
            root: verified.roots.last().map(|root| String::from_utf8_lossy(root).into_owned()),
            targets_version: verified.targets_version,
            role_version: verified.role_version,
            verified_at: self.engine.now(),
        }
    }

    /// A kept file, whose header may still be believed; its payload is hashed while it is unpacked.
    pub(super) fn judge_kept(&self, known: &Known) -> Result<(File, Unread), Refusal> {
        let file = self.quarantine.open_file(&known.sha256)?;
        let unread = self.judge(&file)?;
        if unread.header().manifest_sha256 != known.manifest_sha256 {
            return Err(Refusal::Content("the file in quarantine is not the one that was taken".into()));
        }
        Ok((file, unread))
    }

    pub(super) fn told_to(&self, sha256: &str, who: Speaker) -> Answer {
        self.told(sha256, who)
    }

    fn clean_up(&self) {
        let wanted: Vec<_> =
            self.engine.state().files.iter().filter(|file| !file.step.is_final()).map(|file| file.sha256.as_str()).collect();
        self.quarantine.clean(&wanted);
    }
}

/// Whether a file that is known is to be begun anew: never one that waits or runs; an action under another offer; anything by root's hand.
fn is_ordered_again(known: &Known, offer_id: Option<&str>, who: Speaker) -> bool {
    let another = known.kind == PatchKind::Action && offer_id.is_some() && known.offer_id.as_deref() != offer_id;
    known.step.is_final() && (another || who == Speaker::Root)
}
