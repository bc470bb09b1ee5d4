//! `sign`: one signer, on a machine of their own: shows what the bundle says, asks, signs what the key may sign.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use mainstay_patchkit::authoring::SigningKey;

use super::Room;
use crate::bundle::Bundle;
use crate::exit::{Exit, Failure};
use crate::{keys, readback};

/// Arguments of `sign`.
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The signing bundle; it is changed in place
    bundle: PathBuf,
    /// Your key
    #[arg(long, value_name = "FILE", required_unless_present = "merge")]
    key: Option<PathBuf>,
    /// Take the passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Sign without asking: you have read it
    #[arg(long)]
    yes: bool,
    /// Take over the signatures of another copy of the bundle
    #[arg(long, value_name = "BUNDLE")]
    merge: Option<PathBuf>,
}

/// Signs, or merges, or both.
pub(crate) fn run(room: &Room, sign: &Sign) -> anyhow::Result<()> {
    let mut bundle = Bundle::read(&sign.bundle)?;
    if let Some(other) = &sign.merge {
        bundle.merge(&Bundle::read(other)?)?;
    }
    if let Some(path) = &sign.key {
        for line in readback::explain(&bundle)? {
            eprintln!("{line}");
        }
        if !sign.yes {
            ask()?;
        }
        let what = format!("passphrase of {}", path.display());
        let (name, key) = keys::open(path, keys::passphrase(sign.passphrase_file.as_deref(), &what, false)?)?;
        sign_all(&mut bundle, &name, &key)?;
    }
    bundle.write(&sign.bundle)?;
    room.say_bundle(&sign.bundle, &bundle)
}

fn sign_all(bundle: &mut Bundle, name: &str, key: &SigningKey) -> anyhow::Result<()> {
    let mut signed = 0;
    for document in &mut bundle.documents {
        if document.wanted.iter().any(|group| group.keys.contains(key.public())) {
            let mut envelope = document.envelope();
            envelope.sign(key)?;
            document.signatures = envelope.signatures;
            signed += 1;
        }
    }
    if signed == 0 {
        return Err(Failure::because(Exit::Refused, format!("the key of {name} signs for none of these roles")));
    }
    Ok(())
}

fn ask() -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::because(Exit::Config, "expected a terminal to ask on, or --yes"));
    }
    eprint!("Sign this? Type yes: ");
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if line.trim() != "yes" {
        return Err(Failure::because(Exit::Refused, "not signed"));
    }
    Ok(())
}
