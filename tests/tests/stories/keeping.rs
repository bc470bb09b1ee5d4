//! What is kept: a backup taken under load restores, with audit chain and acknowledgements right.

use anyhow::{Context as _, Result};
use e2e::both_databases;
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::patience::{A_WHILE, eventually};

use crate::scene::{Scene, raise, started, text};
use mainstay_shared::ids::Lane;

both_databases!(a_backup_taken_under_load_restores_with_everything_right);

const SERVICES: usize = 30;

async fn a_backup_taken_under_load_restores_with_everything_right(engine: Engine) -> Result<()> {
    let mut scene = Scene::set(engine).await?;
    let names: Vec<String> = (0..SERVICES).map(|n| format!("service-{n:02}")).collect();
    let services: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut peer = scene.peer("loaded", &services).await?;
    let passphrase = scene.collector.path("passphrase").display().to_string();
    let file = scene.collector.path("backup.age");
    let out = file.display().to_string();
    let backup = ["backup", "--out", &out, "--passphrase-file", &passphrase];
    let mut raised = Vec::new();
    let load = async {
        for service in &services {
            let record = raise(&mut peer, service);
            peer.report(vec![record.clone()]).await?;
            raised.push(record);
        }
        anyhow::Ok(())
    };
    let (done, loaded) = tokio::join!(scene.collector.command(&backup), load);
    done?.good().context("backup")?;
    loaded?;
    scene.collector.stop().await?;

    // The restored service stands where the old one stood: agents find it by the same address.
    scene.collector = Collector::restored(scene.collector, engine, Settings::default(), &file).await?;
    scene.collector.command(&["audit", "verify"]).await?.good().context("audit verify after restore")?;
    // What was acknowledged after the backup is gone from the collector; the agent tells its open faults again.
    let reply = peer.report(Vec::new()).await?;
    assert!(!reply.held || reply.collector_epoch.to_string().len() == 32);
    peer.restart();
    let mut records = vec![peer.record(Lane::Fault, started(&services))];
    for record in &raised {
        let restated = crate::scene::restate(&mut peer, record)?;
        records.push(restated);
    }
    peer.report(records).await?;
    let counts = eventually("a ticket for each service", A_WHILE, async || {
        Ok(Some(scene.tickets_by_component().await?).filter(|counts| counts.len() == SERVICES))
    })
    .await?;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let again = raise(&mut peer, "service-00");
    peer.report(vec![again]).await?;
    let ticket = scene.desk.ticket_about("service:service-00").await?;
    assert!(!text(&ticket, "ticket_id")?.is_empty());
    Ok(())
}
