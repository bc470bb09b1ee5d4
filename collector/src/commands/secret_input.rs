//! Secrets from a file or from a terminal that does not show them, and files that hold secrets.
//!
//! Never an argument, never an environment variable, never a log line (R33).

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use age::secrecy::SecretString;
use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::exit::{Exit, Failure};
use crate::customers::credentials::MIN_PASSWORD_CHARS;

/// A passphrase: the first line of `file`, or asked for on the terminal (`twice` when it will encrypt).
pub(crate) fn passphrase(file: Option<&Path>, what: &str, twice: bool) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(file) => first_line(file)?,
        None => ask(what, twice)?,
    };
    if text.chars().count() < MIN_PASSWORD_CHARS {
        return Err(Failure::because(Exit::Config, format!("{what}: expected at least {MIN_PASSWORD_CHARS} characters")));
    }
    Ok(SecretString::from(text))
}

/// The first line of a file that holds a secret.
pub(crate) fn first_line(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::because(Exit::Config, format!("{}: cannot be read: {error}", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().trim_end_matches('\r').to_owned())
}

fn ask(what: &str, twice: bool) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::because(Exit::Config, format!("{what}: expected a terminal to ask on, or a file (see --help)")));
    }
    let first = ask_hidden(&format!("{what}: "))?;
    if twice && ask_hidden(&format!("{what}, 再次输入 / again: "))? != first {
        return Err(Failure::because(Exit::Config, format!("{what}: the two differ")));
    }
    Ok(first)
}

fn ask_hidden(prompt: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    eprint!("{prompt}");
    std::io::stderr().flush()?;
    let shown = tcgetattr(&stdin).context("asking the terminal for its modes")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("hiding what is typed")?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).context("showing again what is typed")?;
    eprintln!();
    read.context("reading from the terminal")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Writes a new file that only its owner reads, synced with its directory. An existing one is never replaced.
pub(crate) fn write_private_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = new_private_file(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("writing {}", path.display()))?;
    sync_directory_of(path)
}

/// Creates a file that only its owner reads.
pub(crate) fn new_private_file(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::AlreadyExists { Exit::Exists } else { Exit::Config };
        Failure::because(exit, format!("{}: cannot be created: {error}", path.display()))
    })
}

/// Makes the name of a new file durable.
pub(crate) fn sync_directory_of(path: &Path) -> anyhow::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("syncing {}", directory.display()))
}

/// Creates a directory, and those above it, that only its owner enters.
pub(crate) fn private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::because(Exit::Config, format!("{}: cannot be created: {error}", path.display())))
}
