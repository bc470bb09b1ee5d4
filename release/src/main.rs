//! `mainstay-release`: the vendor's offline tool. It makes keys, builds, signs, publishes and explains signed files.
//!
//! It speaks to no network; what goes from one machine to another is a file that a person carries. It must never be installed with the
//! agent or the collector, which hold no key that appliances obey (R1, R8).

mod exit;
mod files;
mod keys;
mod authority;
mod bundle;
mod repository;
mod changes;
mod draft;
mod readback;
mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mainstay_shared::time_source::{TimeSource, UnixMs};
use ring::rand::SystemRandom;

use crate::commands::{Room, build, init, inspect, keys as keys_command, publish, sign, verify};
use crate::exit::{Exit, Failure};

/// The vendor's offline tool for signed files
#[derive(Debug, Parser)]
#[command(name = "mainstay-release", version)]
struct Arguments {
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    /// The moment that counts as now, milliseconds since 1970 (rehearsals and tests; default: the machine's clock)
    #[arg(long, global = true, value_name = "MS")]
    at: Option<i64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the first root, from the signers' public keys
    Init(init::Init),
    /// Make keys, and change which ones may sign
    #[command(subcommand)]
    Keys(keys_command::Keys),
    /// Build a patch, an action or a document
    Build(build::Build),
    /// Sign a bundle on your machine
    Sign(sign::Sign),
    /// Put a signed bundle into the repository
    Publish(publish::Publish),
    /// Judge a file as an appliance would
    Verify(verify::Verify),
    /// Tell what a file says
    Inspect(inspect::Inspect),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_help = !error.use_stderr();
            return match error.print() {
                Ok(()) if is_help => ExitCode::SUCCESS,
                _ => Exit::Config.into(),
            };
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = format!("{error:#}");
            if arguments.json {
                eprintln!("{}", serde_json::json!({"error": told}));
            } else {
                eprintln!("mainstay-release: {told}");
            }
            Failure::exit_of(&error).into()
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let now = arguments.at.map_or_else(|| TimeSource::system().now(), UnixMs);
    let room = Room { now, rng: SystemRandom::new(), json: arguments.json };
    match &arguments.command {
        Command::Init(init) => init::run(&room, init),
        Command::Keys(keys) => keys_command::run(&room, keys),
        Command::Build(build) => build::run(&room, build),
        Command::Sign(sign) => sign::run(&room, sign),
        Command::Publish(publish) => publish::run(&room, publish),
        Command::Verify(verify) => verify::run(&room, verify),
        Command::Inspect(inspect) => inspect::run(&room, inspect),
    }
}
