//! `appliance list|release|retire|approve-renewal|revoke-certificate|expected-hours|entitle|report-now`: what only an operator does to
//! an enrolled appliance (R14, R25, R26).
//!
//! Each act is recorded in the customer's chain of events.

use clap::Subcommand;
use mainstay_shared::directive::Ask;
use mainstay_shared::time_source::UnixMs;

use super::exit::{Exit, Failure};
use super::{Room, local_actor, print_list, say};
use crate::appliances::store;
use crate::entitlements::Entitlement;
use crate::faults::silence::can_read_hours;
use crate::flow::appliance_acts::{self, Acted, ApplianceAct};
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
    /// End one of its certificates: within 60 seconds it is worth nothing any more
    RevokeCertificate {
        /// Its id
        appliance: String,
        /// The certificate's fingerprint (hex SHA-256), as the appliance's page shows it
        #[arg(long, value_name = "HEX")]
        fingerprint: String,
        /// Why
        #[arg(long)]
        why: String,
    },
    /// Say when it is expected to be heard: outside these hours its silence opens no ticket
    ExpectedHours {
        /// Its id
        appliance: String,
        /// `HH:MM-HH:MM` or `mon-fri HH:MM-HH:MM`, in the site's time zone; `always` takes a limit away
        #[arg(value_parser = hours)]
        hours: String,
    },
    /// Record what the customer is entitled to for it: in place of what was
    Entitle {
        /// Its id
        appliance: String,
        /// Last day of the software warranty
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = end_of_day)]
        software_until: Option<UnixMs>,
        /// Last day of the hardware warranty
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = end_of_day)]
        hardware_until: Option<UnixMs>,
        /// Last day of the service period bought
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = end_of_day)]
        service_until: Option<UnixMs>,
        /// A paid feature that was bought (given once for each)
        #[arg(long = "feature", value_name = "NAME")]
        features: Vec<String>,
    },
    /// Ask it to measure and report now
    ReportNow {
        /// Its id
        appliance: String,
    },
}

/// A last day as the first moment after it, in China time, where the service year is counted.
fn end_of_day(text: &str) -> Result<UnixMs, String> {
    let day = text.parse::<chrono::NaiveDate>().map_err(|_| "expected a day such as 2027-06-30".to_owned())?;
    let next = day.succ_opt().and_then(|next| next.and_hms_opt(0, 0, 0)).ok_or("expected a day such as 2027-06-30")?;
    Ok(UnixMs(next.and_utc().timestamp_millis() - 8 * 3_600_000))
}

/// Expected hours as an argument; `always` is stored as nothing.
fn hours(text: &str) -> Result<String, String> {
    match text.trim() {
        "always" => Ok(String::new()),
        hours if can_read_hours(hours) => Ok(hours.to_owned()),
        _ => Err("expected HH:MM-HH:MM, mon-fri HH:MM-HH:MM, or always".to_owned()),
    }
}

/// Runs `appliance ...`.
pub(crate) async fn run(room: &Room, command: ApplianceCommand) -> anyhow::Result<()> {
    let (appliance_id, act) = match command {
        ApplianceCommand::List { customer } => return list(room, customer.as_deref()).await,
        ApplianceCommand::Release { appliance, why } => (appliance, ApplianceAct::Release { why }),
        ApplianceCommand::Retire { appliance, why } => (appliance, ApplianceAct::Retire { why }),
        ApplianceCommand::ApproveRenewal { appliance } => (appliance, ApplianceAct::ApproveRenewal),
        ApplianceCommand::RevokeCertificate { appliance, fingerprint, why } => {
            (appliance, ApplianceAct::RevokeCertificate { fingerprint, why })
        }
        ApplianceCommand::ExpectedHours { appliance, hours } => (appliance, ApplianceAct::ExpectHours { hours }),
        ApplianceCommand::Entitle { appliance, software_until, hardware_until, service_until, features } => {
            let entitlement = Entitlement {
                software_until_at: software_until,
                hardware_until_at: hardware_until,
                service_until_at: service_until,
                features: features.into_iter().collect(),
            };
            (appliance, ApplianceAct::Entitle(entitlement))
        }
        ApplianceCommand::ReportNow { appliance } => (appliance, ApplianceAct::Ask(Ask::ReportNow)),
    };
    let world = room.world().await?;
    let unknown = || Failure::because(Exit::Data, format!("appliance {appliance_id:?}: expected one of `appliance list`"));
    let tenant_id = store::tenant_of(&mut *world.db.read().await?, &appliance_id).await?.ok_or_else(unknown)?;
    match appliance_acts::act(&world, &local_actor(), (&tenant_id, &appliance_id), &act).await? {
        Acted::Done => {
            say(&format!("已完成：{appliance_id}"), &format!("Done: {appliance_id}"));
            Ok(())
        }
        Acted::NothingToDo => Err(Failure::because(Exit::Refused, format!("appliance {appliance_id}: {}", nothing_to_do(&act)))),
        Acted::NoAppliance => Err(unknown()),
    }
}

fn nothing_to_do(act: &ApplianceAct) -> &'static str {
    match act {
        ApplianceAct::Release { .. } => "it is not held",
        ApplianceAct::Retire { .. } => "it is retired already",
        ApplianceAct::ApproveRenewal => "no renewal waits for approval",
        ApplianceAct::RevokeCertificate { .. } => "it has no living certificate of that fingerprint",
        ApplianceAct::ExpectHours { .. } => "these are its hours already, or it is retired",
        ApplianceAct::Entitle(_) => "it is recorded so already",
        ApplianceAct::Ask(_) => "there is nothing to ask",
    }
}

async fn list(room: &Room, customer: Option<&str>) -> anyhow::Result<()> {
    let found = store::list(&mut *room.db().await?.read().await?, customer).await?;
    print_list(room.json, &found, |one| {
        let state = if one.held_reason.is_empty() { one.state.as_str().to_owned() } else { format!("held: {}", one.held_reason) };
        let name = one_line(&format!("{} {} {}", one.name, one.model, one.serial));
        let hours = if one.expected_hours.is_empty() { String::new() } else { format!("  {}", one.expected_hours) };
        format!("{}  {}/{}  {}  {}  {state}  {name}{hours}", one.appliance_id, one.tenant_id, one.site_id, one.product, one.duty)
    })
}
