//! Keeps the vendor's signed metadata fresh, by the same client as the conformance suite's: what is current, and that nobody withholds it.
//!
//! The store is `tuf/` in the state directory, begun from the root that the box was shipped with. It makes fetching wait, never reporting;
//! the helper verifies every file from its own trust all the same. Files and network are used aside, since the disk may hang.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mainstay_patchkit::online::{Client, Repository, Store, Unreachable};
use mainstay_shared::api::PATH_REPOSITORY;
use mainstay_shared::time_source::UnixMs;

use crate::probes::aside::Aside;
use crate::uplink::{Outcome, Uplink};

const LIMIT: Duration = Duration::from_secs(600);
/// A root has a few kilobytes.
const MAX_ROOT_BYTES: u64 = 1 << 20;

/// What following the repository needs.
#[derive(Clone)]
pub(crate) struct Metadata {
    /// The way to the collector.
    pub(crate) uplink: Arc<Uplink>,
    /// The first root, as shipped.
    pub(crate) root: PathBuf,
    /// Where what is trusted is kept.
    pub(crate) dir: PathBuf,
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
    /// Brings it up to date; until when it counts as fresh.
    ///
    /// # Errors
    /// What could not be had or is not believed.
    pub(crate) async fn refresh(&self, aside: &Aside, now: UnixMs) -> anyhow::Result<Option<UnixMs>> {
        let (this, runtime) = (self.clone(), tokio::runtime::Handle::current());
        aside.run("the vendor's metadata", LIMIT, move || runtime.block_on(this.follow(now))).await?
    }

    async fn follow(self, now: UnixMs) -> anyhow::Result<Option<UnixMs>> {
        let store = Store::open(&self.dir).with_context(|| self.dir.display().to_string())?;
        if !self.dir.join("root.json").exists() {
            store.begin(&shipped(&self.root)?)?;
        }
        let mut client = Client::open(Ours(self.uplink), store)?;
        client.refresh(now).await?;
        Ok(client.fresh_until())
    }
}

fn shipped(root: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(root).with_context(|| format!("{}: the vendor's first root", root.display()))?;
    file.take(MAX_ROOT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
