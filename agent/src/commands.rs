//! The agent's commands and exit codes.
//!
//! Secrets come by file or standard input, never as arguments. Errors go to standard error in one line each, with the exit codes
//! of docs/agent.md. It must never decide what a flow or a stage should.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use lexopt::prelude::{Long, Short, Value, ValueExt as _};
use mainstay_shared::time_source::TimeSource;

use crate::config::{Config, DEFAULT_PATH};
use crate::flow::report::StaleEpoch;
use crate::local::{Exit, Failure, HELP, Lang, LinkFetch, Output, PatchCommand, PatchOrder, SpoolCommand, pick, say, say_json};
use crate::spool::Limits;
use crate::uplink::{Identity, LinkWay, TrustedClock, system_roots};
use crate::{daemon, helper, local, log};

/// The command line.
struct Command {
    config: PathBuf,
    output: Output,
    words: Vec<String>,
    join_file: Option<PathBuf>,
    again: bool,
    no_wait: bool,
    note: String,
    helper_config: PathBuf,
    now: bool,
    check: bool,
    reason: String,
    out: Option<PathBuf>,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let mut lang = Lang::from_environment();
    let parsed = parse(lang).map_err(|error| Failure::new(Exit::Usage, error));
    let ended = parsed.and_then(|command| {
        lang = command.output.lang;
        perform(&command)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mainstay-agent: {}{:#}", failure.exit.headline(lang), failure.error);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn parse(lang: Lang) -> anyhow::Result<Command> {
    let output = Output { json: false, lang };
    let config = PathBuf::from(DEFAULT_PATH);
    let note = "mainstay-agent test".into();
    let mut command = Command {
        config,
        output,
        words: Vec::new(),
        join_file: None,
        again: false,
        no_wait: false,
        note,
        helper_config: PathBuf::from(helper::DEFAULT_PATH),
        now: false,
        check: false,
        reason: String::new(),
        out: None,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("config") => command.config = arguments.value()?.into(),
            Long("helper-config") => command.helper_config = arguments.value()?.into(),
            Long("now") => command.now = true,
            Long("check") => command.check = true,
            Long("reason") => command.reason = arguments.value()?.string()?,
            Long("out") => command.out = Some(arguments.value()?.into()),
            Long("json") => command.output.json = true,
            Long("lang") => {
                let name = arguments.value()?.string()?;
                command.output.lang = Lang::from_name(&name).ok_or_else(|| anyhow!("--lang {name}: expected zh or en"))?;
            }
            Long("join-file") => command.join_file = Some(arguments.value()?.into()),
            Long("again") => command.again = true,
            Long("no-wait") => command.no_wait = true,
            Long("note") => command.note = arguments.value()?.string()?,
            Long("help") | Short('h') => command.words.push("help".into()),
            Long("version") | Short('V') => command.words.push("version".into()),
            Value(word) => command.words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(command)
}

fn perform(command: &Command) -> Result<(), Failure> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let time = TimeSource::system();
    match words.as_slice() {
        ["help"] => say(pick(command.output.lang, HELP.0, HELP.1)),
        ["version"] => say(concat!("mainstay-agent ", env!("CARGO_PKG_VERSION"))),
        ["check-config"] => check_config(command)?,
        ["spool", what] => {
            let what = match *what {
                "check" => SpoolCommand::Check,
                "dump" => SpoolCommand::Dump,
                "repair" => SpoolCommand::Repair,
                other => return Err(usage(anyhow!("spool {other}: expected check, dump or repair"))),
            };
            let config = load(command)?;
            log::to_stderr(config.log_format);
            let limits = Limits { max_bytes: config.spool_max_bytes };
            local::spool(what, &config.state_dir.join("spool"), limits, &time, command.output)?;
        }
        ["enroll" | "run" | "status" | "test"] => perform_async(command, words[0], time)?,
        [local::FETCH_LINK] => {
            local::leave_root(&load(command)?.state_dir)?;
            perform_async(command, words[0], time)?;
        }
        ["helper"] if command.check => {
            load(command)?;
            helper::check(&helper_settings(command)?)?;
            say(pick(command.output.lang, "本版本可在该设备上运行", "this version can run on this box"));
        }
        ["helper"] => {
            log::to_stderr(crate::config::LogFormat::Text);
            helper::serve(helper_settings(command)?, time)?;
        }
        ["executor"] => helper::serve_executor()?,
        ["patch", "receipt"] => {
            let config = load(command)?;
            local::patch_receipt(&config, command.out.as_deref(), &time, command.output)?;
        }
        ["test", "reach"] => perform_async(command, "reach", time)?,
        ["patch" | "action", ..] => perform_async(command, words[0], time)?,
        [] => return Err(usage(anyhow!("expected a command; `mainstay-agent help` lists them"))),
        _ => return Err(usage(anyhow!("{}: no such command; `mainstay-agent help` lists them", words.join(" ")))),
    }
    Ok(())
}

fn perform_async(command: &Command, word: &str, time: TimeSource) -> Result<(), Failure> {
    // A second installation in one process can't happen here; a missing provider would panic later.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime can't be started")?;
    let config = load(command)?;
    log::to_stderr(config.log_format);
    let performed = async {
        match word {
            "patch" | "action" => {
                let order = PatchOrder { what: patch_command(command)?, now: command.now, reason: command.reason.clone() };
                local::patch(&order, &helper_settings(command)?.socket, (&command.config, &config.state_dir), command.output)
                    .await
            }
            "enroll" => {
                let settings = daemon::settings(&config)?;
                local::enroll(&config.state_dir, &settings, command.join_file.clone(), command.again, &time, command.output).await
            }
            "reach" => local::reach(&config.state_dir, daemon::settings(&config)?, &time, command.output).await,
            local::FETCH_LINK => Ok(local::tell(fetch_link(&config, &time, command.output).await)?),
            "status" => local::status(&config, &time, command.output).await,
            "test" => local::test(&config.state_dir, command.note.clone(), command.no_wait, command.output).await,
            _ => daemon::run(config, time).await,
        }
    };
    let ended = tokio::task::LocalSet::new().block_on(&runtime, performed);
    // What hangs in the kernel must not keep the process from ending.
    runtime.shutdown_background();
    ended.map_err(|failure| match failure.error.downcast_ref::<StaleEpoch>() {
        Some(_) => Failure { exit: Exit::TryLater, ..failure },
        None => failure,
    })
}

/// The child of `patch apply LINK`.
async fn fetch_link(config: &Config, time: &TimeSource, output: Output) -> Result<(), Failure> {
    let link = local::link_on_stdin()?;
    // A box that is not enrolled may fetch too.
    let enrolled = Identity::load(&config.state_dir).ok();
    let proxy = daemon::settings(config)?.proxy;
    let clock = TrustedClock::new(time.clone(), &config.state_dir);
    let way = LinkWay::to(&link, system_roots(enrolled.as_ref()), proxy.as_ref(), &clock)?;
    let fetch = LinkFetch { way: &way, settings: &config.patches, state_dir: &config.state_dir, time, output };
    fetch.run(&link).await
}

fn helper_settings(command: &Command) -> Result<helper::Settings, Failure> {
    helper::Settings::load(&command.helper_config).map_err(usage)
}

fn patch_command(command: &Command) -> Result<PatchCommand, Failure> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["patch", "list"] => PatchCommand::List { actions: false },
        ["patch", "history"] => PatchCommand::History { actions: false },
        ["patch", "status"] => PatchCommand::Status,
        ["patch", "verify", file] => PatchCommand::Verify((*file).to_owned()),
        ["patch", "apply", what] | ["action", "run", what] => PatchCommand::Apply((*what).to_owned()),
        ["patch" | "action", "refuse", sha256] => PatchCommand::Refuse((*sha256).to_owned()),
        ["patch", "rollback"] => PatchCommand::Rollback { agent: false },
        ["patch", "rollback", "agent"] => PatchCommand::Rollback { agent: true },
        ["action", "list"] => PatchCommand::List { actions: true },
        ["action", "history"] => PatchCommand::History { actions: true },
        _ => return Err(usage(anyhow!("{}: no such command; `mainstay-agent help` lists them", words.join(" ")))),
    })
}

fn check_config(command: &Command) -> Result<(), Failure> {
    let report = load(command)?.check_report();
    if command.output.json {
        return Ok(say_json(&report)?);
    }
    for file in &report.files {
        say(format_args!("{} {}", pick(command.output.lang, "已读取", "read"), file.display()));
    }
    for service in &report.services {
        say(format_args!("{} {service}", pick(command.output.lang, "业务服务", "service")));
    }
    for warning in &report.warnings {
        say(format_args!("{} {warning}", pick(command.output.lang, "注意：", "warning:")));
    }
    say(pick(command.output.lang, "配置正确", "the configuration is good"));
    Ok(())
}

fn load(command: &Command) -> Result<Config, Failure> {
    Config::load(&command.config).map_err(usage)
}

fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Usage, error)
}
