//! `patch` and `action`: what waits, what it is, agree, refuse, install now, go back, what was. As root, over the helper's socket.
//!
//! The helper decides everything; here it is asked and shown. While a new version is on probation the running agent is asked for the state
//! of the business services, which the helper judges. It must never claim a state that the agent did not tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use mainstay_shared::check::ServiceState;
use mainstay_shared::patch::{AGENT, PatchKind, PatchProgress, PatchStep};

use super::words::pick;
use super::{Exit, Failure, Output, link, say_json, socket};
use crate::helper::Conversation;
use crate::helper::protocol::{Answer, KnownFile, Request};
use crate::uplink::Link;

mod print;

/// Between two looks at the services during probation.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatchCommand {
    /// What waits or runs.
    List {
        /// Actions rather than patches.
        actions: bool,
    },
    /// What is over.
    History {
        /// Actions rather than patches.
        actions: bool,
    },
    /// What is installed, and what is under way.
    Status,
    /// What a file is, or the file of a link.
    Verify(String),
    /// Agree and begin; a file, the link of a mail or the beginning of a hash.
    Apply(String),
    /// Refuse; the beginning of a hash.
    Refuse(String),
    /// Back to the version before.
    Rollback {
        /// Of the agent, not of the product.
        agent: bool,
    },
}

/// With what goes with it.
#[derive(Debug, Clone)]
pub(crate) struct PatchOrder {
    /// What.
    pub(crate) what: PatchCommand,
    /// Without waiting for the window.
    pub(crate) now: bool,
    /// Why it is refused.
    pub(crate) reason: String,
}

struct Desk<'a> {
    helper: Conversation,
    config: &'a Path,
    state_dir: &'a Path,
    output: Output,
    /// The last line of progress.
    told: String,
}

/// Does it.
///
/// # Errors
/// [`Exit::Unavailable`] without a helper, and what the helper says by its own exit codes.
pub(crate) async fn patch(
    order: &PatchOrder,
    socket: &Path,
    (config, state_dir): (&Path, &Path),
    output: Output,
) -> Result<(), Failure> {
    let helper = Conversation::open(socket)
        .with_context(|| format!("{}: the helper does not answer", socket.display()))
        .map_err(|error| Failure::new(Exit::Unavailable, error))?;
    let looks = matches!(
        order.what,
        PatchCommand::List { .. } | PatchCommand::History { .. } | PatchCommand::Status | PatchCommand::Verify(_)
    );
    let desk = Desk { helper, config, state_dir, output, told: String::new() };
    let ended = desk.perform(order).await;
    if !looks {
        // An agent that does not run tells when it does.
        socket::tell_patch_news(state_dir).await.ok();
    }
    ended
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = File::open(path).with_context(|| path.display().to_string());
    opened.map_err(|error| Failure::new(Exit::Usage, error))
}

fn unavailable(error: std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, anyhow::Error::new(error).context("the helper went away; `patch status` tells how it stands"))
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::new(Exit::Internal, anyhow!("the helper gave an answer that does not fit: {answer:?}"))
}

fn refusal(code: &str, detail: &str) -> Failure {
    let exit = match code {
        "busy" => Exit::TryLater,
        "not_allowed" => Exit::NotAllowed,
        "bad_request" | "no_such_file" => Exit::Usage,
        _ => Exit::Refused,
    };
    Failure::new(exit, anyhow!("{detail} ({code})"))
}

