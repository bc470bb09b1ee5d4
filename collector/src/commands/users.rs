//! `user`: staff accounts with the roles of C8. A new password and TOTP secret are printed once and stored only as needed to check.
//!
//! Every act is recorded in the vendor's chain of events.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use mainstay_shared::ids::random_hex_128;
use mainstay_shared::time_source::UnixMs;

use super::exit::{Exit, Failure};
use super::{Room, local_actor, print_list, say, secret_input};
use crate::audit;
use crate::customers::credentials::{self, MIN_PASSWORD_CHARS};
use crate::customers::{CustomerEvent, Language, Role, Staff, VENDOR_TENANT, store};
use crate::db::{Conn, Turn, mark_change, transact};

/// `user ...`
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account; its password and TOTP secret are printed once
    Add(Add),
    /// List the accounts
    List,
    /// Let an account serve a customer, in the account's role
    Serve {
        /// User name
        username: String,
        /// The customer
        #[arg(long, value_name = "CUSTOMER")]
        customer: String,
        /// Serve it no more
        #[arg(long)]
        remove: bool,
    },
    /// Take an account's access away, its sessions and tokens too
    Disable {
        /// User name
        username: String,
    },
    /// Give an account a new password and TOTP secret; its sessions end
    Reset {
        /// User name
        username: String,
        /// Take the password from this file's first line instead of making one
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

/// Arguments of `user add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// User name: lower-case letters, digits, `.`, `-`, `_`
    username: String,
    /// Full name
    #[arg(long)]
    name: String,
    /// Mail address
    #[arg(long)]
    email: String,
    /// Telephone number
    #[arg(long, default_value = "")]
    phone: String,
    /// Role
    #[arg(long, value_parser = role)]
    role: Role,
    /// Language of mails and pages: zh or en
    #[arg(long, value_parser = language, default_value = "zh")]
    language: Language,
    /// Serves this customer, in the account's role (may be given several times)
    #[arg(long, value_name = "CUSTOMER")]
    serves: Vec<String>,
    /// Take the password from this file's first line instead of making one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// A role's name as an argument.
pub(crate) fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// A language's code as an argument.
pub(crate) fn language(code: &str) -> Result<Language, String> {
    Language::from_code(code).ok_or_else(|| "expected zh or en".to_owned())
}

/// What an account is opened with; the clear text is printed once.
pub(crate) struct NewAccess {
    pub(crate) secrets: store::Secrets,
    username: String,
    /// `None`: the person gave it and knows it.
    password: Option<String>,
    otpauth: String,
}

/// Makes a TOTP secret, and a password unless the file gives one.
pub(crate) fn new_access(room: &Room, username: &str, password_file: Option<&Path>) -> anyhow::Result<NewAccess> {
    let given = password_file.map(secret_input::first_line).transpose()?;
    if given.as_ref().is_some_and(|password| password.chars().count() < MIN_PASSWORD_CHARS) {
        return Err(Failure::because(Exit::Config, format!("the password: expected at least {MIN_PASSWORD_CHARS} characters")));
    }
    let made = if given.is_none() { Some(credentials::new_password(&room.rng)?) } else { None };
    let password_hash = credentials::hash_password(given.as_deref().or(made.as_deref()).unwrap_or_default())?;
    let totp_secret = credentials::new_totp_secret(&room.rng)?;
    let otpauth = credentials::otpauth_address(&room.config.service_name, username, &totp_secret)?;
    let secrets = store::Secrets { password_hash, totp_secret, totp_last_step: 0, failed_count: 0, locked_until_at: None };
    Ok(NewAccess { secrets, username: username.to_owned(), password: made, otpauth })
}

impl NewAccess {
    /// Prints the secrets on standard output, once.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            let document = serde_json::json!({
                "username": self.username,
                "password": self.password,
                "totp_secret": self.secrets.totp_secret,
                "otpauth": self.otpauth,
            });
            println!("{}", serde_json::to_string_pretty(&document)?);
            return Ok(());
        }
        say("以下内容只显示一次。", "What follows is shown once.");
        println!("用户名 / user name: {}", self.username);
        if let Some(password) = &self.password {
            println!("口令 / password: {password}");
        }
        println!("TOTP 密钥 / TOTP secret: {}", self.secrets.totp_secret);
        println!("验证器地址 / authenticator address: {}", self.otpauth);
        Ok(())
    }
}

/// Refuses what is no user name.
pub(crate) fn check_username(username: &str) -> anyhow::Result<()> {
    let good = (1..=32).contains(&username.len())
        && username.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte));
    if good {
        return Ok(());
    }
    Err(Failure::because(Exit::Config, format!("user name {username:?}: expected 1 to 32 of a-z, 0-9, '.', '-', '_'")))
}

/// Refuses what is no mail address.
pub(crate) fn check_email(email: &str) -> anyhow::Result<()> {
    email
        .parse::<lettre::Address>()
        .map(drop)
        .map_err(|_| Failure::because(Exit::Config, format!("mail address {email:?}: expected one such as li.wei@example.com")))
}

/// Runs `user ...`.
pub(crate) async fn run(room: &Room, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add(arguments) => add(room, arguments).await,
        UserCommand::List => list(room).await,
        UserCommand::Serve { username, customer, remove } => serve(room, &username, &customer, remove).await,
        UserCommand::Disable { username } => disable(room, &username).await,
        UserCommand::Reset { username, password_file } => reset(room, &username, password_file.as_deref()).await,
    }
}

