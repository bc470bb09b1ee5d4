//! Keeps the vendor's signed metadata fresh, by the same client as the conformance suite's: what is current, and that nobody withholds it.
//!
//! The store is `tuf/` in the state directory, begun from the root that the box was shipped with. It makes fetching wait, never reporting;
//! the helper verifies every file from its own trust all the same. Files and network are used aside, since the disk may hang.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_patchkit::file::Header;
use mainstay_patchkit::manifest::Manifest;
use mainstay_patchkit::online::{Client, Repository, Store, Unreachable};
use mainstay_shared::api::PATH_REPOSITORY;
use mainstay_shared::patch::PatchKind;
use mainstay_shared::time_source::UnixMs;

use crate::probes::aside::Aside;
use crate::uplink::{Outcome, Uplink};

const LIMIT: Duration = Duration::from_secs(600);
/// A root has a few kilobytes.
const MAX_ROOT_BYTES: u64 = 1 << 20;
/// A file without a payload is its header.
const MAX_DOCUMENT_BYTES: usize = 5 << 20;

/// What following the repository needs.
#[derive(Clone)]
pub(crate) struct Metadata {
    /// The way to the collector.
    pub(crate) uplink: Arc<Uplink>,
    /// The first root, as shipped.
    pub(crate) root: PathBuf,
    /// Where what is trusted is kept.
    pub(crate) dir: PathBuf,
    /// Whose withdrawals are looked for; none: this box has no helper.
    pub(crate) product: Option<String>,
}

/// What the vendor's metadata says now.
#[derive(Debug, Default)]
pub(crate) struct Current {
    /// Until when it counts as fresh.
    pub(crate) fresh_until: Option<UnixMs>,
    /// Files of the product without a payload, with the SHA-256 of their manifests: a withdrawal is one of them.
    pub(crate) documents: Vec<(String, String)>,
}

/// The repository over our own way out.
struct Ours(Arc<Uplink>);

impl Repository for Ours {
    async fn metadata(&self, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, Unreachable> {
        let unreachable = |why: String| Unreachable(format!("{name}: {why}"));
        let mut body = match self.0.fetch(&format!("{PATH_REPOSITORY}metadata/{name}"), 0, None).await {
            Outcome::Sent(body) => body,
            Outcome::Refused { .. } => return Ok(None),
            Outcome::RetryAfter { why, .. } | Outcome::NotEnrolled { message: why } | Outcome::Stale { message: why } => {
                return Err(unreachable(why));
            }
        };
        let mut bytes = Vec::new();
        while let Some(piece) = body.piece().await.map_err(unreachable)? {
            bytes.extend_from_slice(piece.as_ref());
            if bytes.len() as u64 > most_bytes {
                return Err(unreachable(format!("more than {most_bytes} bytes")));
            }
        }
        Ok(Some(bytes))
    }
}

impl Metadata {
    /// Brings it up to date.
    ///
    /// # Errors
    /// What could not be had or is not believed.
    pub(crate) async fn refresh(&self, aside: &Aside, now: UnixMs) -> anyhow::Result<Current> {
        let (this, runtime) = (self.clone(), tokio::runtime::Handle::current());
        aside.run("the vendor's metadata", LIMIT, move || runtime.block_on(this.follow(now))).await?
    }

    /// A file of the repository that is small; none if it is not for this appliance, or is no withdrawal.
    ///
    /// # Errors
    /// When it can't be had now.
    pub(crate) async fn withdrawal(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let mut body = match self.uplink.fetch(&format!("{PATH_REPOSITORY}files/{name}.mpatch"), 0, None).await {
            Outcome::Sent(body) => body,
            Outcome::Refused { .. } => return Ok(None),
            Outcome::RetryAfter { why, .. } | Outcome::NotEnrolled { message: why } | Outcome::Stale { message: why } => {
                anyhow::bail!("{name}: {why}")
            }
        };
        let mut bytes = Vec::new();
        while let Some(piece) = body.piece().await.map_err(|why| anyhow::anyhow!("{name}: {why}"))? {
            bytes.extend_from_slice(piece.as_ref());
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Ok(None);
            }
        }
        Ok(is_withdrawal(&bytes).then_some(bytes))
    }

    async fn follow(self, now: UnixMs) -> anyhow::Result<Current> {
        let store = Store::open(&self.dir).with_context(|| self.dir.display().to_string())?;
        if !self.dir.join("root.json").exists() {
            store.begin(&shipped(&self.root)?)?;
        }
        let mut client = Client::open(Ours(self.uplink), store)?;
        client.refresh(now).await?;
        let documents = match &self.product {
            Some(product) => client.manifests(&Manifest::role_name(product), now).await?,
            None => Vec::new(),
        };
        Ok(Current { fresh_until: client.fresh_until(), documents })
    }
}

/// What it says of itself: whether it is believed, the helper decides.
fn is_withdrawal(bytes: &[u8]) -> bool {
    let manifest = Header::of(bytes).ok().and_then(|header| Manifest::read(&header.manifest).ok());
    manifest.is_some_and(|manifest| manifest.kind() == PatchKind::Withdrawal)
}

fn shipped(root: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(root).with_context(|| format!("{}: the vendor's first root", root.display()))?;
    file.take(MAX_ROOT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
