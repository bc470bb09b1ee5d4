//! `keys`: makes a signer's key; adds, rotates and revokes keys of roles; renews what runs out. All but the first write a signing bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use mainstay_patchkit::authoring::{PublicKey, Signers};

use super::Room;
use super::init::{check_product, online_keys, public_keys};
use crate::authority::Authority;
use crate::bundle::Bundle;
use crate::changes::{Change, Validity};
use crate::exit::{Exit, Failure};
use crate::keys::{self, NamedKey};
use crate::repository::Repository;

/// `keys ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a signer's key: a file under a passphrase, and its public half beside it
    New(New),
    /// Let one more key sign for roles
    Add(Add),
    /// Put a new key in the place of an old one, wherever that signs (a lost or a stolen key)
    Rotate(Rotate),
    /// Take a key away, wherever it signs
    Revoke(Revoke),
    /// Let the same signers sign for one more product
    AddProduct(AddProduct),
    /// Put a collector's new online keys in the place of the old (they were stolen, or the collector is a new one)
    Online(Online),
    /// Sign roles anew before they run out
    Renew(Renew),
}

/// Arguments of `keys new`.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Where to write the secret half; `.pub` is added for the public one
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Whose key it is
    #[arg(long)]
    name: String,
    /// Take the passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Cost of trying passphrases, as a power of two (default: a second on this machine); less is for rehearsals only
    #[arg(long, value_parser = clap::value_parser!(u8).range(10..=22))]
    work_factor: Option<u8>,
}

