//! Waiting for a condition instead of sleeping: ask, wait a little, ask again, until a generous limit.
//! No test may depend on how long anything takes below its limit.

use std::time::Duration;

use anyhow::{Result, bail};
use mainstay_shared::time_source::TimeSource;

/// Long enough for anything that should happen at once, on a machine that does ten other things.
pub const SOON: Duration = Duration::from_secs(30);
/// Long enough for what waits for a period of the programs (a poll, a round of checks, a retry).
pub const A_WHILE: Duration = Duration::from_secs(120);

/// Asks `probe` until it answers `Some`, at most `limit` long.
///
/// # Errors
/// When the limit is over: names `what` and the probe's last error, if it had one. A probe's error alone is only "not yet".
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let clock = TimeSource::system();
    let mut pause = Duration::from_millis(20);
    loop {
        let answer = tokio::time::timeout(limit, probe()).await;
        let last = match answer {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "it has not happened".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "asking took too long".to_owned(),
        };
        if clock.monotonic() > limit {
            bail!("waited {limit:?} for {what}: {last}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}
