//! Keys of signers: the secret half in a file under a passphrase (age, scrypt), the public half beside it in clear.
//!
//! The secret is 32 bytes of randomness; it is in memory only while it signs. A passphrase comes from a terminal that doesn't show it, or
//! from a file; never from an argument or the environment (R33).

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use anyhow::Context as _;
use mainstay_patchkit::authoring::{PublicKey, SigningKey};
use ring::rand::SecureRandom;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::files;

const MIN_PASSPHRASE_CHARS: usize = 12;

/// A public key with the name that people know it by.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedKey {
    /// Whose it is.
    pub(crate) name: String,
    /// The key, 64 hex digits.
    pub(crate) ed25519: PublicKey,
}

impl NamedKey {
    /// Reads a `.pub` file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let key: Self = files::read_json(path, "a public key file as `keys new` writes it")?;
        if !key.ed25519.is_plain() {
            return Err(Failure::because(Exit::Data, format!("{}: ed25519: expected 64 lower-case hex digits", path.display())));
        }
        Ok(key)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretKey {
    name: String,
    seed: String,
}

/// Makes a key and writes its two files.
pub(crate) fn create(
    out: &Path,
    name: &str,
    passphrase: SecretString,
    work_factor: Option<u8>,
    rng: &dyn SecureRandom,
) -> anyhow::Result<NamedKey> {
    let public_path = public_path(out);
    for path in [out, &public_path] {
        if path.exists() {
            return Err(Failure::because(Exit::Exists, format!("{}: exists already; nothing was changed", path.display())));
        }
    }
    let seed = SigningKey::new_seed(rng)?;
    let key = NamedKey { name: name.to_owned(), ed25519: SigningKey::from_seed(&seed)?.public().clone() };
    let mut recipient = age::scrypt::Recipient::new(passphrase);
    if let Some(work_factor) = work_factor {
        recipient.set_work_factor(work_factor);
    }
    let secret = serde_json::to_vec(&SecretKey { name: name.to_owned(), seed: hex::encode(seed) })?;
    files::write_new(out, &age::encrypt(&recipient, &secret)?, 0o600)?;
    files::write_new(&public_path, &[serde_json::to_vec_pretty(&key)?, b"\n".to_vec()].concat(), 0o644)?;
    Ok(key)
}

/// Opens a key file.
pub(crate) fn open(path: &Path, passphrase: SecretString) -> anyhow::Result<(String, SigningKey)> {
    let sealed = files::read(path)?;
    let secret = age::decrypt(&age::scrypt::Identity::new(passphrase), &sealed)
        .map_err(|error| Failure::because(Exit::Refused, format!("{}: cannot be opened: {error}", path.display())))?;
    let damaged = |why: &str| Failure::because(Exit::Data, format!("{}: not a signing key: {why}", path.display()));
    let secret: SecretKey = serde_json::from_slice(&secret).map_err(|error| damaged(&error.to_string()))?;
    let seed: [u8; 32] =
        hex::decode(&secret.seed).ok().and_then(|seed| seed.try_into().ok()).ok_or_else(|| damaged("its seed"))?;
    Ok((secret.name, SigningKey::from_seed(&seed)?))
}

/// Where the public half of a key file stands.
pub(crate) fn public_path(secret: &Path) -> PathBuf {
    let mut path = secret.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// A passphrase: the first line of `file`, or asked for on the terminal (`twice` when it will encrypt).
pub(crate) fn passphrase(file: Option<&Path>, what: &str, twice: bool) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(file) => {
            let bytes = files::read(file)?;
            String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned()
        }
        None => ask(what, twice)?,
    };
    if text.chars().count() < MIN_PASSPHRASE_CHARS {
        return Err(Failure::because(Exit::Config, format!("{what}: expected at least {MIN_PASSPHRASE_CHARS} characters")));
    }
    Ok(SecretString::from(text))
}

fn ask(what: &str, twice: bool) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::because(Exit::Config, format!("{what}: expected a terminal to ask on, or --passphrase-file")));
    }
    let first = ask_hidden(&format!("{what}: "))?;
    if twice && ask_hidden(&format!("{what}, again: "))? != first {
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
