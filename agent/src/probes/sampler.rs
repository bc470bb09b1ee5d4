//! One round of measuring, on a thread aside, object by object.
//!
//! An object whose measuring does not come back is set aside and told as hung (`HUNG` = 1) until it does; the other objects go
//! on with fresh probes on another thread. The thread wakes the agent's loop once, at its end: what it is at stands in a shared
//! note. It must never have two measurements of one object under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver, Sender};

use super::aside::Workers;
use super::{ClockReference, HUNG, Place, Probe, Reading, all};
use crate::config::ProbeSettings;

/// How long one object may take before it counts as hung.
const HANG_AFTER: Duration = Duration::from_secs(5);
/// An object counts as hung when it was found so often in a row, `HANG_AFTER` / `LOOKS` apart.
const LOOKS: u32 = 4;

type Probes = Vec<Box<dyn Probe>>;

/// What the thread is at and has measured.
#[derive(Debug, Default)]
struct Progress {
    current: String,
    /// Counts the objects that it began.
    step: u64,
    done: BTreeSet<String>,
    readings: Vec<Reading>,
    /// Nobody waits for it any more.
    abandoned: bool,
}

#[derive(Debug, Clone, Default)]
struct Note(Arc<Mutex<Progress>>);

impl Note {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the probes between rounds, and what hangs.
pub(crate) struct Sampler {
    settings: ProbeSettings,
    clock: ClockReference,
    place: Place,
    workers: Workers,
    hang_after: Duration,
    probes: Option<Probes>,
    hung: BTreeMap<String, Receiver<Probes>>,
}

impl Sampler {
    /// A sampler of the machine at `place`, on the threads of `workers`.
    pub(crate) fn new(settings: ProbeSettings, clock: ClockReference, place: Place, workers: Workers) -> Self {
        Self { settings, clock, place, workers, hang_after: HANG_AFTER, probes: None, hung: BTreeMap::new() }
    }

    /// Measures everything once. Takes as long as the slowest object, and 5 s for one that newly hangs.
    pub(crate) async fn round(&mut self) -> Vec<Reading> {
        let mut readings = self.released();
        let mut done = BTreeSet::new();
        loop {
            let probes = self.probes.take().unwrap_or_else(|| all(&self.settings, &self.clock));
            let skip = done.iter().chain(self.hung.keys()).cloned().collect();
            let note = Note::default();
            let Some(mut finished) = self.start(probes, skip, note.clone()) else { break };
            let hung = self.follow(&mut finished, &note).await;
            let mut progress = note.lock();
            readings.append(&mut progress.readings);
            done.append(&mut progress.done);
            if !hung {
                break;
            }
            progress.abandoned = true;
            let object = std::mem::take(&mut progress.current);
            tracing::warn!(object, "measuring hangs in the kernel; it is left out until it comes back");
            self.hung.insert(object, finished);
        }
        readings.extend(self.hung.keys().map(|object| Reading::new(object, HUNG, 1.0)));
        readings
    }

    /// Begins to measure all objects but those of `skip`. None if there is no thread to be had.
    fn start(&self, probes: Probes, skip: BTreeSet<String>, note: Note) -> Option<Receiver<Probes>> {
        let (sender, finished) = oneshot::channel();
        let place = self.place.clone();
        match self.workers.run(move || measure(probes, &place, &skip, &note, sender)) {
            Ok(()) => Some(finished),
            Err(error) => {
                tracing::warn!(%error, "no thread to measure the machine");
                None
            }
        }
    }

    /// Waits for the thread's end; whether it hangs instead.
    async fn follow(&mut self, finished: &mut Receiver<Probes>, note: &Note) -> bool {
        let (mut seen, mut looks) = (0, 0);
        loop {
            match tokio::time::timeout(self.hang_after / LOOKS, &mut *finished).await {
                Ok(probes) => {
                    // The thread died: what it had measured stands, the next round starts with fresh probes.
                    self.probes = probes.ok();
                    return false;
                }
                Err(_) => {
                    let step = note.lock().step;
                    looks = if step == seen { looks + 1 } else { 1 };
                    seen = step;
                    if looks >= LOOKS {
                        return true;
                    }
                }
            }
        }
    }

    /// Looks which hung objects came back.
    fn released(&mut self) -> Vec<Reading> {
        let mut released = Vec::new();
        self.hung.retain(|object, finished| {
            if matches!(finished.try_recv(), Err(TryRecvError::Empty)) {
                return true;
            }
            released.push(Reading::new(object, HUNG, 0.0));
            false
        });
        released
    }
}

/// The thread's work; ends as soon as nobody waits for it.
fn measure(mut probes: Probes, place: &Place, skip: &BTreeSet<String>, note: &Note, finished: Sender<Probes>) {
    for probe in &mut probes {
        for object in probe.objects(place) {
            if skip.contains(&object) {
                continue;
            }
            {
                let mut progress = note.lock();
                progress.current.clone_from(&object);
                progress.step += 1;
            }
            let readings = probe.measure(&object, place);
            let mut progress = note.lock();
            if progress.abandoned {
                return;
            }
            progress.readings.extend(readings);
            progress.done.insert(object);
        }
    }
    drop(finished.send(probes));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use mainstay_shared::time_source::{TimeSource, UnixMs};

    use super::*;

    /// Measures two objects, of which `dead` hangs while the gate is shut.
    struct Gated(Arc<(Mutex<bool>, Condvar)>);

    impl Probe for Gated {
        fn objects(&mut self, _: &Place) -> Vec<String> {
            vec!["dead".to_owned(), "well".to_owned()]
        }

        fn measure(&mut self, object: &str, _: &Place) -> Vec<Reading> {
            if object == "dead" {
                let open = self.0.0.lock().expect("the gate");
                drop(self.0.1.wait_while(open, |open| !*open).expect("the gate"));
            }
            vec![Reading::new(object, "value", 1.0)]
        }
    }

    fn shown(readings: &[Reading]) -> Vec<(String, f64)> {
        readings.iter().map(|reading| (reading.name(), reading.value)).collect()
    }

    #[tokio::test]
    async fn a_hung_object_is_told_and_the_others_are_still_measured() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let dir = tempfile::tempdir().expect("a folder");
        let config = crate::config::Config::load(&dir.path().join("agent.toml")).expect("the defaults");
        let place = Place { proc: dir.path().to_owned(), sys: dir.path().to_owned(), time: TimeSource::manual(UnixMs(0)) };
        let mut sampler = Sampler::new(config.probes, ClockReference::default(), place, Workers::default());
        sampler.hang_after = Duration::from_millis(50);
        let gated = || -> Option<Vec<Box<dyn Probe>>> { Some(vec![Box::new(Gated(Arc::clone(&gate)))]) };

        sampler.probes = gated();
        let first = sampler.round().await;
        assert!(shown(&first).contains(&("dead.hung".to_owned(), 1.0)), "{first:?}");

        sampler.probes = gated();
        assert_eq!(shown(&sampler.round().await), [("well.value".to_owned(), 1.0), ("dead.hung".to_owned(), 1.0)]);

        *gate.0.lock().expect("the gate") = true;
        gate.1.notify_all();
        loop {
            sampler.probes = gated();
            let readings = shown(&sampler.round().await);
            if readings.contains(&("dead.hung".to_owned(), 0.0)) {
                assert!(readings.contains(&("dead.value".to_owned(), 1.0)), "{readings:?}");
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
