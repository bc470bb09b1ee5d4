//! `init`: the keys, the database's first row and the first operator, once (R4: no other way to set up exists).
//!
//! The database row is the commit point. The root CA's key is written encrypted to a file that is carried away; it is never
//! stored in the data directory.

use std::path::PathBuf;

use age::secrecy::SecretString;
use clap::Args;
use mainstay_shared::ids::{CollectorEpoch, random_hex_128};
use mainstay_shared::time_source::UnixMs;

use super::exit::{Exit, Failure};
use super::{Room, local_actor, say, secret_input, users};
use crate::appliances::authority;
use crate::audit;
use crate::customers::{self, Customer, CustomerEvent, Role, Staff, VENDOR_TENANT, store};
use crate::db::{Turn, transact};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where to write the root CA's key, encrypted: a file to be carried away
    #[arg(long, value_name = "FILE")]
    root_key_out: PathBuf,
    /// Take the passphrase for that file from this file's first line instead of asking
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// User name of the first operator
    #[arg(long, value_name = "USERNAME")]
    operator: String,
    /// The first operator's full name (default: the user name)
    #[arg(long)]
    name: Option<String>,
    /// The first operator's mail address
    #[arg(long)]
    email: String,
    /// Take the first operator's password from this file's first line instead of making one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Sets the collector up.
pub(crate) async fn run(room: &Room, init: Init) -> anyhow::Result<()> {
    let data_dir = &room.config.data_dir;
    secret_input::private_directory(data_dir)?;
    let db = room.any_db().await?;
    let epoch_before: Option<String> =
        sqlx::query_scalar("SELECT epoch FROM collector").fetch_optional(&mut *db.read().await?).await?;
    if epoch_before.is_some() {
        return Err(Failure::because(Exit::Exists, "this collector has been set up before; nothing was changed"));
    }
    let keys_dir = data_dir.join("keys");
    if keys_dir.exists() {
        let told = format!(
            "{}: exists, but the database is empty: either database.url names another database than before, or an earlier init \
             was cut off; in that case move the directory away and run init again",
            keys_dir.display()
        );
        return Err(Failure::because(Exit::Exists, told));
    }
    if init.root_key_out.parent().and_then(|parent| parent.canonicalize().ok()).is_some_and(|parent| parent.starts_with(data_dir))
    {
        return Err(Failure::because(
            Exit::Refused,
            "--root-key-out: expected a place outside the data directory: it is to be carried away",
        ));
    }
    users::check_username(&init.operator)?;
    users::check_email(&init.email)?;
    let passphrase =
        secret_input::passphrase(init.passphrase_file.as_deref(), "根证书密钥口令 / passphrase of the root key file", true)?;
    let access = users::new_access(room, &init.operator, init.password_file.as_deref())?;

    let now = room.time.now();
    secret_input::private_directory(&keys_dir)?;
    let root_key_pem = authority::create(&keys_dir, &room.rng, now)?;
    let sealed = age::encrypt(&recipient(passphrase), root_key_pem.0.as_bytes())?;
    secret_input::write_private_file(&init.root_key_out, &sealed)?;
    let operator = Staff {
        staff_id: random_hex_128(&room.rng),
        username: init.operator.clone(),
        name: init.name.unwrap_or(init.operator),
        email: init.email,
        phone: String::new(),
        role: Role::Operator,
        language: room.config.language,
        created_at: now,
        disabled_at: None,
    };
    store_first_rows(room, &db, &operator, &access.secrets, now).await?;
    say(
        &format!("已完成初始化。根证书密钥（已加密）在 {}：请拷走并离线保存。", init.root_key_out.display()),
        &format!("Set up. The root key, encrypted, is in {}: carry it away and keep it offline.", init.root_key_out.display()),
    );
    access.print(room.json)
}

/// The passphrase as the one who may read.
fn recipient(passphrase: SecretString) -> age::scrypt::Recipient {
    age::scrypt::Recipient::new(passphrase)
}

async fn store_first_rows(
    room: &Room,
    db: &crate::db::Db,
    operator: &Staff,
    secrets: &store::Secrets,
    now: UnixMs,
) -> anyhow::Result<()> {
    let epoch = CollectorEpoch::random(&room.rng);
    let vendor = Customer {
        tenant_id: customers::VENDOR_TENANT.to_owned(),
        name: room.config.service_name.clone(),
        language: room.config.language,
        created_at: now,
    };
    transact!(db, Turn::Console, |tx| {
        sqlx::query("INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, $1, $2, $2)")
            .bind(epoch.as_str())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
        store::add_customer(tx, &vendor).await?;
        store::add_staff(tx, operator, secrets).await?;
        let initialised = CustomerEvent::CollectorInitialised { epoch: epoch.to_string() };
        audit::append(tx, VENDOR_TENANT, now, &local_actor(), "collector", &initialised).await?;
        users::record_added(tx, operator, now).await?;
        Ok(())
    });
    Ok(())
}
