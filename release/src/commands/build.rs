//! `build`: from a draft and a folder to a payload and a bundle in which the product's role names them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use mainstay_patchkit::archive::{self, Packed};
use mainstay_patchkit::authoring::Named;
use mainstay_patchkit::manifest::{Body, Patch};
use mainstay_shared::patch::{AGENT, PatchKind};

use super::Room;
use crate::bundle::Bundle;
use crate::changes::{Change, Validity};
use crate::draft::Draft;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::repository::Repository;

/// The kinds of files.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Patch,
    Action,
    Policy,
    Profile,
    Licence,
    Withdrawal,
    SupportKey,
}

impl From<Kind> for PatchKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Patch => Self::Patch,
            Kind::Action => Self::Action,
            Kind::Policy => Self::Policy,
            Kind::Profile => Self::Profile,
            Kind::Licence => Self::Licence,
            Kind::Withdrawal => Self::Withdrawal,
            Kind::SupportKey => Self::SupportKey,
        }
    }
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// What it is
    #[arg(long)]
    kind: Kind,
    /// The draft (docs/release.md)
    #[arg(value_name = "DRAFT.toml")]
    draft: PathBuf,
    /// Of a patch: the folder whose content it brings
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The repository's folder
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// Compression, 1 (fast) to 19 (small)
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    #[command(flatten)]
    validity: Validity,
    /// Where to write the signing bundle; the payload is written beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Builds.
pub(crate) fn run(room: &Room, build: &Build) -> anyhow::Result<()> {
    let draft = Draft::read(&build.draft)?;
    let standing = Repository::at(&build.repository).standing()?;
    let authority = standing.authority()?;
    let product = draft.product().to_owned();
    if !authority.products.contains_key(&product) {
        let known: Vec<&String> = authority.products.keys().collect();
        return Err(Failure::because(
            Exit::Config,
            format!("product {product}: expected one of {known:?}; see `keys add-product`"),
        ));
    }
    let payload_path = build.out.with_file_name(draft.payload_name());
    if let Some(dir) = build.dir.as_ref().filter(|_| draft.updates_agent()) {
        demand_agent(dir)?;
    }
    let packed = build.dir.as_ref().map(|dir| pack(dir, &payload_path, build.level)).transpose()?;
    let folder = build.draft.parent().unwrap_or(Path::new("."));
    let manifest = draft.manifest(build.kind.into(), folder, packed)?;
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    let mut files = BTreeMap::from([(manifest.target_name(), Named::of(&bytes))]);
    if let Body::Patch(Patch { payload, .. }) = &manifest.body {
        let named = Named { length: payload.length, sha256: payload.sha256.clone() };
        files.insert(manifest.payload_target_name(), named);
    }
    let change = Change {
        standing: &standing,
        before: Some(&authority),
        after: &authority,
        renewed: &BTreeSet::new(),
        added: &BTreeMap::from([(product, files)]),
        validity: build.validity,
        now: room.now,
    };
    let bundle = Bundle::new(change.documents()?, &[bytes]);
    bundle.write(&build.out)?;
    room.say_bundle(&build.out, &bundle)
}

/// An update of the agent brings its one program and nothing beside it: every appliance refuses another.
fn demand_agent(dir: &Path) -> anyhow::Result<()> {
    let wrong =
        || Failure::because(Exit::Config, format!("{}: expected one program, {AGENT}, and nothing beside it", dir.display()));
    let mut found = std::fs::read_dir(dir).map_err(|_| wrong())?;
    let (Some(Ok(only)), None) = (found.next(), found.next()) else { return Err(wrong()) };
    let about = std::fs::symlink_metadata(only.path()).map_err(|_| wrong())?;
    let fits = only.file_name() == AGENT && about.is_file() && about.permissions().mode() & 0o111 != 0;
    if fits { Ok(()) } else { Err(wrong()) }
}

fn pack(dir: &Path, out: &Path, level: i32) -> anyhow::Result<Packed> {
    let mut packed = None;
    files::replace(out, 0o644, |file| {
        let outcome = archive::pack(dir, level, BufWriter::new(file));
        packed = Some(outcome.map_err(|error| Failure::because(Exit::Config, format!("{}: {error}", dir.display())))?);
        Ok(())
    })?;
    packed.ok_or_else(|| Failure::because(Exit::Internal, "nothing was packed"))
}
