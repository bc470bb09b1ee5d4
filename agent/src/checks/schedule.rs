//! When services are asked: each in rounds of its own, a failure tried again before it counts.
//!
//! A check that failed is asked again `retries` times, `retry_after` apart, unless it is known to fail in this way already; all
//! tries are kept as grounds. The service's state is that of its worst check, by the last try of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_shared::check::{CheckResult, ServiceState};
use mainstay_shared::time_source::UnixMs;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Checker;
use crate::config::{Check, Service};
use crate::pause::Pause;

/// What a round of checks found.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRound {
    /// The service.
    pub service: String,
    /// The worst of its checks.
    pub state: ServiceState,
    /// All tries, by check and in time.
    pub tries: Vec<CheckResult>,
    /// When the round began: a failure that it found began then or before.
    pub began_at: UnixMs,
    /// The same by the monotonic clock.
    pub began_mono: Duration,
}

/// Asks `service` for ever: first after `delay`, then every interval, and at once when `nudges` changes.
pub(crate) async fn keep_asking(
    checker: Arc<Checker>,
    service: Service,
    delay: Duration,
    rounds: mpsc::Sender<ServiceRound>,
    mut nudges: watch::Receiver<u64>,
) {
    let mut known = BTreeMap::new();
    let mut wait = delay;
    let pause = Pause::new();
    loop {
        tokio::select! {
            () = pause.wait(wait) => {}
            changed = nudges.changed() => if changed.is_err() { return },
        }
        let began = checker.time.monotonic();
        let round = round(&checker, &service, &mut known).await;
        if rounds.send(round).await.is_err() {
            return;
        }
        let took = checker.time.monotonic().saturating_sub(began);
        wait = service.interval.saturating_sub(took).max(Duration::from_millis(100));
    }
}

/// Asks all checks of `service` side by side; `known` holds how each of them ended in the round before.
async fn round(checker: &Arc<Checker>, service: &Service, known: &mut BTreeMap<String, ServiceState>) -> ServiceRound {
    let (began_at, began_mono) = (checker.time.now(), checker.time.monotonic());
    let mut asking = JoinSet::new();
    for (index, check) in service.checks.iter().enumerate() {
        let retries = Retries { count: service.retries, after: service.retry_after, known: known.get(&check.name).copied() };
        let (checker, name, check) = (Arc::clone(checker), service.name.clone(), check.clone());
        asking.spawn(async move { (index, until_certain(&checker, &name, &check, retries).await) });
    }
    let mut by_check = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((index, tries)) => drop(by_check.insert(index, tries)),
            Err(crash) => std::panic::resume_unwind(crash.into_panic()),
        }
    }
    let last = |tries: &Vec<CheckResult>| tries.last().map(|result| (result.check.clone(), result.state));
    *known = by_check.values().filter_map(last).collect();
    let state = known.values().copied().max().unwrap_or(ServiceState::Unknown);
    ServiceRound { service: service.name.clone(), state, tries: by_check.into_values().flatten().collect(), began_at, began_mono }
}

/// When a failure is certain.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Further tries after a first failure.
    pub count: u8,
    /// The pause before each.
    pub after: Duration,
    /// How the check ended in the round before.
    pub known: Option<ServiceState>,
}

impl Retries {
    /// Whether a check that has ended in `last` after `tries` tries is asked again.
    #[must_use]
    pub fn ask_again(&self, tries: u8, last: ServiceState) -> bool {
        tries <= self.count && last != ServiceState::Up && Some(last) != self.known
    }
}

/// Asks all checks of all services once, side by side, without trying again: how they are at this moment.
pub(crate) async fn look(checker: &Arc<Checker>, services: &[Service]) -> BTreeMap<String, ServiceState> {
    let mut asking = JoinSet::new();
    for service in services {
        for check in &service.checks {
            let (checker, name, check) = (Arc::clone(checker), service.name.clone(), check.clone());
            asking.spawn(async move {
                let result = checker.ask(&name, &check, 1).await;
                (name, result.state)
            });
        }
    }
    let mut states = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((name, state)) => {
                let worst = states.entry(name).or_insert(state);
                *worst = state.max(*worst);
            }
            Err(crash) => std::panic::resume_unwind(crash.into_panic()),
        }
    }
    states
}

async fn until_certain(checker: &Checker, service: &str, check: &Check, retries: Retries) -> Vec<CheckResult> {
    let mut tries = vec![checker.ask(service, check, 1).await];
    for attempt in 2..=u8::MAX {
        if !tries.last().is_some_and(|result| retries.ask_again(attempt - 1, result.state)) {
            break;
        }
        tokio::time::sleep(retries.after).await;
        tries.push(checker.ask(service, check, attempt).await);
    }
    tries
}

#[cfg(test)]
mod tests {
    use mainstay_shared::time_source::TimeSource;

    use super::*;
    use crate::config::CheckKind;
    use crate::probes::ClockReference;
    use crate::probes::aside::Workers;

    fn plugin(name: &str, script: &str) -> Check {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Check { name: name.to_owned(), timeout: Duration::from_secs(20), kind: CheckKind::Plugin(argv) }
    }

    fn service(checks: Vec<Check>) -> Service {
        Service {
            name: "web".to_owned(),
            title: String::new(),
            interval: Duration::from_secs(60),
            retries: 2,
            retry_after: Duration::from_millis(10),
            flap_window: Duration::from_secs(900),
            depends_on: vec![],
            checks,
        }
    }

    fn states(round: &ServiceRound) -> Vec<(&str, u8, ServiceState)> {
        round.tries.iter().map(|result| (result.check.as_str(), result.attempt, result.state)).collect()
    }

    #[tokio::test]
    async fn a_failure_is_tried_twice_more_and_the_worst_check_counts() {
        use ServiceState::{Degraded, Down, Up};
        let checker = Arc::new(Checker::here(TimeSource::system(), ClockReference::default(), Workers::default()));
        let service = service(vec![plugin("good", "exit 0"), plugin("bad", "exit 2"), plugin("slow", "exit 1")]);
        let mut known = BTreeMap::new();
        let first = round(&checker, &service, &mut known).await;
        assert_eq!(first.state, Down);
        let expected = [
            ("good", 1, Up),
            ("bad", 1, Down),
            ("bad", 2, Down),
            ("bad", 3, Down),
            ("slow", 1, Degraded),
            ("slow", 2, Degraded),
            ("slow", 3, Degraded),
        ];
        assert_eq!(states(&first), expected);

        let second = round(&checker, &service, &mut known).await;
        assert_eq!(
            states(&second),
            [("good", 1, Up), ("bad", 1, Down), ("slow", 1, Degraded)],
            "known failures are not tried again"
        );
    }

    #[tokio::test]
    async fn a_service_that_answers_at_the_second_try_is_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = dir.path().join("asked").display().to_string();
        let checker = Arc::new(Checker::here(TimeSource::system(), ClockReference::default(), Workers::default()));
        let flaky = plugin("flaky", &format!("test -e {mark} && exit 0; touch {mark}; exit 2"));
        let round = round(&checker, &service(vec![flaky]), &mut BTreeMap::new()).await;
        assert_eq!(round.state, ServiceState::Up);
        assert_eq!(states(&round), [("flaky", 1, ServiceState::Down), ("flaky", 2, ServiceState::Up)]);
    }
}
