//! What a notice tells, read from the records in the transaction of the event. Untrusted text becomes one harmless line here.
//!
//! It reads names beside the ticket's row; it never decides anything.

use chrono_tz::Tz;
use mainstay_shared::severity::Severity;
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
    pub(crate) number: String,
    pub(crate) severity: Severity,
    pub(crate) presumed: bool,
    pub(crate) reason: String,
    pub(crate) customer: String,
    pub(crate) site: String,
    /// Empty for a ticket about no single appliance.
    pub(crate) appliance: String,
    pub(crate) component: String,
    pub(crate) what: String,
    /// Check results: name, state, text.
    pub(crate) checks: Vec<String>,
    pub(crate) fault_at: String,
    pub(crate) opened_at: String,
    pub(crate) due_at: String,
    pub(crate) link: String,
    /// The named engineer, for `taken` and `responded`.
    pub(crate) who: String,
    /// Why it was closed, what the engineer noted, what came back.
    pub(crate) note: String,
}

/// Reads what a notice about `event` tells.
pub(crate) async fn load(conn: &mut Conn, config: &Config, ticket: &Ticket, event: &TicketEvent) -> anyhow::Result<Facts> {
    let customer = store::customer(conn, &ticket.tenant_id).await?;
    let site = store::site(conn, &ticket.tenant_id, &ticket.site_id).await?;
    let appliance: Option<String> = sqlx::query_scalar("SELECT name FROM appliances WHERE tenant_id = $1 AND appliance_id = $2")
        .bind(&ticket.tenant_id)
        .bind(&ticket.appliance_id)
        .fetch_optional(&mut *conn)
        .await?;
    let due_at: Option<i64> =
        sqlx::query_scalar("SELECT due_at FROM clocks WHERE tenant_id = $1 AND ticket_id = $2 ORDER BY clock_no DESC LIMIT 1")
            .bind(&ticket.tenant_id)
            .bind(&ticket.ticket_id)
            .fetch_optional(conn)
            .await?;
    let zone = site.as_ref().and_then(|site| site.time_zone.parse().ok()).unwrap_or(Tz::Asia__Shanghai);
    let (who, note) = person_and_note(event);
    Ok(Facts {
        service_name: config.service_name.clone(),
        number: ticket.ticket_id.clone(),
        severity: ticket.severity,
        presumed: ticket.presumed,
        reason: ticket.reason.clone(),
        customer: one_line(&customer.map_or_else(|| ticket.tenant_id.clone(), |customer| customer.name)),
        site: site.map_or_else(String::new, |site| one_line(&format!("{} ({})", site.name, site.city))),
        appliance: one_line(&appliance.unwrap_or_else(|| ticket.appliance_id.clone())),
        component: one_line(&format!("{} / {}", ticket.component, ticket.code)),
        what: one_line(&ticket.summary),
        checks: checks_of(&ticket.grounds),
        fault_at: at_site(ticket.fault_at, zone),
        opened_at: at_site(ticket.opened_at, zone),
        due_at: at_site(due_at.map_or_else(|| ticket.opened_at.plus_ms(RESPONSE_MS), UnixMs), zone),
        link: format!("{}/tickets/{}", config.web_public_url, ticket.ticket_id),
        who: one_line(&who),
        note: one_line(&note),
    })
}

fn person_and_note(event: &TicketEvent) -> (String, String) {
    match event {
        TicketEvent::Taken { name, .. } => (name.clone(), String::new()),
        TicketEvent::Responded { name, note, .. } => (name.clone(), note.clone()),
        TicketEvent::Closed { why } => (String::new(), why.clone()),
        TicketEvent::Reopened { summary, .. } => (String::new(), summary.clone()),
        _ => (String::new(), String::new()),
    }
}

/// The checks behind the decision, a line each: whatever stands under `seen.checks` of the stored grounds.
pub(crate) fn checks_of(grounds: &str) -> Vec<String> {
    let grounds: Value = serde_json::from_str(grounds).unwrap_or_default();
    let checks = grounds.pointer("/seen/checks").and_then(Value::as_array);
    let word = |check: &Value, key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    checks
        .into_iter()
        .flatten()
        .take(10)
        .map(|check| {
            one_line(&format!(
                "{} ({}): {}, {}: {}",
                word(check, "check"),
                word(check, "kind"),
                word(check, "state"),
                word(check, "reason"),
                word(check, "text")
            ))
        })
        .collect()
}

/// A moment as people at the site read it.
pub(super) fn at_site(at: UnixMs, zone: Tz) -> String {
    at.to_utc().with_timezone(&zone).format("%Y-%m-%d %H:%M:%S (UTC%:z)").to_string()
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
        let grounds = r#"{"about":"service","seen":{"checks":[{"check":"http","kind":"http","state":"down","reason":"refused","text":"connection\nrefused"}]}}"#;
        assert_eq!(checks_of(grounds), ["http (http): down, refused: connection refused"]);
        assert!(checks_of("").is_empty() && checks_of("{\"seen\":{\"checks\":7}}").is_empty());
    }
}
