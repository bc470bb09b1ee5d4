//! The outside watch is pinged while the database answers: when the pings end, whoever runs it learns that the collector died.
//!
//! The address may hold a token: it is never logged (R33).

use std::time::Duration;

use anyhow::Context as _;

use super::World;

/// How long the watch may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Pings the watch once, if there is one and the database answers.
pub(crate) async fn once(world: &World, client: &reqwest::Client) -> anyhow::Result<()> {
    let Some(watch) = &world.config.watch else { return Ok(()) };
    let _: String = sqlx::query_scalar("SELECT epoch FROM collector")
        .fetch_one(&mut *world.db.read().await?)
        .await
        .context("the database does not answer: the watch is not pinged")?;
    let answer = client
        .get(&watch.url)
        .timeout(TIME_LIMIT)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context("pinging the watch")?;
    anyhow::ensure!(answer.status().is_success(), "pinging the watch: it answered {}", answer.status());
    Ok(())
}

/// A client for outgoing calls: the system's trust store, nothing of ours in it.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().context("preparing outgoing calls")
}

#[cfg(test)]
mod tests;
