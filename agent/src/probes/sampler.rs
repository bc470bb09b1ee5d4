//! One round of measuring, on a thread of its own, object by object.
//!
//! An object whose measuring does not come back is set aside and told as hung (`HUNG` = 1) until it does; the other objects go
//! on with fresh probes on a new thread. It must never have two measurements of one object under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{ClockReference, HUNG, Place, Probe, Reading, all};
use crate::config::ProbeSettings;

/// How long one object may take before it counts as hung.
const HANG_AFTER: Duration = Duration::from_secs(5);

enum Step {
    Began(String),
    Measured(String, Vec<Reading>),
    Finished(Vec<Box<dyn Probe>>),
}

/// Keeps the probes between rounds, and what hangs.
pub(crate) struct Sampler {
    settings: ProbeSettings,
    clock: ClockReference,
    place: Place,
    hang_after: Duration,
    probes: Option<Vec<Box<dyn Probe>>>,
    hung: BTreeMap<String, UnboundedReceiver<Step>>,
}

impl Sampler {
    /// A sampler of the machine at `place`.
    pub(crate) fn new(settings: ProbeSettings, clock: ClockReference, place: Place) -> Self {
        Self { settings, clock, place, hang_after: HANG_AFTER, probes: None, hung: BTreeMap::new() }
    }

    /// Measures everything once. Takes as long as the slowest object, and 5 s for one that newly hangs.
    pub(crate) async fn round(&mut self) -> Vec<Reading> {
        let mut readings = self.released();
        let mut done = BTreeSet::new();
        loop {
            let probes = self.probes.take().unwrap_or_else(|| all(&self.settings, &self.clock));
            let skip = done.iter().chain(self.hung.keys()).cloned().collect();
            let Some(mut steps) = start(probes, self.place.clone(), skip) else { break };
            let Some(hung) = self.follow(&mut steps, &mut readings, &mut done).await else { break };
            tracing::warn!(object = hung, "measuring hangs in the kernel; it is left out until it comes back");
            self.hung.insert(hung, steps);
        }
        readings.extend(self.hung.keys().map(|object| Reading::new(object, HUNG, 1.0)));
        readings
    }

    /// Takes in a thread's steps; the object that hangs, if one does.
    async fn follow(
        &mut self,
        steps: &mut UnboundedReceiver<Step>,
        readings: &mut Vec<Reading>,
        done: &mut BTreeSet<String>,
    ) -> Option<String> {
        let mut current = String::new();
        loop {
            match tokio::time::timeout(self.hang_after, steps.recv()).await {
                Ok(Some(Step::Began(object))) => current = object,
                Ok(Some(Step::Measured(object, measured))) => {
                    readings.extend(measured);
                    done.insert(object);
                }
                Ok(Some(Step::Finished(probes))) => {
                    self.probes = Some(probes);
                    return None;
                }
                // The thread died: what it had measured stands, the next round starts with fresh probes.
                Ok(None) => return None,
                Err(_) => return Some(current),
            }
        }
    }

    /// Looks which hung objects came back; dropping their channel ends their thread.
    fn released(&mut self) -> Vec<Reading> {
        let mut released = Vec::new();
        self.hung.retain(|object, steps| {
            if matches!(steps.try_recv(), Err(TryRecvError::Empty)) {
                return true;
            }
            released.push(Reading::new(object, HUNG, 0.0));
            false
        });
        released
    }
}

/// Starts a thread that measures all objects but those of `skip`. None if there is no thread to be had.
fn start(probes: Vec<Box<dyn Probe>>, place: Place, skip: BTreeSet<String>) -> Option<UnboundedReceiver<Step>> {
    let (sender, receiver) = unbounded_channel();
    let thread = std::thread::Builder::new().name("probes".to_owned()).spawn(move || measure(probes, &place, &skip, &sender));
    match thread {
        Ok(_) => Some(receiver),
        Err(error) => {
            tracing::warn!(%error, "no thread to measure the machine");
            None
        }
    }
}

/// The thread's work; ends as soon as nobody listens.
fn measure(mut probes: Vec<Box<dyn Probe>>, place: &Place, skip: &BTreeSet<String>, steps: &UnboundedSender<Step>) {
    for probe in &mut probes {
        for object in probe.objects(place) {
            if skip.contains(&object) {
                continue;
            }
            if steps.send(Step::Began(object.clone())).is_err() {
                return;
            }
            let readings = probe.measure(&object, place);
            if steps.send(Step::Measured(object, readings)).is_err() {
                return;
            }
        }
    }
    drop(steps.send(Step::Finished(probes)));
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
        let mut sampler = Sampler::new(config.probes, ClockReference::default(), place);
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
