//! The online client: learns from the repository what is current, withdrawn and fresh (TUF 1.0, section 5), and where a target lies.
//!
//! It verifies by the metadata core plus thresholds over distinct keys, keeps what it trusts in a durable store, and fetches through a
//! [`Repository`] of the caller's. It holds no target in memory: [`Checked`] passes the bytes on while it measures them. It must never
//! write a file into the store that was not verified, nor let a damaged file lower what it demands (R22).

mod floors;
mod store;
mod download;
mod delegations;
mod refresh;

use std::future::Future;

use mainstay_shared::time_source::UnixMs;
use sigstore_tuf::TrustedMetadataSet;
use thiserror::Error;

pub use download::{Checked, Located};
pub use store::Store;

/// Where metadata comes from.
pub trait Repository {
    /// The metadata file of this name (already encoded for a URL), if there is one; never more than `most_bytes`.
    fn metadata(&self, name: &str, most_bytes: u64) -> impl Future<Output = Result<Option<Vec<u8>>, Unreachable>> + Send;
}

/// A repository that can't be asked: no network, another answer than the file or its absence, more bytes than allowed.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Why there is no current metadata.
#[derive(Debug, Error)]
pub enum OnlineError {
    /// The store holds no root that can be read: it was never set up, or is damaged.
    #[error("no trusted root: {0}")]
    NoRoot(String),
    /// The repository can't be asked.
    #[error("the repository can't be reached")]
    Unreachable(#[from] Unreachable),
    /// What it gave is refused.
    #[error("{what}: {why}")]
    Refused {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
    /// The store can't be read or written.
    #[error("the metadata store can't be used")]
    Store(#[from] std::io::Error),
}

/// Most bytes of each kind of metadata, as python-tuf has them.
const MOST_ROOT_BYTES: u64 = 512_000;
const MOST_TIMESTAMP_BYTES: u64 = 16_384;
const MOST_SNAPSHOT_BYTES: u64 = 2_000_000;
const MOST_TARGETS_BYTES: u64 = 5_000_000;
/// Roots followed in one go.
const MOST_ROOTS: u64 = 256;
/// Roles asked for one target.
const MOST_ROLES: usize = 32;

/// A client over one store and one repository.
pub struct Client<R> {
    repository: R,
    store: Store,
    trusted: TrustedMetadataSet,
}

impl<R: Repository> Client<R> {
    /// Begins from the root in the store.
    ///
    /// # Errors
    /// [`OnlineError::NoRoot`].
    pub fn open(repository: R, store: Store) -> Result<Self, OnlineError> {
        let trusted = store.root()?;
        Ok(Self { repository, store, trusted })
    }

    /// Brings root, timestamp, snapshot and top targets up to date; each is stored when it was verified.
    ///
    /// # Errors
    /// The first file that can't be had or is refused; those before it stay stored.
    pub async fn refresh(&mut self, now: UnixMs) -> Result<(), OnlineError> {
        refresh::all(self, now).await
    }

    /// Where a target lies and what its bytes must be; none if nobody who may signs it. After [`Self::refresh`].
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn locate(&mut self, target: &str, now: UnixMs) -> Result<Option<Located>, OnlineError> {
        delegations::locate(self, target, now).await
    }

    /// Names (without their ending) and SHA-256 (hex) of the manifests that a role below the top targets has signed and that bring no payload.
    /// After [`Self::refresh`].
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn manifests(&mut self, role: &str, now: UnixMs) -> Result<Vec<(String, String)>, OnlineError> {
        delegations::manifests(self, role, now).await
    }

    /// The version of the trusted root.
    #[must_use]
    pub fn root_version(&self) -> u64 {
        self.trusted.root().version
    }

    /// Until when the repository's word counts as fresh: the trusted timestamp's end.
    #[must_use]
    pub fn fresh_until(&self) -> Option<UnixMs> {
        self.trusted.timestamp().map(|timestamp| UnixMs(timestamp.expires.as_millisecond()))
    }
}

/// Marks a refusal with the file that it is about.
fn refused(what: &str) -> impl FnOnce(sigstore_tuf::Error) -> OnlineError + '_ {
    move |error| OnlineError::Refused { what: what.to_owned(), why: error.to_string() }
}
