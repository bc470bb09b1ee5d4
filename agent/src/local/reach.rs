//! `test reach`: one request to the collector with this box's identity and settings, and whether it was answered. Beside the running agent,
//! or without one.
//!
//! The old agent is asked by it whether it reaches what the new one does not. It must never write anything: it runs beside an agent that
//! owns the state, and under another user.

use std::path::Path;

use mainstay_shared::time_source::TimeSource;

use super::words::pick;
use super::{Exit, Failure, Output, say, say_json};
use crate::uplink::{Identity, Settings, TrustedClock, Uplink};

/// Tries it.
///
/// # Errors
/// [`Exit::Unavailable`] when no address of the collector answers, [`Exit::NotAllowed`] without an identity.
pub(crate) async fn reach(state_dir: &Path, settings: Settings, time: &TimeSource, output: Output) -> Result<(), Failure> {
    let identity = Identity::load(state_dir)?;
    let uplink = Uplink::new(identity, settings, TrustedClock::new(time.clone(), state_dir))?;
    let reached = uplink.reach().await;
    if output.json {
        let (address, trouble) = (reached.as_ref().ok(), reached.as_ref().err());
        say_json(&serde_json::json!({ "reached": reached.is_ok(), "address": address, "trouble": trouble }))?;
    }
    match reached {
        Ok(address) if !output.json => say(format_args!("{} {address}", pick(output.lang, "可以连接", "reached"))),
        Ok(_) => {}
        Err(why) => return Err(Failure::new(Exit::Unavailable, anyhow::anyhow!("the collector is not reached: {why}"))),
    }
    Ok(())
}
