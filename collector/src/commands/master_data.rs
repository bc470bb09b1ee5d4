//! `customer`, `site`, `contact`, `group`: who is served, where, whom to tell, and what "interrupted" means across appliances.
//!
//! Every act is recorded in the customer's chain of events, in the transaction of the row.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use mainstay_shared::ids::{ApplianceId, random_hex_128};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::users::{check_email, language};
use super::{Room, local_actor, print_list, say};
use crate::audit;
use crate::customers::{Contact, Customer, CustomerEvent, Language, Site, store};
use crate::db::{Turn, mark_change, transact};
use crate::faults::groups::{self, Group, GroupMember};

/// `customer ...`
#[derive(Debug, Subcommand)]
pub(crate) enum CustomerCommand {
    /// Add a customer
    Add {
        /// Its id: lower-case letters, digits, `-`
        id: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// Language of its texts: zh or en
        #[arg(long, value_parser = language, default_value = "zh")]
        language: Language,
    },
    /// List the customers
    List,
}

/// `site ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Add a site
    Add {
        /// Its id: lower-case letters, digits, `-`
        id: String,
        /// The customer's id
        #[arg(long)]
        customer: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// The city it stands in
        #[arg(long)]
        city: String,
        /// Its time zone, as IANA names it
        #[arg(long, default_value = "Asia/Shanghai")]
        time_zone: String,
    },
    /// List a customer's sites
    List {
        /// The customer's id
        #[arg(long)]
        customer: String,
    },
}

/// `contact ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ContactCommand {
    /// Add a contact
    Add(AddContact),
    /// List a customer's contacts
    List {
        /// The customer's id
        #[arg(long)]
        customer: String,
    },
}

/// Arguments of `contact add`.
#[derive(Debug, Args)]
pub(crate) struct AddContact {
    /// The customer's id
    #[arg(long)]
    customer: String,
    /// Told of this site only (default: of all)
    #[arg(long)]
    site: Option<String>,
    /// Name
    #[arg(long)]
    name: String,
    /// Mail address
    #[arg(long)]
    email: String,
    /// Telephone number
    #[arg(long, default_value = "")]
    phone: String,
    /// Language of the mails: zh or en
    #[arg(long, value_parser = language, default_value = "zh")]
    language: Language,
}

/// `group ...`
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Declare or change a service group
    Set {
        /// Its id: lower-case letters, digits, `-`
        id: String,
        /// The customer's id
        #[arg(long)]
        customer: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// How many members the business needs
        #[arg(long)]
        needs: u32,
        /// A member, APPLIANCE-ID:SERVICE (given once for each)
        #[arg(long = "member", required = true, value_name = "APPLIANCE:SERVICE")]
        members: Vec<String>,
    },
    /// List a customer's service groups
    List {
        /// The customer's id
        #[arg(long)]
        customer: String,
    },
}

fn check_id(what: &str, id: &str) -> anyhow::Result<()> {
    let good = (1..=40).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !id.starts_with('-');
    if good { Ok(()) } else { Err(Failure::because(Exit::Config, format!("{what} {id:?}: expected 1 to 40 of a-z, 0-9, '-'"))) }
}

fn unknown_customer(id: &str) -> anyhow::Error {
    Failure::because(Exit::Data, format!("customer {id:?}: expected one of `customer list`"))
}

/// Runs `customer ...`.
pub(crate) async fn customer(room: &Room, command: CustomerCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    match command {
        CustomerCommand::Add { id, name, language } => {
            check_id("customer", &id)?;
            let customer = Customer { tenant_id: id, name, language, created_at: now };
            transact!(db, Turn::Console, |tx| {
                store::add_customer(tx, &customer)
                    .await
                    .with_context(|| format!("adding the customer {:?}", customer.tenant_id))?;
                let added = CustomerEvent::CustomerAdded { tenant_id: customer.tenant_id.clone(), name: customer.name.clone() };
                audit::append(tx, &customer.tenant_id, now, &local_actor(), "customer", &added).await?;
                mark_change(tx).await?;
                Ok(())
            });
            told(room, &customer, &customer.tenant_id)
        }
        CustomerCommand::List => {
            let all = store::customers(&mut *db.read().await?).await?;
            print_list(room.json, &all, |customer| format!("{}  {}", customer.tenant_id, customer.name))
        }
    }
}

