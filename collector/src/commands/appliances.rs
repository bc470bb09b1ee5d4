//! `appliance list|release|retire|approve-renewal`: what only an operator does to an enrolled appliance (R25, R26).
//!
//! Each act is recorded in the customer's chain of events.

use clap::Subcommand;
use mainstay_shared::time_source::UnixMs;

use super::exit::{Exit, Failure};
use super::{Room, local_actor, print_list, say};
use crate::appliances::{ApplianceEvent, ApplianceState, certificates, links, store, subject};
use crate::audit;
use crate::db::{Conn, Turn, mark_change, transact};
use crate::notices::texts::one_line;

/// `appliance ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ApplianceCommand {
    /// List the appliances
    List {
        /// Of this customer only
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
    },
    /// Release one that is held as a clone or a rewound snapshot
    Release {
        /// Its id
        appliance: String,
        /// Why it is good again
        #[arg(long)]
        why: String,
    },
    /// Take one out of service for good: its certificates are worth nothing any more
    Retire {
        /// Its id
        appliance: String,
        /// Why
        #[arg(long)]
        why: String,
    },
    /// Let one whose certificate has expired renew it with the same key
    ApproveRenewal {
        /// Its id
        appliance: String,
    },
}

/// Runs `appliance ...`.
pub(crate) async fn run(room: &Room, command: ApplianceCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    let appliance_id = match &command {
        ApplianceCommand::List { customer } => {
            let found = store::list(&mut *db.read().await?, customer.as_deref()).await?;
            return print_list(room.json, &found, |one| {
                let state = if one.held_reason.is_empty() { one.state.as_str().to_owned() } else { format!("held: {}", one.held_reason) };
                let name = one_line(&format!("{} {} {}", one.name, one.model, one.serial));
                format!("{}  {}/{}  {}  {}  {state}  {name}", one.appliance_id, one.tenant_id, one.site_id, one.product, one.duty)
            });
        }
        ApplianceCommand::Release { appliance, .. }
        | ApplianceCommand::Retire { appliance, .. }
        | ApplianceCommand::ApproveRenewal { appliance } => appliance.clone(),
    };
    transact!(db, Turn::Console, |tx| {
        let tenant_id = store::tenant_of(tx, &appliance_id).await?.ok_or_else(|| {
            Failure::new(Exit::Data, format!("appliance {appliance_id:?}: expected one of `appliance list`"))
        })?;
        let event = act(tx, &tenant_id, &appliance_id, &command, now).await?;
        audit::append(tx, &tenant_id, now, &local_actor(), &subject(&appliance_id), &event).await?;
        mark_change(tx).await?;
        Ok(())
    });
    say(&format!("已完成：{appliance_id}"), &format!("Done: {appliance_id}"));
    Ok(())
}

/// Does the act; refuses what does not fit the appliance's state.
async fn act(
    tx: &mut Conn,
    tenant_id: &str,
    appliance_id: &str,
    command: &ApplianceCommand,
    now: UnixMs,
) -> anyhow::Result<ApplianceEvent> {
    let refused = |told: &str| Failure::new(Exit::Refused, format!("appliance {appliance_id}: {told}"));
    let state = store::get(tx, tenant_id, appliance_id).await?.map(|one| one.state);
    match command {
        ApplianceCommand::Release { why, .. } => {
            if state != Some(ApplianceState::Held) {
                return Err(refused("is not held"));
            }
            store::set_state(tx, tenant_id, appliance_id, ApplianceState::Active, "").await?;
            links::forget_nonce(tx, tenant_id, appliance_id).await?;
            Ok(ApplianceEvent::Released { why: why.clone() })
        }
        ApplianceCommand::Retire { why, .. } => {
            if !store::set_state(tx, tenant_id, appliance_id, ApplianceState::Retired, "").await? {
                return Err(refused("is retired already"));
            }
            Ok(ApplianceEvent::Retired { why: why.clone() })
        }
        ApplianceCommand::ApproveRenewal { .. } => {
            if !certificates::approve_renewal(tx, tenant_id, appliance_id, &local_actor(), now).await? {
                return Err(refused("no renewal waits for approval"));
            }
            Ok(ApplianceEvent::RenewalApproved)
        }
        ApplianceCommand::List { .. } => Err(refused("nothing to do")),
    }
}