impl Desk<'_> {
    async fn perform(mut self, order: &PatchOrder) -> Result<(), Failure> {
        match &order.what {
            PatchCommand::List { actions } => self.list(*actions, false),
            PatchCommand::History { actions } => self.list(*actions, true),
            PatchCommand::Status => self.status(),
            PatchCommand::Verify(what) => {
                let answer = self.hand_over(&Request::Verify, what)?;
                self.show(answer).map(drop)
            }
            PatchCommand::Apply(what) => self.apply(what, order.now).await,
            PatchCommand::Refuse(what) => self.refuse(what, &order.reason),
            PatchCommand::Rollback { agent } => {
                let answer = self.ask(&Request::Rollback { agent: *agent }, None)?;
                let file = self.show(answer)?;
                if file.step == PatchStep::RolledBack { Ok(()) } else { self.ended(&file) }
            }
        }
    }

    fn ask(&mut self, request: &Request, file: Option<&File>) -> Result<Answer, Failure> {
        let (output, told) = (self.output, &mut self.told);
        let answer = self.helper.ask(request, file, &mut |progress| hear(output, told, &progress)).map_err(unavailable)?;
        match answer {
            Answer::Refused { code, detail } => Err(refusal(&code, &detail)),
            answer => Ok(answer),
        }
    }

    fn files(&mut self) -> Result<Vec<KnownFile>, Failure> {
        match self.ask(&Request::List, None)? {
            Answer::Files(files) => Ok(files),
            other => Err(unexpected(&other)),
        }
    }

    fn list(&mut self, actions: bool, over: bool) -> Result<(), Failure> {
        let mut files = self.files()?;
        files.retain(|file| (file.kind == PatchKind::Action) == actions && file.step.is_final() == over);
        if self.output.json {
            return Ok(say_json(&files)?);
        }
        print::files(&files, over, self.output.lang);
        Ok(())
    }

    fn status(&mut self) -> Result<(), Failure> {
        let installed = match self.ask(&Request::Installed, None)? {
            Answer::Installed(installed) => installed,
            other => return Err(unexpected(&other)),
        };
        let mut files = self.files()?;
        files.retain(|file| !file.step.is_final());
        if self.output.json {
            return Ok(say_json(&serde_json::json!({ "installed": installed, "open": files }))?);
        }
        print::installed(installed.as_ref(), self.output.lang);
        print::files(&files, false, self.output.lang);
        Ok(())
    }

    /// Prints a file; itself.
    fn show(&self, answer: Answer) -> Result<KnownFile, Failure> {
        let Answer::File(file) = answer else { return Err(unexpected(&answer)) };
        if self.output.json {
            say_json(&file)?;
        } else {
            print::file(&file, self.output.lang);
        }
        Ok(file)
    }

    /// The one file whose hash begins so.
    fn find(&mut self, begin: &str) -> Result<KnownFile, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, anyhow!(text));
        let mut found: Vec<_> = self.files()?.into_iter().filter(|file| file.sha256.starts_with(begin)).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(usage(format!(
                "{begin}: expected a file, the link of a mail, or the beginning of a SHA-256 that `patch list` shows"
            ))),
            n => Err(usage(format!("{begin}: {n} files begin so; give more of the SHA-256"))),
        }
    }

    /// Asks with the file, or with what a link brings.
    fn hand_over(&mut self, request: &Request, what: &str) -> Result<Answer, Failure> {
        if !Link::is_meant(what) {
            return self.ask(request, Some(&open(Path::new(what))?));
        }
        let fetched = link::fetch(what, self.config, self.state_dir, self.output)?;
        let answer = self.ask(request, Some(&fetched.file));
        // What was only looked at, or could not be taken now, need not be fetched twice.
        let keep = match &answer {
            Ok(_) => *request == Request::Verify,
            Err(failure) => failure.exit != Exit::Refused,
        };
        if !keep {
            fetched.remove();
        }
        answer
    }

    async fn apply(&mut self, what: &str, now: bool) -> Result<(), Failure> {
        let mut file = if Link::is_meant(what) || Path::new(what).is_file() {
            let answer = self.hand_over(&Request::Take { offer_id: None }, what)?;
            let Answer::File(file) = answer else { return Err(unexpected(&answer)) };
            file
        } else {
            self.find(what)?
        };
        if file.step == PatchStep::AwaitingConsent {
            let answer = self.ask(&Request::Consent { sha256: file.sha256.clone(), code: None }, None)?;
            let Answer::File(agreed) = answer else { return Err(unexpected(&answer)) };
            file = agreed;
        }
        if file.step == PatchStep::AwaitingWindow {
            let services = self.services().await?;
            let answer = self.ask(&Request::Proceed { sha256: Some(file.sha256.clone()), now, services }, None)?;
            let Answer::File(begun) = answer else { return Err(unexpected(&answer)) };
            file = begun;
        }
        while file.step == PatchStep::Probation {
            file = if file.product == AGENT {
                // The new agent speaks for itself.
                self.find(&file.sha256)?
            } else {
                let services = self.services().await?;
                match self.ask(&Request::Health { services, reached: None }, None)? {
                    Answer::File(file) => file,
                    // The reporter's look came first: it is over.
                    _ => self.find(&file.sha256)?,
                }
            };
            if file.step == PatchStep::Probation {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let file = self.show(Answer::File(file))?;
        self.ended(&file)
    }

    /// What the business services answer at this moment.
    async fn services(&self) -> Result<BTreeMap<String, ServiceState>, Failure> {
        socket::ask_look(self.state_dir).await.map_err(|error| {
            let why = "the agent does not run: what it says of the business services decides whether the new version is believed";
            let why = pick(self.output.lang, "代理程序未运行：新版本是否可信取决于它对业务服务的检查", why);
            Failure::new(Exit::Unavailable, anyhow::Error::new(error).context(why))
        })
    }

    fn refuse(&mut self, what: &str, reason: &str) -> Result<(), Failure> {
        if reason.trim().is_empty() {
            return Err(Failure::new(Exit::Usage, anyhow!("--reason: expected why, for the vendor")));
        }
        let file = self.find(what)?;
        let answer = self.ask(&Request::Refuse { sha256: file.sha256, code: None, reason: reason.to_owned() }, None)?;
        self.show(answer).map(drop)
    }

    /// The exit code that tells how it stands.
    fn ended(&self, file: &KnownFile) -> Result<(), Failure> {
        let lang = self.output.lang;
        let exit = match file.step {
            PatchStep::Done | PatchStep::AwaitingWindow | PatchStep::Fetching => return Ok(()),
            PatchStep::AwaitingConsent => Exit::NeedsConsent,
            PatchStep::RolledBack => Exit::RolledBack,
            PatchStep::Refused => Exit::Refused,
            PatchStep::Failed | PatchStep::Unknown => Exit::NeedsPerson,
            PatchStep::Applying | PatchStep::Probation => Exit::TryLater,
        };
        let (code, detail) = &file.reason;
        Err(Failure::new(exit, anyhow!("{}", print::end(lang, file.step, (code, detail)))))
    }
}

/// Tells how far it is, once.
fn hear(output: Output, told: &mut String, progress: &PatchProgress) {
    let step = print::step(output.lang, progress.step);
    let line = match progress.step {
        // Nobody knows how long the services will take.
        PatchStep::Probation => step.to_owned(),
        _ => format!("{step} {} %", progress.percent),
    };
    if !output.json && *told != line {
        eprintln!("{line}");
        *told = line;
    }
}
