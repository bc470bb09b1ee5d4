//! Commands that only look: `check-config`, `audit list`, `audit verify`.
//!
//! Nothing here writes.

use std::path::Path;

use clap::Subcommand;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::{Room, print_list, say};
use crate::audit::{self, Verdict};
use crate::config::Config;
use crate::customers::store;
use crate::db::Db;

/// `audit ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List what is on record, the newest last
    List {
        /// Of this customer, or `vendor`
        #[arg(long, value_name = "CUSTOMER")]
        tenant: String,
        /// Of this subject only: `ticket:T-000042`, `appliance:ID`, `staff:ID`
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// At most so many, the newest, when no subject is named
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u16,
    },
    /// Check every link of the record of events
    Verify {
        /// Of this customer only (default: of all)
        #[arg(long, value_name = "CUSTOMER")]
        tenant: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Verified {
    tenant_id: String,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Runs `audit ...`.
pub(crate) async fn audit(room: &Room, command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::List { tenant, subject, limit } => list(room, &tenant, subject.as_deref(), limit).await,
        AuditCommand::Verify { tenant } => verify(room, tenant).await,
    }
}

fn must_be_known(tenants: &[String], wanted: &str) -> anyhow::Result<()> {
    if tenants.iter().any(|known| known == wanted) {
        return Ok(());
    }
    Err(Failure::because(Exit::Data, format!("customer {wanted:?}: expected one of `customer list`")))
}

async fn tenants(db: &Db) -> anyhow::Result<Vec<String>> {
    let customers = store::customers(&mut *db.read().await?).await?;
    Ok(customers.into_iter().map(|customer| customer.tenant_id).collect())
}

async fn list(room: &Room, tenant: &str, subject: Option<&str>, limit: u16) -> anyhow::Result<()> {
    let db = room.db().await?;
    must_be_known(&tenants(&db).await?, tenant)?;
    let mut conn = db.read().await?;
    let events = match subject {
        Some(subject) => audit::of_subject(&mut conn, tenant, subject).await?,
        None => audit::newest(&mut conn, tenant, i64::from(limit)).await?,
    };
    print_list(room.json, &events, |event| {
        let at = event.at.to_utc().format("%Y-%m-%d %H:%M:%SZ");
        format!("{:>6}  {at}  {}  {}  {}", event.seq, event.actor, event.subject, event.body)
    })
}

async fn verify(room: &Room, tenant: Option<String>) -> anyhow::Result<()> {
    let db = room.db().await?;
    let tenants = tenants(&db).await?;
    if let Some(wanted) = &tenant {
        must_be_known(&tenants, wanted)?;
    }
    let mut found = Vec::new();
    for tenant_id in tenants.into_iter().filter(|known| tenant.as_ref().is_none_or(|wanted| wanted == known)) {
        let verdict = audit::verify(&db, &tenant_id).await?;
        found.push(Verified { tenant_id, verdict });
    }
    print_list(room.json, &found, |Verified { tenant_id, verdict }| match verdict {
        Verdict::Whole { count, head } => format!("{tenant_id}  完整 / whole  {count}  {head}"),
        Verdict::Broken { seq, why } => format!("{tenant_id}  已损坏 / broken  {seq}: {why}"),
    })?;
    if found.iter().any(|one| matches!(one.verdict, Verdict::Broken { .. })) {
        return Err(Failure::because(Exit::Data, "the record of events was altered"));
    }
    Ok(())
}

/// Says what the settings mean; they have been checked already.
pub(crate) fn check_config(config: &Config, path: &Path, json: bool) -> anyhow::Result<()> {
    for file in files_named(config) {
        if let Err(error) = std::fs::File::open(file) {
            return Err(Failure::because(
                Exit::Config,
                format!("{}: {}: cannot be read: {error}", path.display(), file.display()),
            ));
        }
    }
    if json {
        println!("{}", serde_json::json!({ "file": path, "ok": true }));
        return Ok(());
    }
    say(&format!("{}：正确。", path.display()), &format!("{}: correct.", path.display()));
    println!("agents  {}  {}", config.agents_listen, config.agents_addresses.join(" "));
    println!("web     {}  {}", config.web_listen, config.web_public_url);
    match &config.mail {
        Some(mail) => println!("mail    {}:{}", mail.server, mail.port),
        None => say("没有 [mail]：通知会一直等待。", "No [mail]: notices wait."),
    }
    if config.watch.is_none() {
        say("没有 [watch]：收集端停摆时无人得知。", "No [watch]: nobody learns when the collector dies.");
    }
    Ok(())
}

fn files_named(config: &Config) -> Vec<&Path> {
    let web = config.web_tls.iter().flat_map(|tls| [tls.certificate_file.as_path(), tls.key_file.as_path()]);
    let mail = config.mail.iter().flat_map(|mail| [mail.ca_file.as_deref(), mail.password_file.as_deref()]).flatten();
    web.chain(mail).collect()
}
