//! `init`: the first root, top targets and product roles, from the public keys that the signers made on their own machines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use mainstay_patchkit::authoring::{PublicKey, Signers};
use mainstay_patchkit::manifest::is_word;
use serde_json::Value;

use super::Room;
use crate::authority::Authority;
use crate::bundle::Bundle;
use crate::changes::{Change, Validity};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::keys::NamedKey;
use crate::repository::{Repository, Standing};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The repository's folder; it must hold no root yet
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// A signer's public key (`keys new` wrote it); give each
    #[arg(long = "key", value_name = "FILE.pub", required = true)]
    keys: Vec<PathBuf>,
    /// How many of them must sign
    #[arg(long, default_value_t = 2)]
    threshold: usize,
    /// Other signers for products than those of the root; give each
    #[arg(long = "product-key", value_name = "FILE.pub")]
    product_keys: Vec<PathBuf>,
    /// A product; give each
    #[arg(long = "product", value_name = "NAME", required = true)]
    products: Vec<String>,
    /// The collector's online keys, as `mainstay-collector releases keygen` prints them, or one .pub file
    #[arg(long, value_name = "FILE")]
    online: PathBuf,
    #[command(flatten)]
    validity: Validity,
    /// Where to write the signing bundle
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the first bundle.
pub(crate) fn run(room: &Room, init: &Init) -> anyhow::Result<()> {
    let repository = Repository::at(&init.repository);
    if !repository.standing()?.roots.is_empty() {
        let told = format!("{}: holds a root already; see `keys` for changes", init.repository.display());
        return Err(Failure::because(Exit::Exists, told));
    }
    let root = Signers { keys: public_keys(&init.keys)?, threshold: init.threshold };
    let product = match init.product_keys.is_empty() {
        true => root.clone(),
        false => Signers { keys: public_keys(&init.product_keys)?, threshold: init.threshold },
    };
    let (snapshot, timestamp) = online_keys(&init.online)?;
    let online = |key: PublicKey| Signers { keys: BTreeSet::from([key]), threshold: 1 };
    let mut after = Authority::default();
    for (role, signers) in
        [("root", root.clone()), ("targets", root), ("snapshot", online(snapshot)), ("timestamp", online(timestamp))]
    {
        after.roles.insert(role.to_owned(), signers);
    }
    for name in &init.products {
        check_product(name)?;
        after.products.insert(name.clone(), product.clone());
    }
    let change = Change {
        standing: &Standing::default(),
        before: None,
        after: &after,
        renewed: &BTreeSet::new(),
        added: &BTreeMap::new(),
        validity: init.validity,
        now: room.now,
    };
    let bundle = Bundle::new(change.documents()?, &[]);
    bundle.write(&init.out)?;
    room.say_bundle(&init.out, &bundle)
}

/// A product's name becomes part of file names and of a role's.
pub(crate) fn check_product(name: &str) -> anyhow::Result<()> {
    if !is_word(name) || name.contains('.') || crate::authority::ROOT_ROLES.contains(&name) {
        return Err(Failure::because(Exit::Config, format!("product {name:?}: expected lower-case letters, digits and dashes")));
    }
    Ok(())
}

/// Public keys from their files, each another one.
pub(crate) fn public_keys(paths: &[PathBuf]) -> anyhow::Result<BTreeSet<PublicKey>> {
    let mut keys = BTreeSet::new();
    for path in paths {
        let key = NamedKey::read(path)?;
        if !keys.insert(key.ed25519) {
            return Err(Failure::because(Exit::Config, format!("{}: the same key is given twice", path.display())));
        }
    }
    Ok(keys)
}

/// The keys for snapshot and timestamp.
pub(crate) fn online_keys(path: &Path) -> anyhow::Result<(PublicKey, PublicKey)> {
    let text: Value = files::read_json(path, "the collector's online keys")?;
    if text.get("ed25519").is_some() {
        let key = NamedKey::read(path)?.ed25519;
        return Ok((key.clone(), key));
    }
    let key = |role: &str| {
        let public = PublicKey(text[role]["keyval"]["public"].as_str().unwrap_or_default().to_owned());
        let wrong = || Failure::because(Exit::Data, format!("{}: {role}: expected an Ed25519 key", path.display()));
        if public.is_plain() { Ok(public) } else { Err(wrong()) }
    };
    Ok((key("snapshot")?, key("timestamp")?))
}