/// What all changes have.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The repository's folder
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    #[command(flatten)]
    validity: Validity,
    /// Where to write the signing bundle
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `keys add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    common: Common,
    /// The new key
    #[arg(long, value_name = "FILE.pub")]
    key: PathBuf,
    /// root, targets, snapshot, timestamp or a product; give each
    #[arg(long = "role", required = true)]
    roles: Vec<String>,
    /// How many must sign from then on
    #[arg(long)]
    threshold: Option<usize>,
}

/// Arguments of `keys rotate`.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    common: Common,
    /// The old key: its .pub file, or its 64 hex digits
    #[arg(long)]
    old: String,
    /// The new key
    #[arg(long, value_name = "FILE.pub")]
    new: PathBuf,
    /// Only in these roles
    #[arg(long = "role")]
    roles: Vec<String>,
}

/// Arguments of `keys revoke`.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    common: Common,
    /// The key: its .pub file, or its 64 hex digits
    #[arg(long)]
    old: String,
    /// Only in these roles
    #[arg(long = "role")]
    roles: Vec<String>,
    /// How many must sign from then on
    #[arg(long)]
    threshold: Option<usize>,
}

/// Arguments of `keys add-product`.
#[derive(Debug, Args)]
pub(crate) struct AddProduct {
    #[command(flatten)]
    common: Common,
    /// The product
    #[arg(long)]
    product: String,
    /// Its signers; default: those of the top targets
    #[arg(long = "key", value_name = "FILE.pub")]
    keys: Vec<PathBuf>,
    /// How many must sign
    #[arg(long, default_value_t = 2)]
    threshold: usize,
}

/// Arguments of `keys online`.
#[derive(Debug, Args)]
pub(crate) struct Online {
    #[command(flatten)]
    common: Common,
    /// The collector's online keys, as `mainstay-collector releases keygen` prints them, or one .pub file
    #[arg(long, value_name = "FILE")]
    online: PathBuf,
}

/// Arguments of `keys renew`.
#[derive(Debug, Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    common: Common,
    /// root, targets or a product; give each
    #[arg(long = "role", required = true)]
    roles: Vec<String>,
}

/// Runs `keys ...`.
pub(crate) fn run(room: &Room, command: &Keys) -> anyhow::Result<()> {
    let none = BTreeSet::new();
    match command {
        Keys::New(new) => make(room, new),
        Keys::Add(add) => {
            let key = NamedKey::read(&add.key)?.ed25519;
            change(room, &add.common, &none, |authority| {
                for role in &add.roles {
                    let signers = authority.of_mut(role)?;
                    signers.keys.insert(key.clone());
                    signers.threshold = add.threshold.unwrap_or(signers.threshold);
                }
                Ok(())
            })
        }
        Keys::Rotate(rotate) => {
            let (old, new) = (old_key(&rotate.old)?, NamedKey::read(&rotate.new)?.ed25519);
            change(room, &rotate.common, &none, |authority| {
                for role in roles_with(authority, &old, &rotate.roles)? {
                    let signers = authority.of_mut(&role)?;
                    signers.keys.remove(&old);
                    signers.keys.insert(new.clone());
                }
                Ok(())
            })
        }
        Keys::Revoke(revoke) => {
            let old = old_key(&revoke.old)?;
            change(room, &revoke.common, &none, |authority| {
                for role in roles_with(authority, &old, &revoke.roles)? {
                    let signers = authority.of_mut(&role)?;
                    signers.keys.remove(&old);
                    signers.threshold = revoke.threshold.unwrap_or(signers.threshold);
                }
                Ok(())
            })
        }
        Keys::AddProduct(add) => {
            check_product(&add.product)?;
            change(room, &add.common, &none, |authority| {
                let signers = match add.keys.is_empty() {
                    true => authority.of("targets")?.clone(),
                    false => Signers { keys: public_keys(&add.keys)?, threshold: add.threshold },
                };
                authority.products.insert(add.product.clone(), signers);
                Ok(())
            })
        }
        Keys::Online(online) => {
            let (snapshot, timestamp) = online_keys(&online.online)?;
            change(room, &online.common, &none, |authority| {
                for (role, key) in [("snapshot", snapshot), ("timestamp", timestamp)] {
                    *authority.of_mut(role)? = Signers { keys: BTreeSet::from([key]), threshold: 1 };
                }
                Ok(())
            })
        }
        Keys::Renew(renew) => {
            let roles = renew.roles.iter().cloned().collect();
            change(room, &renew.common, &roles, |authority| roles.iter().try_for_each(|role| authority.of(role).map(|_| ())))
        }
    }
}

fn make(room: &Room, new: &New) -> anyhow::Result<()> {
    let passphrase = keys::passphrase(new.passphrase_file.as_deref(), &format!("passphrase of {}", new.out.display()), true)?;
    let key = keys::create(&new.out, &new.name, passphrase, new.work_factor, &room.rng)?;
    let public = keys::public_path(&new.out);
    let lines = [
        format!("{}: {}", key.name, key.ed25519.0),
        format!("{} stays with {}; {} goes to the others", new.out.display(), key.name, public.display()),
    ];
    room.say(&lines, &serde_json::json!({"name": key.name, "ed25519": key.ed25519, "secret": new.out, "public": public}));
    Ok(())
}

/// Changes who may sign, and writes what must be signed for it.
fn change(
    room: &Room,
    common: &Common,
    renewed: &BTreeSet<String>,
    apply: impl FnOnce(&mut Authority) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let standing = Repository::at(&common.repository).standing()?;
    let before = standing.authority()?;
    let mut after = before.clone();
    apply(&mut after)?;
    let (before, after) = (Some(&before), &after);
    let change =
        Change { standing: &standing, before, after, renewed, added: &BTreeMap::new(), validity: common.validity, now: room.now };
    let bundle = Bundle::new(change.documents()?, &[]);
    bundle.write(&common.out)?;
    room.say_bundle(&common.out, &bundle)
}

/// An old key may be known only by its digits: its file may be what was lost.
fn old_key(text: &str) -> anyhow::Result<PublicKey> {
    let key = PublicKey(text.to_owned());
    if key.is_plain() { Ok(key) } else { Ok(NamedKey::read(text.as_ref())?.ed25519) }
}

fn roles_with(authority: &Authority, key: &PublicKey, only: &[String]) -> anyhow::Result<Vec<String>> {
    let signs_in = authority.roles_of(key);
    let chosen: Vec<String> = signs_in.iter().filter(|role| only.is_empty() || only.contains(role)).cloned().collect();
    if chosen.is_empty() {
        let told = format!("key {}: signs in {signs_in:?}, in none of the roles asked for", key.0);
        return Err(Failure::because(Exit::Config, told));
    }
    Ok(chosen)
}
