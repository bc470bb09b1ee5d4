//! A ticket at a terminal: severity, clock, grounds, what happened, in the console's own sentences.
//!
//! A terminal gets colour, a pipe plain text. Texts are in the vendor's language (`[service] language`). Pure but for printing.

use mainstay_shared::severity::Severity;

use crate::notices::outbox::Notice;
use crate::notices::texts::one_line;
use crate::tickets::Ticket;
use crate::web::clock_view::ClockView;
use crate::web::grounds_view::GroundsView;
use crate::web::story_view::Line;
use crate::words::Words;
use crate::words::when;

/// Colour at a terminal, nothing in a pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn tone(self, tone: &str, text: &str) -> String {
        match tone {
            "bad" => self.with("31", text),
            "good" => self.with("32", text),
            _ => text.to_owned(),
        }
    }
}

/// One ticket's texts, printed.
pub(super) struct Page {
    pub(super) words: Words,
    /// The site's time zone, as IANA names it.
    pub(super) zone: String,
    pub(super) paint: Paint,
}

impl Page {
    fn section(&self, key: &str) {
        println!("\n   {}", self.paint.with("1", &self.words.t(key)));
    }

    fn fact(&self, key: &str, value: &str) {
        println!("   {}  {value}", self.paint.with("2", &self.words.t(key)));
    }

    /// `place` names the appliance where the fault's component does not say it.
    pub(super) fn head(&self, ticket: &Ticket, place: &str) {
        let w = self.words;
        let severity = format!(" {} ", w.of("severity", ticket.severity.as_str()));
        let colour = if ticket.severity == Severity::Critical { "1;41;97" } else { "1;43;30" };
        let presumed = if ticket.presumed { format!(" ({})", w.t("ticket.presumed")) } else { String::new() };
        println!(
            "\n   {}  {}  {}",
            self.paint.with("1", &ticket.ticket_id),
            self.paint.with(colour, &severity),
            w.of("state", ticket.state.as_str())
        );
        println!("   {}", self.paint.with("1", &one_line(&ticket.headline(w, place))));
        let impact = w.of("impact", ticket.impact.as_str());
        self.fact("ticket.impact", &format!("{impact}{presumed}: {}", w.of("reason", &ticket.reason)));
        if !ticket.summary.is_empty() {
            println!("   {}  {}", self.paint.with("2", &w.of("said_by", &ticket.source)), one_line(&ticket.summary));
        }
        let action = w.action(&ticket.code);
        if !action.is_empty() {
            self.fact("ticket.action", &action);
        }
        self.fact("ticket.fault_since", &when::moment(ticket.fault_at, &self.zone));
        self.fact("ticket.received", &when::moment(ticket.opened_at, &self.zone));
    }

    pub(super) fn clock(&self, clock: &ClockView) {
        let w = self.words;
        self.section("ticket.clocks");
        let left = if clock.counts { format!(", {} {}", clock.left, w.t("ticket.left")) } else { String::new() };
        println!("   {}: {}{left}", w.of("clock", clock.kind), w.of("clock_mood", clock.mood));
        println!("   {} → {} {}", clock.started, w.t("ticket.due"), self.paint.with("1", &clock.due_at));
    }

    pub(super) fn grounds(&self, grounds: &GroundsView) {
        self.section("ticket.grounds");
        println!("   {}", grounds.about);
        for found in &grounds.tries {
            let state = self.words.of("service_state", found.state);
            println!(
                "   {}. {} ({})  {}  {}  {} ms  {}",
                found.attempt,
                found.check,
                found.kind,
                self.paint.with("31", &state),
                one_line(&format!("{}: {}", found.reason, found.text)),
                found.took_ms,
                self.paint.with("2", &found.at)
            );
        }
        for group in &grounds.groups {
            let (members, needs) = (group.members.len(), group.needs);
            let text =
                self.words.with("ticket.group_needs", &[("needs", &needs), ("members", &members), ("healthy", &group.healthy)]);
            println!("   {}: {text}", group.name);
        }
    }

    /// Oldest first: what is read last at a terminal is what happened last.
    pub(super) fn story(&self, lines: &[Line]) {
        self.section("ticket.story");
        for line in lines.iter().rev() {
            let quoted = if line.quoted.is_empty() { String::new() } else { format!("  {}", self.paint.with("2", &line.quoted)) };
            println!("   {}  {}{quoted}", self.paint.with("2", &line.at), self.paint.tone(line.tone, &line.what));
        }
    }

    pub(super) fn notices(&self, notices: &[Notice]) {
        self.section("ticket.notices");
        for notice in notices {
            let state = self.words.of("notice_state", &notice.state);
            println!("   {state}  {}  {}  {}", notice.recipient, notice.title, self.paint.with("31", &notice.last_error));
        }
    }
}
