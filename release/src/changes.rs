//! From who may sign now to who shall sign: which texts must be written anew, and who must sign each.
//!
//! A root is signed by the keys before and by its own (TUF 6.1), so that a lost key can be replaced by the others. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_patchkit::authoring::{Named, RootText, Signers, TargetsText};
use mainstay_patchkit::manifest::Manifest;
use mainstay_shared::time_source::UnixMs;
use serde_json::Value;

use crate::authority::{Authority, ROOT_ROLES};
use crate::bundle::Document;
use crate::exit::{Exit, Failure};
use crate::repository::Standing;

const DAY_MS: i64 = 86_400_000;

/// How long texts are valid, days.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Validity {
    /// Days that a root is valid
    #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(i64).range(1..=3650))]
    root_days: i64,
    /// Days that the top targets are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=3650))]
    targets_days: i64,
    /// Days that a product's role, and so each patch file, is valid
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(i64).range(1..=180))]
    product_days: i64,
}

/// What is written anew.
pub(crate) struct Change<'a> {
    /// What stands.
    pub(crate) standing: &'a Standing,
    /// Who may sign now; none at the beginning.
    pub(crate) before: Option<&'a Authority>,
    /// Who shall.
    pub(crate) after: &'a Authority,
    /// Roles to be renewed though nothing of them changes.
    pub(crate) renewed: &'a BTreeSet<String>,
    /// Files that a product's role names from now on.
    pub(crate) added: &'a BTreeMap<String, BTreeMap<String, Named>>,
    pub(crate) validity: Validity,
    pub(crate) now: UnixMs,
}

impl Change<'_> {
    /// The texts, without signatures.
    pub(crate) fn documents(&self) -> anyhow::Result<Vec<Document>> {
        self.after.check()?;
        let mut documents = Vec::new();
        let differs = |role: &str| self.before.is_none_or(|before| before.roles.get(role) != self.after.roles.get(role));
        if self.renewed.contains("root") || ROOT_ROLES.into_iter().any(differs) {
            documents.push(self.root()?);
        }
        let delegations_differ = self.before.is_none_or(|before| before.products != self.after.products);
        if self.renewed.contains("targets") || differs("targets") || delegations_differ {
            documents.push(self.targets()?);
        }
        for (product, signers) in &self.after.products {
            let is_new = self.before.is_none_or(|before| before.products.get(product) != Some(signers));
            if is_new || self.renewed.contains(product) || self.added.contains_key(product) {
                documents.push(self.product(product, signers)?);
            }
        }
        if documents.is_empty() {
            return Err(Failure::because(Exit::Config, "nothing would change"));
        }
        Ok(documents)
    }

    fn root(&self) -> anyhow::Result<Document> {
        let (before, version) = self.next("root")?;
        let text = RootText {
            version,
            expires_at: self.ends(self.validity.root_days),
            root: self.after.of("root")?,
            targets: self.after.of("targets")?,
            snapshot: self.after.of("snapshot")?,
            timestamp: self.after.of("timestamp")?,
        };
        let own = self.after.of("root")?.clone();
        let old = self.before.map(|before| before.of("root").cloned()).transpose()?.filter(|old| *old != own);
        Ok(document("root", before, text.to_value(), old.into_iter().chain([own]).collect()))
    }

    fn targets(&self) -> anyhow::Result<Document> {
        let (before, version) = self.next("targets")?;
        let text = TargetsText {
            version,
            issued_at: self.now,
            expires_at: self.ends(self.validity.targets_days),
            targets: &BTreeMap::new(),
            products: &self.after.products,
        };
        Ok(document("targets", before, text.to_value(), vec![self.after.of("targets")?.clone()]))
    }

    fn product(&self, product: &str, signers: &Signers) -> anyhow::Result<Document> {
        let role = Manifest::role_name(product);
        let (before, version) = self.next(&role)?;
        let mut files = before.as_ref().map(named_files).unwrap_or_default();
        for (name, file) in self.added.get(product).into_iter().flatten() {
            if files.insert(name.clone(), file.clone()).is_some() {
                let told = format!("{name}: is published already; files are never replaced: choose another name or version");
                return Err(Failure::because(Exit::Exists, told));
            }
        }
        let text = TargetsText {
            version,
            issued_at: self.now,
            expires_at: self.ends(self.validity.product_days),
            targets: &files,
            products: &BTreeMap::new(),
        };
        Ok(document(&role, before, text.to_value(), vec![signers.clone()]))
    }

    /// The text before, and the next version.
    fn next(&self, role: &str) -> anyhow::Result<(Option<Value>, u64)> {
        let before = self.standing.text(role)?;
        let version = before.as_ref().and_then(|text| text["version"].as_u64()).unwrap_or_default();
        Ok((before, version + 1))
    }

    fn ends(&self, days: i64) -> UnixMs {
        self.now.plus_ms(days * DAY_MS)
    }
}

fn document(role: &str, before: Option<Value>, signed: Value, wanted: Vec<Signers>) -> Document {
    Document { role: role.to_owned(), before, signed, signatures: BTreeMap::new(), wanted }
}

/// The files that a role's text names.
pub(crate) fn named_files(text: &Value) -> BTreeMap<String, Named> {
    let files = text["targets"].as_object().into_iter().flatten();
    let named = |(name, file): (&String, &Value)| {
        let sha256 = file["hashes"]["sha256"].as_str()?.to_owned();
        Some((name.clone(), Named { length: file["length"].as_u64()?, sha256 }))
    };
    files.filter_map(named).collect()
}
