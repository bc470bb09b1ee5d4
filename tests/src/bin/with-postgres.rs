//! `with-postgres [--durable] COMMAND ARGS..`: runs a command with one private PostgreSQL, whose address stands in
//! `MAINSTAY_TEST_POSTGRES`, and stops the server when the command ends. Its exit code is the command's. `--durable`: with the
//! settings that PostgreSQL ships, fsync among them.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use e2e::postgres::{PostgresServer, SHARED};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    let durable = args.next_if(|arg| arg == "--durable").is_some();
    let program = args.next().context("usage: with-postgres [--durable] COMMAND ARGS..")?;
    let server = if durable { PostgresServer::start_durable().await? } else { PostgresServer::start().await? };
    let status = Command::new(&program).args(args).env(SHARED, server.address()).status();
    let status = status.with_context(|| format!("starting {}", program.display()))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
