//! The durable state on the disk: two slots written in turn, each whole, each with its own sum.
//!
//! `state.0` and `state.1` in the state folder: a line of SHA-256 in hex, then JSON. The higher sequence counts; a slot that does not match
//! its sum is set aside and counted, and the other, one step older, is taken: the steps are such that going on from there is right (the
//! journal is written before the deed). Both damaged: nothing is begun, ever, from nothing, for the floors would be gone (R22).
//! It must never be changed but through [`Store::change`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use mainstay_shared::patch::PatchStep;
use ring::digest;

use super::disk::{self, Disk};
use super::state::State;

const MAX_BYTES: u64 = 8 << 20;

/// What is published to those who only look.
pub(super) type Published = Arc<Mutex<Arc<State>>>;

/// The state, in memory and on the disk.
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Arc<State>,
    published: Published,
}

enum Slot {
    Empty,
    Damaged,
    Whole(Box<State>),
}

fn digest_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn read_slot(disk: &dyn Disk, path: &std::path::Path) -> std::io::Result<Slot> {
    let Some(bytes) = disk::read(disk, path, MAX_BYTES)? else { return Ok(Slot::Empty) };
    let whole = bytes.split_at_checked(65).filter(|(sum, json)| sum[..64] == *digest_hex(json).as_bytes());
    Ok(whole.and_then(|(_, json)| serde_json::from_slice(json).ok()).map_or(Slot::Damaged, |state| Slot::Whole(Box::new(state))))
}

impl Store {
    /// Reads the state, or begins with `shipped`.
    ///
    /// # Errors
    /// When the folder can't be read or written, or both slots are damaged.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        shipped: impl FnOnce() -> anyhow::Result<State>,
    ) -> anyhow::Result<Self> {
        let paths = [dir.join("state.0"), dir.join("state.1")];
        let mut damaged = 0;
        let mut best: Option<Box<State>> = None;
        for path in &paths {
            match read_slot(&*disk, path).with_context(|| path.display().to_string())? {
                Slot::Empty => {}
                Slot::Damaged => {
                    tracing::error!("{}: damaged, set aside", path.display());
                    damaged += 1;
                }
                Slot::Whole(state) => best = best.filter(|b| b.sequence > state.sequence).or(Some(state)),
            }
        }
        anyhow::ensure!(
            best.is_some() || damaged == 0,
            "{}: the helper's memory is damaged; nothing is installed until it is restored from a backup",
            dir.display()
        );
        let fresh = best.is_none();
        let state = Arc::new(best.map_or_else(shipped, |best| Ok(*best))?);
        let published = Arc::new(Mutex::new(Arc::clone(&state)));
        let mut store = Self { disk, dir, state, published };
        if damaged > 0 {
            store.after_damage(damaged)?;
        } else if fresh {
            store.change(|_| ())?;
        }
        Ok(store)
    }

    /// Whether this program can read what lies there, without touching it.
    ///
    /// # Errors
    /// When a slot can't be read, is damaged, or says what this program does not understand.
    pub(super) fn look(disk: &dyn Disk, dir: &std::path::Path) -> anyhow::Result<()> {
        for path in [dir.join("state.0"), dir.join("state.1")] {
            let slot = read_slot(disk, &path).with_context(|| path.display().to_string())?;
            anyhow::ensure!(
                !matches!(slot, Slot::Damaged),
                "{}: damaged, or of a form that this version does not read",
                path.display()
            );
        }
        Ok(())
    }

    /// The newest step may be lost: what may have run is not run again.
    fn after_damage(&mut self, damaged: u32) -> anyhow::Result<()> {
        self.change(|state| {
            state.damages += damaged;
            let uncertain = state.files.iter_mut().filter(|f| f.kind == mainstay_shared::patch::PatchKind::Action);
            for file in uncertain.filter(|file| file.agreed.is_some() && !file.step.is_final()) {
                file.step = PatchStep::Unknown;
                file.reason = ("journal_damaged".into(), "the helper's memory was damaged".into());
            }
        })?;
        Ok(())
    }

    /// As it is.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// For those who only look, from other threads.
    pub(super) fn published(&self) -> Published {
        Arc::clone(&self.published)
    }

    /// Changes it, durably: when this returns, it is on the disk; when it fails, nothing has changed in memory.
    ///
    /// # Errors
    /// What the disk said.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> std::io::Result<T> {
        let mut next = State::clone(&self.state);
        let result = change(&mut next);
        next.sequence += 1;
        let json = serde_json::to_vec(&next)?;
        let mut bytes = digest_hex(&json).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        disk::replace(&*self.disk, &self.dir.join(format!("state.{}", next.sequence % 2)), &bytes)?;
        self.state = Arc::new(next);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.state);
        Ok(result)
    }
}
