//! The story of a signed file on this side: what the collector offers and carries goes to the helper, what the helper says goes up.
//!
//! The reporter has no rights here: it hands over a descriptor, carries what was typed, tells the states of the business services, and
//! spools the helper's reports in their order. It must never say "now", agree without a code, or drop a report.

use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::directive::Directive;
use mainstay_shared::limits::{MAX_NAME_CHARS, MAX_TEXT_CHARS, clean_text};
use mainstay_shared::patch::{Decision, Installed, PatchReport, PatchStep};
use mainstay_shared::record::Payload;
use mainstay_shared::time_source::TimeSource;
use tokio::sync::Notify;

use super::contact::Contact;
use crate::checks::{Checker, look};
use crate::config::Service;
use crate::helper::protocol::{Answer, KnownFile, Request};
use crate::lifecycle::StopSignal;
use crate::patches::{Book, Held, HelperClient, HelperError, IDLE, Keeper, Limit, Progress, Stage, TICK, Typed, until_next};
use crate::pause::Pause;
use crate::spool::{Spool, SpoolError};

/// Between two looks at the services while a new version is on probation.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files begun in one round.
const AT_A_TIME: usize = 16;
/// Of a script's output, if the whole makes a record too large.
const SHORT_OUTPUT_CHARS: usize = 4000;

/// What the poll and the fetching share with this story. Clones share it.
#[derive(Clone)]
pub(crate) struct PatchDesk {
    /// What is remembered.
    pub(crate) keeper: Keeper,
    /// What the heartbeat shows.
    pub(crate) progress: Progress,
    /// There is something to fetch.
    pub(crate) fetch_now: Arc<Notify>,
    /// There is something for the helper.
    pub(crate) help_now: Arc<Notify>,
}

impl PatchDesk {
    /// The desk over what `keeper` remembers.
    pub(crate) fn new(keeper: Keeper) -> Self {
        keeper.tidy();
        Self { keeper, progress: Progress::default(), fetch_now: Arc::default(), help_now: Arc::default() }
    }

    /// Takes a directive over; on return it is on the disk. Whether it was.
    pub(crate) async fn hear(&self, directive: &Directive) -> bool {
        let heard = self.keep(|book| book.hear(&directive.id, &directive.ask)).await;
        self.fetch_now.notify_one();
        self.help_now.notify_one();
        heard
    }

    /// Changes the book; whether the disk took it.
    pub(crate) async fn keep(&self, change: impl FnOnce(&mut Book)) -> bool {
        let kept = self.keeper.change(change).await;
        kept.inspect_err(|error| tracing::error!("the book of offers can't be written: {error:#}")).is_ok()
    }

    /// Nothing more is to be done about an offer.
    pub(crate) async fn over(&self, offer_id: &str) {
        self.keep(|book| book.forget(offer_id)).await;
        self.progress.hide(offer_id);
        self.keeper.tidy();
    }
}

/// What the story needs.
pub(crate) struct Patching {
    /// Shared with the poll and the fetching.
    pub(crate) desk: PatchDesk,
    /// The way to the helper.
    pub(crate) helper: HelperClient,
    /// Where its reports go.
    pub(crate) spool: Spool,
    /// The declared services.
    pub(crate) services: Vec<Service>,
    /// Whether the collector has answered since the start.
    pub(crate) contact: Contact,
    /// Asks them, before a version begins and while it is on probation: what was known before may be old.
    pub(crate) checker: Arc<Checker>,
    /// The wall clock of the install windows.
    pub(crate) time: TimeSource,
}

/// What is installed here, as the helper says; none if there is no helper.
pub(crate) async fn installed(helper: Option<&HelperClient>) -> Option<Installed> {
    match helper?.ask(Request::Installed, None, Limit::Looking, &Progress::default()).await {
        Ok(Answer::Installed(installed)) => installed,
        Ok(_) | Err(HelperError::Absent) => None,
        Err(error) => {
            tracing::warn!("what is installed is not known: {error}");
            None
        }
    }
}