async fn add(room: &Room, add: Add) -> anyhow::Result<()> {
    check_username(&add.username)?;
    check_email(&add.email)?;
    let access = new_access(room, &add.username, add.password_file.as_deref())?;
    let now = room.time.now();
    let staff = Staff {
        staff_id: random_hex_128(&room.rng),
        username: add.username,
        name: add.name,
        email: add.email,
        phone: add.phone,
        role: add.role,
        language: add.language,
        created_at: now,
        disabled_at: None,
    };
    let db = room.db().await?;
    transact!(db, Turn::Console, |tx| {
        store::add_staff(tx, &staff, &access.secrets).await.with_context(|| format!("adding the user {:?}", staff.username))?;
        record_added(tx, &staff, now).await?;
        for tenant_id in &add.serves {
            begin_to_serve(tx, &staff, tenant_id, now).await?;
        }
        mark_change(tx).await?;
        Ok(())
    });
    access.print(room.json)
}

/// Records a new account.
pub(crate) async fn record_added(tx: &mut Conn, staff: &Staff, now: UnixMs) -> anyhow::Result<()> {
    let added = CustomerEvent::UserAdded { staff_id: staff.staff_id.clone(), username: staff.username.clone(), role: staff.role };
    audit::append(tx, VENDOR_TENANT, now, &local_actor(), &subject(staff), &added).await.map(drop)
}

async fn list(room: &Room) -> anyhow::Result<()> {
    let all = store::all_staff(&mut *room.db().await?.read().await?).await?;
    print_list(room.json, &all, |staff| {
        let disabled = if staff.disabled_at.is_some() { "  (停用 / disabled)" } else { "" };
        format!("{}  {}  {}  {}{disabled}", staff.username, staff.role.as_str(), staff.name, staff.email)
    })
}

async fn begin_to_serve(tx: &mut Conn, staff: &Staff, tenant_id: &str, now: UnixMs) -> anyhow::Result<()> {
    if store::customer(tx, tenant_id).await?.is_none() {
        return Err(Failure::because(Exit::Data, format!("customer {tenant_id:?}: expected one of `customer list`")));
    }
    store::serve(tx, tenant_id, &staff.staff_id, staff.role).await?;
    let (staff_id, role) = (staff.staff_id.clone(), staff.role);
    let serves = CustomerEvent::UserServes { staff_id, tenant_id: tenant_id.to_owned(), role };
    audit::append(tx, tenant_id, now, &local_actor(), &subject(staff), &serves).await.map(drop)
}

async fn serve(room: &Room, username: &str, tenant_id: &str, remove: bool) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    transact!(db, Turn::Console, |tx| {
        let staff = known(tx, username).await?;
        if remove {
            if !store::serve_no_more(tx, tenant_id, &staff.staff_id).await? {
                let message = format!("user {username:?} does not serve customer {tenant_id:?}");
                return Err(Failure::because(Exit::Data, message));
            }
            let event = CustomerEvent::UserServesNoMore { staff_id: staff.staff_id.clone(), tenant_id: tenant_id.to_owned() };
            audit::append(tx, tenant_id, now, &local_actor(), &subject(&staff), &event).await?;
        } else {
            begin_to_serve(tx, &staff, tenant_id, now).await?;
        }
        mark_change(tx).await?;
        Ok(())
    });
    if remove {
        say(&format!("{username} 不再服务客户 {tenant_id}。"), &format!("{username} serves {tenant_id} no more."));
    } else {
        say(&format!("{username} 现服务客户 {tenant_id}。"), &format!("{username} now serves {tenant_id}."));
    }
    Ok(())
}

async fn disable(room: &Room, username: &str) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    transact!(db, Turn::Console, |tx| {
        let staff = known(tx, username).await?;
        store::disable_staff(tx, &staff.staff_id, now).await?;
        let event = CustomerEvent::UserDisabled { staff_id: staff.staff_id.clone(), username: username.to_owned() };
        audit::append(tx, VENDOR_TENANT, now, &local_actor(), &subject(&staff), &event).await?;
        mark_change(tx).await?;
        Ok(())
    });
    say(&format!("已停用 {username}。"), &format!("Disabled {username}."));
    Ok(())
}

async fn reset(room: &Room, username: &str, password_file: Option<&Path>) -> anyhow::Result<()> {
    let access = new_access(room, username, password_file)?;
    let (db, now) = (room.db().await?, room.time.now());
    transact!(db, Turn::Console, |tx| {
        let staff = known(tx, username).await?;
        store::reset_staff(tx, &staff.staff_id, &access.secrets, now).await?;
        let event = CustomerEvent::UserReset { staff_id: staff.staff_id.clone(), username: username.to_owned() };
        audit::append(tx, VENDOR_TENANT, now, &local_actor(), &subject(&staff), &event).await?;
        mark_change(tx).await?;
        Ok(())
    });
    access.print(room.json)
}

async fn known(conn: &mut Conn, username: &str) -> anyhow::Result<Staff> {
    store::staff_to_sign_in(conn, username)
        .await?
        .map(|(staff, _)| staff)
        .ok_or_else(|| Failure::because(Exit::Data, format!("user {username:?}: expected one of `user list`")))
}

fn subject(staff: &Staff) -> String {
    format!("staff:{}", staff.staff_id)
}
