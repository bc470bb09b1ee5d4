//! The commands: what each takes, and the exit codes (docs/collector.md lists them).
//!
//! First step of the process after `main`. Commands read the settings, open the database and call stores and stories; they
//! decide nothing themselves. Secrets are never arguments (R33): they come from files or a terminal.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mainstay_shared::time_source::TimeSource;
use ring::rand::SystemRandom;
use tokio::sync::watch;

use crate::config::{self, Config};
use crate::db::Db;
use crate::flow::World;

mod exit;
mod secret_input;
mod master_data;
mod users;
mod init;
mod join;
mod serve;
mod appliances;
mod releases;
mod ticket_page;
mod tickets;
mod look;
pub(crate) mod backup;
pub(crate) mod restore;

use exit::{Exit, Failure};

#[derive(Debug, Parser)]
#[command(name = "mainstay-collector", version, about = "Mainstay's collector: tickets, promised clocks, notices and records")]
struct Cli {
    /// The settings file.
    #[arg(long, global = true, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Answer in JSON, one document on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up keys, database and the first operator; once
    Init(init::Init),
    /// Run the collector
    Serve,
    /// Check the settings file and say what it means
    CheckConfig,
    /// Customers
    #[command(subcommand)]
    Customer(master_data::CustomerCommand),
    /// Sites of a customer
    #[command(subcommand)]
    Site(master_data::SiteCommand),
    /// Contacts of a customer
    #[command(subcommand)]
    Contact(master_data::ContactCommand),
    /// Service groups: "needs k of n"
    #[command(subcommand)]
    Group(master_data::GroupCommand),
    /// Join strings for new appliances
    #[command(subcommand)]
    JoinToken(join::JoinTokenCommand),
    /// Staff accounts
    #[command(subcommand)]
    User(users::UserCommand),
    /// Enrolled appliances
    #[command(subcommand)]
    Appliance(appliances::ApplianceCommand),
    /// The repository of signed files
    #[command(subcommand)]
    Releases(releases::ReleasesCommand),
    /// Tickets
    #[command(subcommand)]
    Ticket(tickets::TicketCommand),
    /// Tell how a ticket's deadlines came about
    Explain {
        /// The ticket, such as T-000042
        ticket: String,
    },
    /// Notices that went out, wait or were refused
    #[command(subcommand)]
    Notice(tickets::NoticeCommand),
    /// Write database and keys to an encrypted file, while serving
    Backup(backup::Backup),
    /// Put a backup into an empty database
    Restore(restore::Restore),
    /// The record of events
    #[command(subcommand)]
    Audit(look::AuditCommand),
}

/// What a command works with.
struct Room {
    config: Config,
    config_path: PathBuf,
    json: bool,
    time: TimeSource,
    rng: SystemRandom,
}

impl Room {
    /// The database of a collector that has been set up.
    async fn db(&self) -> anyhow::Result<Db> {
        let db = self.any_db().await?;
        let set_up: Option<String> =
            sqlx::query_scalar("SELECT epoch FROM collector").fetch_optional(&mut *db.read().await?).await?;
        match set_up {
            Some(_) => Ok(db),
            None => {
                Err(Failure::because(Exit::Config, "this collector has not been set up: run `mainstay-collector init` first"))
            }
        }
    }

    /// What a story needs when a command tells it: nobody waits here for changes.
    async fn world(&self) -> anyhow::Result<World> {
        Ok(World {
            config: Arc::new(self.config.clone()),
            db: self.db().await?,
            time: self.time.clone(),
            rng: self.rng.clone(),
            changes: watch::channel(0).1,
            look_now: Arc::default(),
            repository: None,
        })
    }

    /// The database as it is, set up or not.
    async fn any_db(&self) -> anyhow::Result<Db> {
        Db::open(&self.config.database_url).await.map_err(|error| Failure::caused(Exit::Unavailable, error))
    }
}

/// Who acts by a command on this machine, as the record of events names him.
fn local_actor() -> String {
    format!("local:uid={}", rustix::process::getuid().as_raw())
}

/// Runs the command that `args` name.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    // Whatever is written here is the service's own: keys, records, backups.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            let exit = if told.use_stderr() { Exit::Config } else { Exit::Done };
            drop(told.print());
            return exit.into();
        }
    };
    match prepare_and_run(cli) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprintln!("mainstay-collector: {}", exit::told(&error));
            exit::of(&error).into()
        }
    }
}

fn prepare_and_run(cli: Cli) -> anyhow::Result<()> {
    let Cli { config: config_path, json, command } = cli;
    let config = config::load(&config_path)?;
    if matches!(command, Command::CheckConfig) {
        return look::check_config(&config, &config_path, json);
    }
    start_log(config.log_json, matches!(command, Command::Serve));
    let room = Room { config, config_path, json, time: TimeSource::system(), rng: SystemRandom::new() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(dispatch(room, command))
}

async fn dispatch(room: Room, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init::run(&room, arguments).await,
        Command::Serve => serve::run(room).await,
        Command::CheckConfig => Ok(()),
        Command::Customer(command) => master_data::customer(&room, command).await,
        Command::Site(command) => master_data::site(&room, command).await,
        Command::Contact(command) => master_data::contact(&room, command).await,
        Command::Group(command) => master_data::group(&room, command).await,
        Command::JoinToken(command) => join::run(&room, command).await,
        Command::User(command) => users::run(&room, command).await,
        Command::Appliance(command) => appliances::run(&room, command).await,
        Command::Releases(command) => releases::run(&room, command).await,
        Command::Ticket(command) => tickets::ticket(&room, command).await,
        Command::Explain { ticket } => tickets::explain(&room, &ticket).await,
        Command::Notice(command) => tickets::notice(&room, command).await,
        Command::Backup(arguments) => backup::run(&room, arguments).await,
        Command::Restore(arguments) => restore::run(&room, arguments).await,
        Command::Audit(command) => look::audit(&room, command).await,
    }
}

/// Logs go to standard error, where journald reads them; `RUST_LOG` overrides the level.
fn start_log(json: bool, serving: bool) {
    let level = if serving { "info,sqlx=warn" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if json {
        log.json().init();
    } else {
        log.init();
    }
}

/// Tells the person at the terminal, on standard error, in both languages.
fn say(zh: &str, en: &str) {
    eprintln!("{zh}\n{en}");
}

/// Prints a listing: JSON on request, else a line each.
fn print_list<T: serde::Serialize>(json: bool, items: &[T], line: impl Fn(&T) -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(items)?);
    } else {
        for item in items {
            println!("{}", line(item));
        }
    }
    Ok(())
}
