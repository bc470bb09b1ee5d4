//! Who speaks: the row of the verified certificate, remembered for half a minute, so that revoking takes effect well within the
//! minute that R14 allows. A message that names another appliance is found here and recorded (R13).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mainstay_shared::limits::{MAX_NAME_CHARS, clean_text};

use crate::appliances::{ApplianceEvent, Identity, certificates, subject};
use crate::audit;
use crate::db::{Turn, transact};
use crate::flow::World;

const REMEMBERED: Duration = Duration::from_secs(30);
/// Beyond this many the memory is emptied; the next requests fill it again.
const MOST: usize = 250_000;

/// What is remembered of certificates that are good. One that is not is asked about each time.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<String, (Duration, Identity)>>);

impl Cache {
    /// Who the certificate of that fingerprint is now; `None`: unknown, revoked, retired.
    pub(super) async fn find(&self, world: &World, fingerprint: &str) -> Result<Option<Identity>, sqlx::Error> {
        let now = world.time.monotonic();
        if let Some((since, identity)) = self.table().get(fingerprint)
            && now.saturating_sub(*since) < REMEMBERED
        {
            return Ok(Some(identity.clone()));
        }
        let mut conn = world.db.read().await?;
        let found = certificates::identity_of(&mut conn, fingerprint, world.time.now()).await?;
        let mut table = self.table();
        match &found {
            Some(identity) => {
                if table.len() >= MOST {
                    table.clear();
                }
                table.insert(fingerprint.to_owned(), (now, identity.clone()));
            }
            None => drop(table.remove(fingerprint)),
        }
        Ok(found)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Duration, Identity)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The appliance that a body names, if it names another one than its certificate does.
pub(super) fn other_claim(identity: &Identity, bytes: &[u8]) -> Option<String> {
    const FIELD: &str = "\"appliance\"";
    // Messages have no such field by design: only a body that holds the word is read a second time.
    if !std::str::from_utf8(bytes).is_ok_and(|text| text.contains(FIELD)) {
        return None;
    }
    #[derive(serde::Deserialize)]
    struct Claim {
        appliance: Option<serde_json::Value>,
    }
    let claim: Claim = serde_json::from_slice(bytes).ok()?;
    match claim.appliance? {
        serde_json::Value::String(named) if named == identity.appliance_id.as_str() => None,
        other => Some(other.to_string()),
    }
}

/// Records such a claim in the tenant's chain.
pub(super) async fn record_claim(world: &World, identity: &Identity, claimed: String, path: &str) -> anyhow::Result<()> {
    let subject = subject(identity.appliance_id.as_str());
    let event = ApplianceEvent::IdentityDisagreed { claimed: clean_text(&claimed, MAX_NAME_CHARS), path: path.to_owned() };
    let now = world.time.now();
    transact!(world.db, Turn::Intake, |tx| { audit::append(tx, &identity.tenant_id, now, &subject, &subject, &event).await });
    Ok(())
}
