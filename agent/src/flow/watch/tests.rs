//! The story of watching on this machine: a listener taken away becomes a fault, and its return ends it.

use std::path::Path;

use mainstay_shared::fault::FaultChangeKind;
use mainstay_shared::record::Samples;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;

/// What the spool took, in order.
fn told(spool: &Spool) -> Vec<String> {
    let line = |change: &FaultChange| format!("{} {} {}", change.kind.as_str(), change.key.component, change.key.code);
    spool
        .payloads()
        .iter()
        .filter_map(|payload| if let Payload::Fault(change) = payload { Some(line(change)) } else { None })
        .collect()
}

fn samples(spool: &Spool) -> Vec<Samples> {
    spool
        .payloads()
        .into_iter()
        .filter_map(|payload| if let Payload::Samples(samples) = payload { Some(samples) } else { None })
        .collect()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
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

fn watch(config: &Arc<Config>, spool: &Spool, safe_mode: bool) -> (Watch, tokio::sync::watch::Receiver<Current>, Arc<Notify>) {
    let (current, seen) = tokio::sync::watch::channel(Current::default());
    let nudge = Arc::new(Notify::new());
    let watch = Watch {
        config: Arc::clone(config),
        spool: spool.clone(),
        time: TimeSource::system(),
        current,
        nudge: Arc::clone(&nudge),
        clock: ClockReference::default(),
        safe_mode,
    };
    (watch, seen, nudge)
}

#[tokio::test]
async fn a_service_that_goes_and_comes_back_is_told_and_current_values_follow() {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (spool, config) = (Spool::new(), config(dir.path(), port));
    let (watching, seen, nudge) = watch(&config, &spool, false);
    let (stop, stopped) = oneshot::channel::<()>();
    let story = async {
        until("the service is up", || seen.borrow().services.get("web") == Some(&ServiceState::Up)).await;
        until("the machine is measured", || seen.borrow().values.contains_key("memory.used_percent")).await;
        drop(listener);
        until("the fault", || told(&spool) == ["raised service:web service_down"]).await;
        assert_eq!(seen.borrow().services["web"], ServiceState::Down);
        let again = TcpListener::bind(("127.0.0.1", port)).await.expect("the port again");
        until("the recovery", || told(&spool).len() == 2).await;
        nudge.notify_one();
        until("a nudge spools the samples so far", || !samples(&spool).is_empty()).await;
        drop((again, stop));
    };
    let (ended, ()) = tokio::join!(run(watching, async { drop(stopped.await) }), story);
    ended.expect("a clean end");
    assert_eq!(told(&spool), ["raised service:web service_down", "cleared service:web service_down"]);
    assert!(samples(&spool)[0].metrics.contains_key("load.avg1"));
    assert!(spool.open_episodes().is_empty());
}

#[tokio::test]
async fn in_safe_mode_services_are_asked_and_the_machine_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address").port();
    let (spool, config) = (Spool::new(), config(dir.path(), port));
    spool.push(Payload::Fault(crate::faults::safe_mode_raised(TimeSource::system().now()))).await.expect("taken");
    let (watching, seen, _) = watch(&config, &spool, true);
    let down = async { until("the fault", || told(&spool).len() == 2).await };
    run(watching, down).await.expect("a clean end");
    assert_eq!(told(&spool), ["raised agent agent_safe_mode", "raised service:web service_down"]);
    assert!(seen.borrow().values.is_empty() && samples(&spool).is_empty());
}

#[tokio::test]
async fn a_start_after_the_safe_mode_clears_it_and_goes_on_with_what_is_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address").port();
    let (spool, config) = (Spool::new(), config(dir.path(), port));
    spool.push(Payload::Fault(crate::faults::safe_mode_raised(TimeSource::system().now()))).await.expect("taken");
    let first = watch(&config, &spool, true).0;
    run(first, until("the fault", || told(&spool).len() == 2)).await.expect("a clean end");

    let (second, seen, _) = watch(&config, &spool, false);
    let both = async {
        until("safe mode is over", || told(&spool).contains(&"cleared agent agent_safe_mode".to_owned())).await;
        until("the service was asked", || seen.borrow().services.contains_key("web")).await;
    };
    run(second, both).await.expect("a clean end");
    let raises = spool.payloads().iter().filter(|p| matches!(p, Payload::Fault(c) if c.kind == FaultChangeKind::Raised)).count();
    assert_eq!(raises, 2, "the service's fault is not raised again: {:?}", told(&spool));
}
