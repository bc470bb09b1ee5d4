//! Bytes an appliance and day: samples of one day go through the front door of an empty collector, and the database is weighed before and
//! after; so are tickets with all that belongs to them, opened and cleared by agents.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::collector::{Collector, Settings};
use e2e::database::Engine;
use e2e::load::speaker::METRICS;
use e2e::wire::WireAgent;
use mainstay_shared::api::PATH_REPORTS;
use mainstay_shared::fault::{FaultChange, FaultChangeKind, FaultGrounds, FaultKey, Level};
use mainstay_shared::ids::{EpisodeId, Lane};
use mainstay_shared::record::{Folded, Payload, Samples};
use mainstay_shared::report::ReportReply;
use mainstay_shared::time_source::{TimeSource, UnixMs};
use sqlx::{AnyConnection, Connection as _};

use super::number;

/// Records of a day.
const DAY: i64 = 288;

pub(crate) async fn run(engine: Engine) -> Result<()> {
    let (boxes, faults) = (number("BENCH_BOXES", 50), number("BENCH_FAULTS", 200));
    let (clock, collector) = (TimeSource::system(), Collector::serving(engine, Settings::default()).await?);
    let join = collector.join_string(&["--uses", &boxes.to_string()]).await?;
    let empty = weigh(&collector).await?;
    let base = format!("https://{}", collector.agents_listen());
    let mut peers = Vec::new();
    for n in 0..boxes {
        peers.push(WireAgent::enrol(&base, &join, &format!("box-{n}")).await?);
    }
    for peer in &mut peers {
        peer.report(Vec::new()).await?;
        peer.beat().await?;
    }
    let enrolled = weigh(&collector).await?;
    for hour in 0..24 {
        for (n, peer) in (0..).zip(&mut peers) {
            let mut records = Vec::new();
            for five in (0..DAY / 24).map(|five| hour * (DAY / 24) + five) {
                let mut record = peer.record(Lane::Sample, samples(clock.now(), five, n));
                // The collector places a record by its age: yesterday, five minutes apart.
                record.mono_ms = u64::try_from(five * 300_000)?;
                records.push(record);
            }
            let mut request = peer.report_of(records);
            request.sent_mono_ms = u64::try_from(DAY * 300_000)?;
            let reply: ReportReply = peer.send(PATH_REPORTS, &request).await?.good()?;
            peer.nonce = Some(reply.nonce);
        }
    }
    let kept = ask(&collector, "SELECT COUNT(*) FROM samples").await?;
    ensure!(kept == boxes * DAY, "{kept} records are kept of {}", boxes * DAY);
    let day = weigh(&collector).await?;
    for n in 0..faults {
        let peer = &mut peers[usize::try_from(n % boxes)?];
        let raise = peer.record(Lane::Fault, change(&clock, n, FaultChangeKind::Raised, None));
        let episode = raise.id.clone();
        peer.report(vec![raise]).await?;
        let clear = peer.record(Lane::Fault, change(&clock, n, FaultChangeKind::Cleared, Some(episode)));
        peer.report(vec![clear]).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let faulty = weigh(&collector).await?;
    let per = |bytes: i64, count: i64| bytes as f64 / count as f64;
    println!("an appliance as such                     {:>9.0} bytes", per(enrolled - empty, boxes));
    println!(
        "a day of samples, eleven values          {:>9.0} bytes ({:.0} a record)",
        per(day - enrolled, boxes),
        per(day - enrolled, boxes * DAY)
    );
    println!(
        "a fault from raise to clear, its ticket  {:>9.0} bytes (episode, clock, events, notice, both records)",
        per(faulty - day, faults)
    );
    Ok(())
}

async fn ask(collector: &Collector, text: &'static str) -> Result<i64> {
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnection::connect(&collector.database_url()).await.context("weighing")?;
    let answer = sqlx::query_scalar(text).fetch_one(&mut conn).await?;
    conn.close().await?;
    Ok(answer)
}

/// The database's bytes, with its indexes.
async fn weigh(collector: &Collector) -> Result<i64> {
    let text = if collector.database_url().starts_with("sqlite:") {
        "SELECT ((SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)) * (SELECT page_size FROM pragma_page_size)"
    } else {
        "SELECT CAST(SUM(pg_total_relation_size(oid)) AS BIGINT) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    };
    ask(collector, text).await
}

fn change(clock: &TimeSource, n: i64, kind: FaultChangeKind, episode: Option<EpisodeId>) -> Payload {
    Payload::Fault(FaultChange {
        kind,
        key: FaultKey::new(format!("disk:/srv/{n}"), "disk_space_low"),
        episode,
        level: Level::Serious,
        summary: "96.2 % used".to_owned(),
        grounds: FaultGrounds {
            value: Some(96.2),
            unit: "percent".into(),
            threshold: Some(95.0),
            lasted_ms: 30_000,
            ..FaultGrounds::default()
        },
        at: clock.now(),
        present_at_start: false,
    })
}

/// The `five`th record of yesterday, with values that move as a machine's do.
fn samples(now: UnixMs, five: i64, seed: i64) -> Payload {
    let to = now.plus_ms((five - DAY) * 300_000);
    let value = |n: i64| ((five * 7919 + n * 104_729 + seed * 31) % 9973) as f64 / 97.0;
    let folded = |n: i64| {
        let last = (value(n) * 1000.0).round() / 1000.0;
        Folded { min: last / 2.0, avg: last * 0.75, max: last * 2.0, last }
    };
    let metrics = METRICS.iter().zip(0..).map(|(name, n)| ((*name).to_owned(), folded(n))).collect();
    Payload::Samples(Samples { from: to.plus_ms(-300_000), to, metrics })
}