/// Carries until `stop`.
///
/// # Errors
/// When the spool has ended.
pub(crate) async fn run(patching: Patching, stop: StopSignal) -> anyhow::Result<()> {
    let pause = Pause::new();
    let mut absence_told = false;
    loop {
        let round = tokio::select! {
            round = patching.round() => round,
            () = stop.clone().requested() => return Ok(()),
        };
        let wait = match round {
            Ok(wait) => wait,
            Err(Trouble::Spool(SpoolError::Stopped)) => return Err(SpoolError::Stopped.into()),
            Err(Trouble::Helper(HelperError::Absent)) => {
                if !std::mem::replace(&mut absence_told, true) {
                    tracing::info!("{}", HelperError::Absent);
                }
                if patching.desk.keeper.book().offers.is_empty() { IDLE } else { TICK }
            }
            Err(trouble) => {
                tracing::warn!("patches go on in a minute: {trouble}");
                TICK
            }
        };
        tokio::select! {
            () = pause.wait(wait) => {}
            () = patching.desk.help_now.notified() => {}
            () = stop.clone().requested() => return Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Helper(#[from] HelperError),
    #[error("a report can't be spooled: {0}")]
    Spool(#[from] SpoolError),
}

/// What came of asking the helper to begin.
enum Begun {
    /// Something was done; there may be more.
    Yes,
    /// It is at something.
    Busy,
    /// Nothing is due, or it was refused.
    No,
}

impl Patching {
    /// Everything that is to be done now; how long until the next round, if nobody calls before.
    async fn round(&self) -> Result<Duration, Trouble> {
        self.hand_withdrawals_over().await?;
        self.hand_over().await?;
        let files = self.files().await?;
        self.carry_words(&files).await?;
        self.pull_reports().await?;
        for _ in 0..AT_A_TIME {
            let files = self.files().await?;
            if let Some(file) = files.iter().find(|file| file.step == PatchStep::Probation) {
                self.watch_over(&file.sha256).await?;
            } else {
                let applying = files.iter().any(|file| file.step == PatchStep::Applying);
                let begins = applying || files.iter().any(|file| file.is_due);
                if !begins {
                    break;
                }
                match self.proceed().await? {
                    Begun::Yes => {}
                    // The helper has put this very program in place and is about to look for its word.
                    Begun::Busy if applying => Pause::new().wait(LOOK_EVERY).await,
                    Begun::Busy | Begun::No => break,
                }
            }
            self.pull_reports().await?;
        }
        self.pull_reports().await?;
        let files = self.files().await?;
        self.conclude(&files).await;
        Ok(if self.desk.keeper.book().has_words() { TICK } else { until_next(&files, self.time.now()) })
    }

    async fn ask(&self, request: Request, limit: Limit) -> Result<Answer, HelperError> {
        self.helper.ask(request, None, limit, &self.desk.progress).await
    }

    async fn files(&self) -> Result<Vec<KnownFile>, HelperError> {
        Ok(match self.ask(Request::List, Limit::Looking).await? {
            Answer::Files(files) => files,
            _ => Vec::new(),
        })
    }

    /// Files that are whole go to the helper, which copies and judges them.
    async fn hand_over(&self) -> Result<(), Trouble> {
        let book = self.desk.keeper.book();
        for held in book.offers.iter().filter(|held| held.stage == Stage::Complete) {
            let offer = &held.offer;
            let file = match std::fs::File::open(self.desk.keeper.file_of(&offer.offer_id)) {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(%error, file = offer.file, "a fetched file is gone; it is fetched again");
                    self.desk.keep(|book| book.with(&offer.offer_id, begin_anew)).await;
                    self.desk.fetch_now.notify_one();
                    continue;
                }
            };
            let request = Request::Take { offer_id: Some(offer.offer_id.clone()) };
            match self.helper.ask(request, Some(file), Limit::Taking, &self.desk.progress).await? {
                Answer::Refused { code, detail } if matches!(code.as_str(), "busy" | "not_allowed") => {
                    tracing::warn!(code, detail, file = offer.file, "the helper does not take a file now");
                }
                Answer::Refused { code, detail } => {
                    tracing::error!(code, detail, file = offer.file, "the helper refuses a file");
                    self.desk.over(&offer.offer_id).await;
                }
                _ => {
                    self.desk.keep(|book| book.with(&offer.offer_id, |held| held.stage = Stage::Handed)).await;
                }
            }
        }
        Ok(())
    }

    /// Withdrawals go to the helper, which judges them as it does every file.
    async fn hand_withdrawals_over(&self) -> Result<(), Trouble> {
        let keeper = &self.desk.keeper;
        for manifest_sha256 in keeper.book().withdrawals {
            let path = keeper.withdrawal_of(&manifest_sha256);
            if let Ok(file) = std::fs::File::open(&path) {
                let request = Request::Take { offer_id: None };
                match self.helper.ask(request, Some(file), Limit::Taking, &self.desk.progress).await? {
                    Answer::Refused { code, .. } if matches!(code.as_str(), "busy" | "not_allowed") => continue,
                    Answer::Refused { code, detail } => tracing::warn!(code, detail, "the helper refuses a withdrawal"),
                    _ => tracing::info!("the helper has a withdrawal"),
                }
            }
            if self.desk.keep(|book| book.withdrawals.retain(|waits| *waits != manifest_sha256)).await {
                std::fs::remove_file(&path).ok();
            }
        }
        Ok(())
    }

    /// What was typed at a page, what the vendor took back, what can't be had.
    async fn carry_words(&self, files: &[KnownFile]) -> Result<(), Trouble> {
        let book = self.desk.keeper.book();
        for given_up in &book.given_up {
            let request = Request::NotFetched { offer: given_up.offer.clone(), why: given_up.why.clone() };
            match self.ask(request, Limit::Looking).await? {
                Answer::Refused { code, .. } if code == "busy" => {}
                _ => {
                    self.desk.keep(|book| book.given_up.retain(|told| told != given_up)).await;
                }
            }
        }
        for offer_id in &book.taken_back {
            match self.ask(Request::TakenBack { offer_id: offer_id.clone() }, Limit::Looking).await? {
                Answer::Refused { code, .. } if code == "busy" => {}
                _ => {
                    self.desk.keep(|book| book.taken_back.retain(|id| id != offer_id)).await;
                }
            }
        }
        for typed in &book.typed {
            let file = files.iter().find(|file| file.offer_id.as_ref() == Some(&typed.offer_id));
            let Some(file) = file else {
                tracing::warn!(offer = typed.offer_id, "a decision about an offer that the helper does not know is dropped");
                self.desk.keep(|book| book.typed.retain(|waiting| waiting != typed)).await;
                continue;
            };
            match self.ask(decision(typed, &file.sha256), Limit::Looking).await? {
                Answer::Refused { code, .. } if code == "busy" => continue,
                Answer::Refused { code, detail } => {
                    tracing::warn!(code, detail, offer = typed.offer_id, "a decision typed at a link was not taken");
                }
                _ => tracing::info!(offer = typed.offer_id, "a decision typed at a link was taken"),
            }
            self.desk.keep(|book| book.typed.retain(|waiting| waiting != typed)).await;
        }
        Ok(())
    }

    /// The helper's reports go into the spool, in their order; the number is kept after each that the spool took.
    async fn pull_reports(&self) -> Result<(), Trouble> {
        loop {
            let after = self.desk.keeper.book().last_report;
            let Answer::Reports(reports) = self.ask(Request::Reports { after }, Limit::Looking).await? else { return Ok(()) };
            if reports.is_empty() {
                return Ok(());
            }
            for report in reports {
                let number = report.number;
                spool_report(&self.spool, report).await?;
                if !self.desk.keep(|book| book.last_report = number).await {
                    return Ok(());
                }
            }
        }
    }

    /// Begins what is due; whether another may be.
    async fn proceed(&self) -> Result<Begun, Trouble> {
        let services = look(&self.checker, &self.services).await;
        let request = Request::Proceed { sha256: None, now: false, services };
        match self.ask(request, Limit::Applying).await? {
            Answer::File(file) if file.step == PatchStep::Probation || file.step.is_final() => Ok(Begun::Yes),
            Answer::Refused { code, .. } if code == "busy" => Ok(Begun::Busy),
            Answer::Refused { code, detail } => {
                tracing::warn!(code, detail, "the helper does not begin");
                Ok(Begun::No)
            }
            _ => Ok(Begun::No),
        }
    }

    /// Looks at the services until the helper has judged the new version; silence is a judgement too.
    async fn watch_over(&self, sha256: &str) -> Result<(), Trouble> {
        let pause = Pause::new();
        loop {
            let services = look(&self.checker, &self.services).await;
            let reached = self.contact.facts().last_contact_mono.is_some();
            if !reached {
                // This very program may be on probation, and its line is a part of that: no waiting for the end of a back-off.
                self.contact.report_now.notify_one();
            }
            match self.ask(Request::Health { services, reached: Some(reached) }, Limit::Applying).await {
                Ok(Answer::File(file)) if file.sha256 == sha256 && file.step == PatchStep::Probation => {}
                Ok(Answer::Refused { code, .. }) if code == "busy" => {}
                Ok(_) => return Ok(()),
                Err(HelperError::Lost(why)) => tracing::warn!(why, "a look at the services was not taken"),
                Err(absent) => return Err(absent.into()),
            }
            pause.wait(LOOK_EVERY).await;
        }
    }

    /// Shows where files stand, and forgets offers that are over.
    async fn conclude(&self, files: &[KnownFile]) {
        let of = |held: &Held| files.iter().find(|file| file.sha256 == held.offer.sha256).map(|file| file.step);
        for held in self.desk.keeper.book().offers.iter().filter(|held| held.stage == Stage::Handed) {
            let offer_id = &held.offer.offer_id;
            match of(held) {
                Some(step) if !step.is_final() => self.desk.progress.show(offer_id, step, 0),
                _ => self.desk.over(offer_id).await,
            }
        }
        self.desk.keeper.tidy();
    }
}

/// Whole; else with the end of its output; else what it is about alone: one that can't leave keeps nothing waiting behind it.
pub(super) async fn spool_report(spool: &Spool, report: PatchReport) -> Result<(), SpoolError> {
    let mut short = report.clone();
    let begin = short.output.chars().count().saturating_sub(SHORT_OUTPUT_CHARS);
    short.output = short.output.chars().skip(begin).collect();
    let stub = stub(report.clone());
    for form in [report, short, stub] {
        let number = form.number;
        match spool.push(Payload::Patch(form)).await {
            Err(SpoolError::TooLarge { bytes }) => tracing::warn!(number, bytes, "a report of the helper's is too large and cut"),
            pushed => return pushed.map(drop),
        }
    }
    Ok(())
}

fn stub(mut report: PatchReport) -> PatchReport {
    let words = [&mut report.sha256, &mut report.product, &mut report.to_version, &mut report.reason];
    let words = words.into_iter().chain(&mut report.offer_id).chain(&mut report.from_version);
    words.for_each(|word| *word = clean_text(word, MAX_NAME_CHARS));
    report.detail = clean_text(&report.detail, MAX_TEXT_CHARS);
    report.output.clear();
    report
}

fn begin_anew(held: &mut Held) {
    (held.stage, held.durable_bytes, held.tag) = (Stage::Wanted, 0, None);
    held.tries += 1;
}

fn decision(typed: &Typed, sha256: &str) -> Request {
    let (sha256, code) = (sha256.to_owned(), Some(typed.code.clone()));
    match &typed.decision {
        Decision::Approve => Request::Consent { sha256, code },
        Decision::Refuse { reason } => Request::Refuse { sha256, code, reason: reason.clone() },
    }
}
