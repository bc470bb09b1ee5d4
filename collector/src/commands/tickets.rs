//! `ticket list`, `ticket show`, `explain`, `notice list`, `notice retry`: the work, seen from the machine's own shell.
//!
//! Looking only, but for `notice retry`, which makes unsent notices due now.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use clap::Subcommand;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::ticket_page::{Page, Paint};
use super::{Room, print_list, say};
use crate::appliances::listing;
use crate::clocks::{self, Clock};
use crate::customers;
use crate::db::{Conn, Turn, mark_change, transact};
use crate::flow;
use crate::notices::outbox::{self, Notice};
use crate::notices::texts::one_line;
use crate::tickets::Ticket;
use crate::tickets::store::{self, Filter, TimelineEntry};
use crate::web::{clock_view, grounds_view, story_view};
use crate::words::Words;

/// The longest listing.
const MAX_ROWS: i64 = 500;

/// `ticket ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// List tickets, newest first
    List {
        /// Of this customer only
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
        /// Closed ones too
        #[arg(long)]
        all: bool,
    },
    /// Show a ticket with its clocks, its timeline and the notices that went out
    Show {
        /// The ticket, such as T-000042
        ticket: String,
    },
}

/// `notice ...`
#[derive(Debug, Subcommand)]
pub(crate) enum NoticeCommand {
    /// List notices, newest first
    List {
        /// Of this customer only
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
        /// In this state only
        #[arg(long, value_parser = ["waiting", "sent", "refused"])]
        state: Option<String>,
    },
    /// Try unsent notices again now, refused ones too
    Retry {
        /// This notice only (default: all)
        notice: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    ticket: Ticket,
    clocks: Vec<Clock>,
    timeline: Vec<TimelineEntry>,
    notices: Vec<Notice>,
}

/// Runs `ticket ...`.
pub(crate) async fn ticket(room: &Room, command: TicketCommand) -> anyhow::Result<()> {
    let db = room.db().await?;
    let mut conn = db.read().await?;
    match command {
        TicketCommand::List { customer, all } => {
            let filter = Filter { tenant_id: customer, not_closed: !all, ..Filter::default() };
            let found = store::list(&mut conn, &filter, None, MAX_ROWS).await?;
            let shown = found.iter().map(|ticket| ticket.appliance_id.clone()).collect();
            let (w, names) = (Words(room.config.language), listing::names(&mut conn, &shown).await?);
            print_list(room.json, &found, |ticket| {
                let (severity, state) = (w.of("severity", ticket.severity.as_str()), w.of("state", ticket.state.as_str()));
                let headline = one_line(&ticket.headline(w, names.get(&ticket.appliance_id).map_or("", String::as_str)));
                format!("{}  {severity}  {state}  {}  {headline}", ticket.ticket_id, ticket.tenant_id)
            })
        }
        TicketCommand::Show { ticket } => {
            let shown = load(&mut conn, &ticket).await?;
            if room.json {
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                print_ticket(room, &mut conn, &shown).await?;
            }
            Ok(())
        }
    }
}

async fn load(conn: &mut Conn, ticket_id: &str) -> anyhow::Result<Shown> {
    let ticket = store::find(conn, ticket_id).await?.ok_or_else(|| unknown(ticket_id))?;
    Ok(Shown {
        clocks: clocks::store::of_ticket(conn, &ticket.tenant_id, ticket_id).await?,
        timeline: store::timeline(conn, &ticket.tenant_id, ticket_id).await?,
        notices: outbox::of_ticket(conn, &ticket.tenant_id, ticket_id).await?,
        ticket,
    })
}

fn unknown(ticket_id: &str) -> anyhow::Error {
    Failure::because(Exit::Data, format!("ticket {ticket_id:?}: expected one of `ticket list --all`, such as T-000042"))
}

async fn print_ticket(room: &Room, conn: &mut Conn, shown: &Shown) -> anyhow::Result<()> {
    let (words, ticket) = (Words(room.config.language), &shown.ticket);
    let site = customers::store::site(conn, &ticket.tenant_id, &ticket.site_id).await?;
    let zone = site.map_or_else(|| "UTC".to_owned(), |site| site.time_zone);
    let staff: HashMap<_, _> =
        customers::store::all_staff(conn).await?.into_iter().map(|staff| (staff.staff_id, staff.name)).collect();
    let page = Page { words, zone, paint: Paint(std::io::stdout().is_terminal()) };
    let names = listing::names(conn, &[ticket.appliance_id.clone()].into()).await?;
    page.head(ticket, names.get(&ticket.appliance_id).map_or("", String::as_str));
    for clock in &shown.clocks {
        page.clock(&clock_view::view(words, clock, room.time.now(), &page.zone));
    }
    page.grounds(&grounds_view::view(words, &ticket.grounds, &page.zone));
    page.story(&story_view::lines(words, &shown.timeline, &page.zone, &staff));
    page.notices(&shown.notices);
    Ok(())
}

/// Runs `explain`.
pub(crate) async fn explain(room: &Room, ticket_id: &str) -> anyhow::Result<()> {
    let db = room.db().await?;
    let explained = flow::explain::explain(&mut *db.read().await?, ticket_id).await?.ok_or_else(|| unknown(ticket_id))?;
    if room.json {
        println!("{}", serde_json::to_string_pretty(&explained)?);
        return Ok(());
    }
    println!("{}", explained.ticket_id);
    for step in &explained.steps {
        println!("  {}  #{}  {}", step.at, step.seq, step.what);
    }
    if !explained.rows_agree {
        return Err(Failure::because(Exit::Data, "the stored clocks differ from what the record of events proves"));
    }
    Ok(())
}

/// Runs `notice ...`.
pub(crate) async fn notice(room: &Room, command: NoticeCommand) -> anyhow::Result<()> {
    let (db, now) = (room.db().await?, room.time.now());
    match command {
        NoticeCommand::List { customer, state } => {
            let (customer, state) = (customer.unwrap_or_default(), state.unwrap_or_default());
            let found = outbox::list(&mut *db.read().await?, &customer, &state, MAX_ROWS).await?;
            print_list(room.json, &found, |notice| {
                let error = if notice.last_error.is_empty() { String::new() } else { format!("  {}", notice.last_error) };
                format!(
                    "{}  {}  {}  {}  {}{error}",
                    notice.notice_id, notice.state, notice.recipient, notice.subject_id, notice.title
                )
            })
        }
        NoticeCommand::Retry { notice } => {
            let wanted = notice.unwrap_or_default();
            let count = transact!(db, Turn::Console, |tx| {
                let count = outbox::try_again(tx, &wanted, now).await?;
                mark_change(tx).await?;
                Ok(count)
            });
            if room.json {
                println!("{}", serde_json::json!({ "due": count }));
            }
            say(&format!("{count} 封通知将立即重试。"), &format!("{count} notices are due now."));
            Ok(())
        }
    }
}
