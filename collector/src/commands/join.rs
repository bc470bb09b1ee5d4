//! `join-token`: one line that enrols one appliance (or a counted few), short-lived, bound to customer, site, product, duty (R25).
//!
//! The line holds a secret: it goes to standard output alone, texts for people go to standard error.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use mainstay_shared::enrolment::JoinString;
use mainstay_shared::ids::random_hex_128;

use super::exit::{Exit, Failure};
use super::{Room, local_actor, say};
use crate::appliances::authority::Authority;
use crate::appliances::join::{JoinToken, secret_hash};
use crate::appliances::tokens;
use crate::config;
use crate::customers::store;
use crate::db::{Turn, transact};

/// `join-token ...`
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Print a join string, alone on standard output
    Create(Create),
}

/// Arguments of `join-token create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The customer's id
    #[arg(long)]
    customer: String,
    /// The site's id
    #[arg(long)]
    site: String,
    /// The product that the appliance is
    #[arg(long)]
    product: String,
    /// What it is for at its site
    #[arg(long, value_enum)]
    duty: Duty,
    /// How many appliances may join with it
    #[arg(long, default_value_t = 1)]
    uses: u16,
    /// How long it holds, such as 90s, 15min, 24h, 7d (at most 30d)
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime, default_value = "24h")]
    lifetime: Duration,
}

/// An appliance's duty.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Duty {
    Primary,
    Standby,
    Single,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    config::duration(text)
        .filter(|time| *time <= Duration::from_secs(30 * 86_400))
        .ok_or_else(|| "expected a time such as 90s, 15min, 24h or 7d, at most 30d".to_owned())
}

/// Runs `join-token ...`.
pub(crate) async fn run(room: &Room, command: JoinTokenCommand) -> anyhow::Result<()> {
    let JoinTokenCommand::Create(create) = command;
    if create.uses == 0 {
        return Err(Failure::because(Exit::Config, "--uses 0: expected 1 or more"));
    }
    let (db, now) = (room.db().await?, room.time.now());
    let ca_pin = Authority::load(&room.config.data_dir.join("keys"))?.pin();
    let secret = random_hex_128(&room.rng);
    let token = JoinToken {
        token_id: random_hex_128(&room.rng),
        tenant_id: create.customer,
        site_id: create.site,
        product: create.product,
        duty: match create.duty {
            Duty::Primary => "primary",
            Duty::Standby => "standby",
            Duty::Single => "single",
        }
        .to_owned(),
        secret_hash: secret_hash(&secret),
        uses_left: i64::from(create.uses),
        created_at: now,
        expires_at: now.plus(create.lifetime),
    };
    transact!(db, Turn::Console, |tx| {
        store::site(tx, &token.tenant_id, &token.site_id).await?.ok_or_else(|| {
            Failure::because(
                Exit::Data,
                format!("customer {:?}, site {:?}: expected a site of `site list --customer ID`", token.tenant_id, token.site_id),
            )
        })?;
        tokens::add(tx, &token, &local_actor()).await?;
        Ok(())
    });
    let join = JoinString { addresses: room.config.agents_addresses.clone(), ca_pin, token_id: token.token_id, secret };
    say(
        &format!("接入串（{} 次，有效至 {}）：在设备上交给 mainstay-agent enroll。", create.uses, token.expires_at),
        &format!(
            "Join string ({} use(s), until {}): give it to mainstay-agent enroll on the appliance.",
            create.uses, token.expires_at
        ),
    );
    println!("{}", join.to_secret_text());
    Ok(())
}
