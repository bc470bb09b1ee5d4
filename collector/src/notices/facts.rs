//! What a notice tells, read from the records in the transaction of the event. Untrusted text becomes one harmless line here.
//!
//! It reads names beside the ticket's row; it never decides anything and words nothing.

use mainstay_shared::check::CheckResult;
use mainstay_shared::time_source::UnixMs;
use serde_json::Value;

use crate::config::Config;
use crate::customers::store;
use crate::db::Conn;
use crate::tickets::{Ticket, TicketEvent};

/// C2, C3: the promise where no clock row says otherwise yet.
const RESPONSE_MS: i64 = 30 * 60_000;

/// The longest untrusted text in a mail, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// What a notice about a ticket tells.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) service_name: String,
    pub(crate) ticket: Ticket,
    pub(crate) customer: String,
    /// The site's name and city; empty for none.
    pub(crate) site: String,
    /// Empty for a ticket about no single appliance.
    pub(crate) appliance: String,
    /// The site's time zone, as IANA names it.
    pub(crate) zone: String,
    /// The check tries behind the decision.
    pub(crate) checks: Vec<CheckResult>,
    pub(crate) due_at: UnixMs,
    pub(crate) link: String,
    /// The named engineer, for `taken` and `responded`.
    pub(crate) who: String,
    /// Why it was closed, what the engineer noted, what came back.
    pub(crate) note: String,
}

impl Facts {
    /// Where the fault is when its component does not say: the appliance, or the site.
    pub(crate) fn place(&self) -> &str {
        if self.appliance.is_empty() { &self.site } else { &self.appliance }
    }
}

/// Reads what a notice about `event` tells.
pub(crate) async fn load(conn: &mut Conn, config: &Config, ticket: &Ticket, event: &TicketEvent) -> anyhow::Result<Facts> {
    let customer = store::customer(conn, &ticket.tenant_id).await?;
    let site = store::site(conn, &ticket.tenant_id, &ticket.site_id).await?;
    let appliance = appliance_name(conn, ticket).await?;
    let due_at: Option<i64> =
        sqlx::query_scalar("SELECT due_at FROM clocks WHERE tenant_id = $1 AND ticket_id = $2 ORDER BY clock_no DESC LIMIT 1")
            .bind(&ticket.tenant_id)
            .bind(&ticket.ticket_id)
            .fetch_optional(conn)
            .await?;
    let (who, note) = person_and_note(event);
    Ok(Facts {
        service_name: config.service_name.clone(),
        customer: one_line(&customer.map_or_else(|| ticket.tenant_id.clone(), |customer| customer.name)),
        zone: site.as_ref().map_or_else(|| "Asia/Shanghai".to_owned(), |site| site.time_zone.clone()),
        site: site.map_or_else(String::new, |site| one_line(&format!("{} ({})", site.name, site.city))),
        appliance,
        checks: checks_of(&ticket.grounds),
        due_at: due_at.map_or_else(|| ticket.opened_at.plus_ms(RESPONSE_MS), UnixMs),
        link: format!("{}/tickets/{}", config.web_public_url, ticket.ticket_id),
        who: one_line(who),
        note: one_line(note),
        ticket: ticket.clone(),
    })
}

/// The name of a ticket's appliance, its id if nobody named it, empty for a ticket about no single appliance.
pub(crate) async fn appliance_name(conn: &mut Conn, ticket: &Ticket) -> Result<String, sqlx::Error> {
    let name: Option<String> = sqlx::query_scalar("SELECT name FROM appliances WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(&ticket.tenant_id)
        .bind(&ticket.appliance_id)
        .fetch_optional(conn)
        .await?;
    Ok(one_line(&name.unwrap_or_else(|| ticket.appliance_id.clone())))
}

fn person_and_note(event: &TicketEvent) -> (&str, &str) {
    match event {
        TicketEvent::Taken { name, .. } => (name, ""),
        TicketEvent::Responded { name, note, .. } => (name, note),
        TicketEvent::Closed { why } => ("", why),
        TicketEvent::Reopened { summary, .. } => ("", summary),
        _ => ("", ""),
    }
}

/// The tries behind the decision: whatever stands under `seen.checks` of the stored grounds, ten at most.
pub(crate) fn checks_of(grounds: &str) -> Vec<CheckResult> {
    let grounds: Value = serde_json::from_str(grounds).unwrap_or_default();
    let checks = grounds.pointer("/seen/checks").cloned().unwrap_or_default();
    let mut checks: Vec<CheckResult> = serde_json::from_value(checks).unwrap_or_default();
    checks.truncate(10);
    checks
}

/// Untrusted text as one line without control or direction-changing characters, cut to a bearable length (R11).
pub(crate) fn one_line(text: &str) -> String {
    let harmless = |c: char| {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || turns { ' ' } else { c }
    };
    let line: String = text.chars().map(harmless).collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_TEXT_CHARS {
        return line;
    }
    line.chars().take(MAX_TEXT_CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_one_bounded_line() {
        for (given, expected) in [
            ("down\r\nBcc: all@example.com", "down Bcc: all@example.com"),
            ("a\u{202e}gpj.exe", "a gpj.exe"),
            ("  web \t is\u{0}down ", "web is down"),
            ("某服务 中断", "某服务 中断"),
        ] {
            assert_eq!(one_line(given), expected);
        }
        assert_eq!(one_line(&"x".repeat(9_999)).chars().count(), MAX_TEXT_CHARS + 1);
    }

    #[test]
    fn the_checks_are_read_from_the_grounds_and_odd_grounds_tell_nothing() {
        let found = checks_of(&crate::notices::testing::ticket(1, mainstay_shared::severity::BusinessImpact::Slight).grounds);
        assert_eq!(found.iter().map(|check| check.attempt).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(checks_of("").is_empty() && checks_of("{\"seen\":{\"checks\":7}}").is_empty());
    }
}