/// Runs `site ...`.
pub(crate) async fn site(room: &Room, command: SiteCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    match command {
        SiteCommand::Add { id, customer, name, city, time_zone } => {
            check_id("site", &id)?;
            if time_zone.parse::<chrono_tz::Tz>().is_err() {
                return Err(Failure::because(
                    Exit::Config,
                    format!("time zone {time_zone:?}: expected an IANA name such as Asia/Shanghai"),
                ));
            }
            let site = Site { tenant_id: customer, site_id: id, name, city, time_zone };
            transact!(db, Turn::Console, |tx| {
                store::customer(tx, &site.tenant_id).await?.ok_or_else(|| unknown_customer(&site.tenant_id))?;
                store::add_site(tx, &site).await.with_context(|| format!("adding the site {:?}", site.site_id))?;
                let added =
                    CustomerEvent::SiteAdded { site_id: site.site_id.clone(), name: site.name.clone(), city: site.city.clone() };
                audit::append(tx, &site.tenant_id, now, &local_actor(), &format!("site:{}", site.site_id), &added).await?;
                mark_change(tx).await?;
                Ok(())
            });
            told(room, &site, &site.site_id)
        }
        SiteCommand::List { customer } => {
            let all = store::sites(&mut *db.read().await?, &customer).await?;
            print_list(room.json, &all, |site| format!("{}  {}  {}  {}", site.site_id, site.name, site.city, site.time_zone))
        }
    }
}

/// Runs `contact ...`.
pub(crate) async fn contact(room: &Room, command: ContactCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    match command {
        ContactCommand::Add(add) => {
            check_email(&add.email)?;
            let contact = Contact {
                tenant_id: add.customer,
                contact_id: random_hex_128(&room.rng),
                site_id: add.site,
                name: add.name,
                email: add.email,
                phone: add.phone,
                language: add.language,
            };
            transact!(db, Turn::Console, |tx| {
                store::customer(tx, &contact.tenant_id).await?.ok_or_else(|| unknown_customer(&contact.tenant_id))?;
                if let Some(site_id) = &contact.site_id {
                    store::site(tx, &contact.tenant_id, site_id)
                        .await?
                        .ok_or_else(|| Failure::because(Exit::Data, format!("site {site_id:?}: expected one of `site list`")))?;
                }
                store::add_contact(tx, &contact).await?;
                let added = CustomerEvent::ContactAdded {
                    contact_id: contact.contact_id.clone(),
                    name: contact.name.clone(),
                    email: contact.email.clone(),
                };
                let subject = format!("contact:{}", contact.contact_id);
                audit::append(tx, &contact.tenant_id, now, &local_actor(), &subject, &added).await?;
                mark_change(tx).await?;
                Ok(())
            });
            told(room, &contact, &contact.name)
        }
        ContactCommand::List { customer } => {
            let all = store::contacts(&mut *db.read().await?, &customer).await?;
            print_list(room.json, &all, |contact| format!("{}  {}  {}", contact.name, contact.email, contact.phone))
        }
    }
}

/// Runs `group ...`.
pub(crate) async fn group(room: &Room, command: GroupCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    match command {
        GroupCommand::Set { id, customer, name, needs, members } => {
            check_id("group", &id)?;
            let members = members.iter().map(|text| member(text)).collect::<anyhow::Result<Vec<_>>>()?;
            let group = Group { tenant_id: customer, group_id: id, name, needs, members };
            groups::check(&group).map_err(|bad| Failure::because(Exit::Config, bad))?;
            transact!(db, Turn::Console, |tx| {
                store::customer(tx, &group.tenant_id).await?.ok_or_else(|| unknown_customer(&group.tenant_id))?;
                groups::upsert_group(tx, &group).await.with_context(|| {
                    format!(
                        "group {:?}: expected members that are appliances of this customer, each service in one group",
                        group.group_id
                    )
                })?;
                let set = CustomerEvent::ServiceGroupSet {
                    group_id: group.group_id.clone(),
                    needs: i64::from(group.needs),
                    members: names(&group),
                };
                audit::append(tx, &group.tenant_id, now, &local_actor(), &format!("group:{}", group.group_id), &set).await?;
                mark_change(tx).await?;
                Ok(())
            });
            told(room, &group, &group.group_id)
        }
        GroupCommand::List { customer } => {
            let all = groups::list(&mut *db.read().await?, &customer).await?;
            print_list(room.json, &all, |group| {
                let members = names(group);
                format!("{}  {}  {}/{}  {}", group.group_id, group.name, group.needs, members.len(), members.join(" "))
            })
        }
    }
}

/// Reads `APPLIANCE-ID:SERVICE`.
fn member(text: &str) -> anyhow::Result<GroupMember> {
    text.split_once(':')
        .filter(|(appliance_id, service)| appliance_id.parse::<ApplianceId>().is_ok() && !service.is_empty())
        .map(|(appliance_id, service)| GroupMember { appliance_id: appliance_id.to_owned(), service: service.to_owned() })
        .ok_or_else(|| {
            let accepted = "expected APPLIANCE-ID:SERVICE, the id as `appliance list` shows it";
            Failure::because(Exit::Config, format!("member {text:?}: {accepted}"))
        })
}

fn names(group: &Group) -> Vec<String> {
    group.members.iter().map(|member| format!("{}:{}", member.appliance_id, member.service)).collect()
}

fn told(room: &Room, made: &impl Serialize, name: &str) -> anyhow::Result<()> {
    if room.json {
        println!("{}", serde_json::to_string_pretty(made)?);
    } else {
        say(&format!("已保存：{name}"), &format!("Saved: {name}"));
    }
    Ok(())
}
