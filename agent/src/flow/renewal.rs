//! The story of the certificate: renewed at two thirds of its life or when asked, by the same key, while reports go on.
//!
//! An expired certificate is renewed over a connection that shows none, and an operator has to allow it (R26). A renewal that
//! fails costs nothing but another try.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::contact::Contact;
use crate::lifecycle::StopSignal;
use crate::uplink::{Renewal, Uplink, renew, renewal_is_due};

/// By then the first contact has told a clock that is far ahead from a certificate that has expired.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often the certificate's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How often an expired certificate's renewal is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What renewing needs.
pub(crate) struct Renewing {
    /// The way out; it goes on under the new identity.
    pub(crate) uplink: Arc<Uplink>,
    /// Shared with the other loops.
    pub(crate) contact: Contact,
    /// Where the identity is kept.
    pub(crate) state_dir: PathBuf,
}

/// Renews when due until `stop`.
///
/// # Errors
/// None so far: every failure is tried again.
pub(crate) async fn run(renewing: Renewing, stop: StopSignal) -> anyhow::Result<()> {
    let mut wait = FIRST_LOOK;
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(wait) => false,
            () = renewing.contact.renew_now.notified() => true,
            () = stop.clone().requested() => return Ok(()),
        };
        let now = renewing.uplink.clock().now();
        let due = renewal_is_due(now, renewing.uplink.identity().validity()) || renewing.contact.facts().certificate_expired;
        let settled = if due || asked { renewing.renew_once().await } else { true };
        wait = if settled { LOOK_EVERY } else { ASK_AGAIN };
    }
}

impl Renewing {
    /// Whether nothing more is to be done for now.
    async fn renew_once(&self) -> bool {
        let now = self.uplink.clock().now();
        let expired = self.contact.facts().certificate_expired || now > self.uplink.identity().validity().not_after;
        let renewal = renew(&self.uplink, expired, now).await;
        self.contact.note(|facts| facts.renewal_waits = matches!(renewal, Ok(Renewal::WaitsForOperator)));
        match renewal {
            Ok(Renewal::Renewed(identity)) => {
                let until = identity.validity().not_after;
                let kept = identity.save(&self.state_dir).and_then(|()| self.uplink.replace_identity(*identity));
                match kept {
                    Ok(()) => {
                        tracing::info!(%until, "the certificate was renewed");
                        self.contact.note(|facts| facts.certificate_expired = false);
                        self.contact.report_now.notify_one();
                        return true;
                    }
                    Err(error) => tracing::error!("the renewed certificate can't be kept: {error:#}"),
                }
            }
            Ok(Renewal::WaitsForOperator) => tracing::warn!("the certificate has expired; its renewal waits for an operator"),
            Ok(Renewal::Later { why }) => tracing::warn!(why, "the certificate was not renewed; trying again"),
            Err(error) => tracing::error!("the certificate was not renewed: {error:#}"),
        }
        false
    }
}
