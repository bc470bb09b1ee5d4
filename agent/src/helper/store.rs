//! The durable state on the disk: two slots written in turn, each whole, each with its own sum.
//!
//! `state.0` and `state.1` in the state folder: a line of SHA-256 in hex, then JSON. The higher sequence counts; a slot that does not match
//! its sum, or can't be read, is set aside and counted, and the other, one step older, is taken: the steps are such that going on from there
//! is right (the journal is written before the deed). Both damaged: nothing is begun, ever, from nothing, for the floors would be gone (R22).
//! It must never be changed but through [`Store::change`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use mainstay_shared::patch::PatchStep;
use ring::digest;

use super::disk::{self, Disk};
use super::state::State;

/// Of a slot: no more is written, since no more is read.
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
        let mut unreadable = None;
        for path in &paths {
            let slot = read_slot(&*disk, path).unwrap_or_else(|error| {
                unreadable = Some(anyhow::Error::new(error).context(path.display().to_string()));
                Slot::Damaged
            });
            match slot {
                Slot::Empty => {}
                Slot::Damaged => {
                    tracing::error!("{}: damaged, set aside", path.display());
                    damaged += 1;
                }
                Slot::Whole(state) => best = best.filter(|b| b.sequence > state.sequence).or(Some(state)),
            }
        }
        match unreadable {
            Some(error) if best.is_none() => return Err(error),
            Some(error) => tracing::error!("{error:#}"),
            None => {}
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
    /// What the disk said, or that it would be more than can be read again.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> std::io::Result<T> {
        let mut next = State::clone(&self.state);
        let result = change(&mut next);
        next.sequence += 1;
        let json = serde_json::to_vec(&next)?;
        let mut bytes = digest_hex(&json).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        if bytes.len() as u64 > MAX_BYTES {
            let told = format!("the helper's memory would be {} bytes; at most {MAX_BYTES} are written", bytes.len());
            return Err(std::io::Error::other(told));
        }
        disk::replace(&*self.disk, &self.dir.join(format!("state.{}", next.sequence % 2)), &bytes)?;
        self.state = Arc::new(next);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.state);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mainstay_shared::time_source::UnixMs;
    use semver::Version;

    use super::super::disk::MachineDisk;
    use super::*;

    fn opened(dir: &Path) -> anyhow::Result<Store> {
        let shipped = || Ok(State::shipped(Version::new(2, 0, 0), String::new(), UnixMs(1)));
        Store::open(Arc::new(MachineDisk), dir.to_owned(), shipped)
    }

    #[test]
    fn a_memory_that_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = opened(dir.path()).unwrap();
        let before = store.state().clone();
        for _ in 0..2 {
            assert!(store.change(|state| state.features.insert("x".repeat(8 << 20))).is_err());
        }
        assert_eq!(*store.state(), before);
        store.change(|state| state.wrong_codes = 7).unwrap();
        assert_eq!(opened(dir.path()).unwrap().state().wrong_codes, 7);
    }

    #[test]
    fn a_slot_that_cannot_be_read_does_not_hide_the_other() {
        for which in ["state.0", "state.1"] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = opened(dir.path()).unwrap();
            store.change(|state| state.wrong_codes = 7).unwrap();
            store.change(|state| state.failed.insert("f".into())).unwrap();
            std::fs::write(dir.path().join(which), vec![b'x'; 9 << 20]).unwrap();
            let again = opened(dir.path()).unwrap();
            assert_eq!((again.state().wrong_codes, again.state().damages), (7, 1), "{which}");
            drop(again);
            assert_eq!(opened(dir.path()).unwrap().state().damages, 1, "{which}: it is written anew");
            std::fs::write(dir.path().join("state.0"), vec![b'x'; 9 << 20]).unwrap();
            std::fs::write(dir.path().join("state.1"), vec![b'x'; 9 << 20]).unwrap();
            assert!(opened(dir.path()).is_err(), "nothing is begun from nothing");
        }
    }
}
