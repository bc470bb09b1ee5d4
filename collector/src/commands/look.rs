//! Commands that only look: `check-config`, `audit verify`.
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

/// `audit ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
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
    let AuditCommand::Verify { tenant } = command;
    let db = room.db().await?;
    let customers = store::customers(&mut *db.read().await?).await?;
    let tenants: Vec<String> = customers.into_iter().map(|customer| customer.tenant_id).collect();
    if let Some(unknown) = tenant.as_ref().filter(|wanted| !tenants.contains(wanted)) {
        return Err(Failure::because(Exit::Data, format!("customer {unknown:?}: expected one of `customer list`")));
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
