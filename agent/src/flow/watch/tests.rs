//! The story of watching on this machine, on a real spool: a listener taken away becomes a fault, and its return ends it.

use std::path::Path;

use mainstay_shared::ids::Lane;
use mainstay_shared::record::Record;
use ring::rand::SystemRandom;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::spool::Limits;

mod outage;

/// A machine's folder: its configuration with one service, and its spool.
struct Machine {
    dir: tempfile::TempDir,
    config: Arc<Config>,
    port: u16,
}

impl Machine {
    async fn new() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let dir = tempfile::tempdir().expect("a folder");
        let config = config(dir.path(), port);
        (Self { dir, config, port }, listener)
    }

    /// Opens the spool, as a start of the agent does; waits for the run before to let go of it.
    async fn spool(&self) -> Spool {
        let limits = Limits { max_bytes: 4 << 20 };
        let path = self.dir.path().join("spool");
        for _ in 0..1000 {
            match Spool::open(&path, limits, &SystemRandom::new(), TimeSource::system()) {
                Ok((spool, _)) => return spool,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("the spool stays locked");
    }

    fn watch(&self, spool: &Spool, safe_mode: bool) -> (Watch, tokio::sync::watch::Receiver<Current>, Arc<Notify>) {
        let (current, seen) = tokio::sync::watch::channel(Current::default());
        let nudge = Arc::new(Notify::new());
        let watch = Watch {
            workers: Workers::default(),
            config: Arc::clone(&self.config),
            spool: spool.clone(),
            time: TimeSource::system(),
            current,
            nudge: Arc::clone(&nudge),
            clock: ClockReference::default(),
            safe_mode,
        };
        (watch, seen, nudge)
    }
}

fn config(dir: &Path, port: u16) -> Arc<Config> {
    let path = dir.join("agent.toml");
    let text = format!(
        "[probes]\ninterval = \"1s\"\n[[service]]\nname = \"web\"\ninterval = \"1s\"\nretries = 1\nretry_after = \"100ms\"\n\
         [[service.check]]\nname = \"port\"\nkind = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n"
    );
    std::fs::write(&path, text).expect("a file");
    Arc::new(Config::load(&path).expect("a good configuration"))
}

async fn records(spool: &Spool) -> Vec<Record> {
    spool.next_batch(1000, 8 << 20).await.expect("the spool answers")
}

/// The service's and the agent's faults that the spool took, in order; what this machine happens to suffer from is left out.
async fn told(spool: &Spool) -> Vec<String> {
    let line = |record: &Record| match &record.payload {
        Payload::Fault(change) if change.key.component == "agent" || change.key.service().is_some() => {
            Some(format!("{} {} {}", change.kind.as_str(), change.key.component, change.key.code))
        }
        _ => None,
    };
    records(spool).await.iter().filter_map(line).collect()
}

async fn has_samples(spool: &Spool) -> bool {
    records(spool).await.iter().any(|record| record.id.lane == Lane::Sample)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn a_service_that_goes_and_comes_back_is_told_and_current_values_follow() {
    let (machine, listener) = Machine::new().await;
    let spool = machine.spool().await;
    let (watching, seen, nudge) = machine.watch(&spool, false);
    let (stop, stopped) = oneshot::channel::<()>();
    let story = async {
        until("the service is up", async || seen.borrow().services.get("web") == Some(&ServiceState::Up)).await;
        until("the machine is measured", async || seen.borrow().values().contains_key("memory.used_percent")).await;
        drop(listener);
        until("the fault", async || told(&spool).await == ["raised service:web service_down"]).await;
        assert_eq!(seen.borrow().services["web"], ServiceState::Down);
        let again = TcpListener::bind(("127.0.0.1", machine.port)).await.expect("the port again");
        until("the recovery", async || told(&spool).await.len() == 2).await;
        nudge.notify_one();
        until("a nudge spools the samples so far", async || has_samples(&spool).await).await;
        drop((again, stop));
    };
    let (ended, ()) = tokio::join!(run(watching, async { drop(stopped.await) }), story);
    ended.expect("a clean end");
    assert_eq!(told(&spool).await, ["raised service:web service_down", "cleared service:web service_down"]);
    assert!(!spool.open_episodes().iter().any(|open| open.last.key.service().is_some()));
}

#[tokio::test]
async fn in_safe_mode_services_are_asked_and_the_machine_is_left_alone_until_the_next_start() {
    let (machine, listener) = Machine::new().await;
    drop(listener);
    let spool = machine.spool().await;
    spool.push(Payload::Fault(crate::faults::safe_mode_raised(TimeSource::system().now()))).await.expect("taken");
    let (safe, seen, _) = machine.watch(&spool, true);
    let both = ["raised agent agent_safe_mode", "raised service:web service_down"];
    run(safe, until("the fault", async || told(&spool).await == both)).await.expect("a clean end");
    assert!(seen.borrow().values().is_empty() && !has_samples(&spool).await);
    drop(spool);

    let spool = machine.spool().await;
    let (normal, seen, _) = machine.watch(&spool, false);
    let story = async {
        until("safe mode is over", async || told(&spool).await.contains(&"cleared agent agent_safe_mode".to_owned())).await;
        until("the service was asked", async || seen.borrow().services.contains_key("web")).await;
    };
    run(normal, story).await.expect("a clean end");
    let raises = told(&spool).await.iter().filter(|line| line.contains("raised")).count();
    assert_eq!(raises, 2, "the service's fault is not raised again: {:?}", told(&spool).await);
}
