//! The wording of mails: the reader's language first and whole, the other below in short. Texts come from `words` (`locales/mails.yml`).
//!
//! Every mail about a ticket is built alike: what happened, the fault by its code, the facts, the tries, the link, why it came.
//! Plain text only: nothing here makes markup, and untrusted text goes through [`one_line`].

use super::facts::Facts;
pub(crate) use super::facts::one_line;
use super::rules::{Kind, Told, Why};
use crate::customers::Language;
use crate::tickets::Ticket;
use crate::words::{Words, when};

/// A finished mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// Which half of a mail is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// In the reader's language: everything.
    Whole,
    /// In the other one: enough to hand it on.
    Short,
}

/// The mail that tells `told` of a kind of event.
pub(crate) fn of_ticket(kind: Kind, facts: &Facts, told: &Told) -> Text {
    bilingual(told.recipient.language, |w, half| {
        let key = |part: &str| format!("mail.{}.{part}", kind.as_str());
        let severity = w.of("severity", facts.ticket.severity.as_str());
        let headline = headline(w, &facts.ticket, facts.place());
        let title = w.with(&key("title"), &[("severity", &severity), ("ticket", &headline)]);
        let lead = w.with(&key("lead"), &[("severity", &severity), ("who", &facts.who)]);
        let mut lines = vec![lead];
        lines.extend(note(w, kind, facts));
        lines.extend([String::new(), headline]);
        lines.extend(fact_lines(w, facts, half));
        if half == Half::Whole {
            lines.extend(check_lines(w, facts));
            lines.extend([String::new(), facts.link.clone(), String::new()]);
            lines.extend([w.pair(&w.t("mail.why"), &why_words(w, told.why)), facts.service_name.clone()]);
        }
        (title, lines.join("\n"))
    })
}

/// `T-000042 Business service does not answer: payments`, as one line.
fn headline(w: Words, ticket: &Ticket, place: &str) -> String {
    one_line(&format!("{} {}", ticket.ticket_id, ticket.headline(w, place)))
}

fn note(w: Words, kind: Kind, facts: &Facts) -> Option<String> {
    let (name, value) = match kind {
        Kind::Closed | Kind::Reopened => ("act.why", w.of("closed_why", &facts.note)),
        _ => ("act.note", facts.note.as_str().into()),
    };
    (!facts.note.is_empty()).then(|| w.pair(&w.t(name), &value))
}

fn fact_lines(w: Words, facts: &Facts, half: Half) -> Vec<String> {
    let ticket = &facts.ticket;
    let severity = w.of("severity", ticket.severity.as_str());
    let presumed = || w.with("mail.presumed", &[("severity", &severity)]);
    let line = |key: &str, value: &str| w.pair(&w.t(key), value);
    let mut lines = vec![
        line("mail.severity", &if ticket.presumed { presumed() } else { severity.to_string() }),
        line("ticket.grounds", &w.of("reason", &ticket.reason)),
        line("mail.due", &when::moment(facts.due_at, &facts.zone)),
    ];
    if half == Half::Short {
        return lines;
    }
    let place: Vec<&str> = [&facts.customer, &facts.site, &facts.appliance]
        .into_iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    lines.push(line("ticket.customer", &place.join(" / ")));
    if !ticket.component.is_empty() {
        lines.push(line("ticket.component", &one_line(&w.component(&ticket.component))));
    }
    lines.push(line("ticket.fault_since", &when::moment(ticket.fault_at, &facts.zone)));
    lines.push(line("ticket.received", &when::moment(ticket.opened_at, &facts.zone)));
    if !ticket.summary.is_empty() {
        lines.push(w.pair(&w.of("said_by", &ticket.source), &one_line(&ticket.summary)));
    }
    lines
}

/// The tries, those that saw the same in one entry: which tries, when, and what was seen.
fn check_lines(w: Words, facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    let same = |one: &&mainstay_shared::check::CheckResult, other: &&mainstay_shared::check::CheckResult| {
        (&one.check, one.state, &one.reason, &one.text) == (&other.check, other.state, &other.reason, &other.text)
    };
    for tries in facts.checks.iter().collect::<Vec<_>>().chunk_by(same) {
        let [first, ..] = tries else { continue };
        let numbers: Vec<String> = tries.iter().map(|found| found.attempt.to_string()).collect();
        let times: Vec<String> = tries.iter().map(|found| when::second(found.at, &facts.zone)).collect();
        let text = w.with(
            "mail.check",
            &[
                ("state", &w.of("service_state", first.state.as_str())),
                ("reason", &w.of("check_reason", &first.reason)),
                ("tries", &numbers.join(&w.t("mail.comma"))),
                ("times", &times.join(&w.t("mail.comma"))),
                ("kind", &first.kind),
                ("check", &first.check),
            ],
        );
        lines.push(format!("  - {}", one_line(&text)));
        lines.extend((!first.text.is_empty()).then(|| format!("    {}", one_line(&first.text))));
    }
    if !lines.is_empty() {
        lines.insert(0, w.pair(&w.t("ticket.tries"), "").trim_end().to_owned());
    }
    lines
}

fn why_words(w: Words, why: Why) -> String {
    match why {
        Why::Serves(role) => w.with("mail.serves", &[("role", &w.of("role", role.as_str()))]),
        Why::NobodyElse(role) => w.with("mail.nobody_else", &[("role", &w.of("role", role.as_str()))]),
        Why::LastResort => w.t("mail.last_resort").into_owned(),
        Why::Contact => w.t("mail.contact").into_owned(),
    }
}

/// A ticket of a digest, and where its fault was.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    pub(crate) ticket: Ticket,
    pub(crate) place: String,
}

/// A customer's day: what failed and recovered before anyone could be told.
pub(crate) fn digest(language: Language, customer: &str, day: &str, faults: &[Over], link: &str) -> Text {
    bilingual(language, |w, half| {
        let title = w.with("mail.digest.title", &[("day", &day), ("customer", &one_line(customer))]);
        let mut lines = vec![w.t("mail.digest.lead").into_owned(), String::new()];
        lines.extend(faults.iter().map(|over| format!("  - {}", headline(w, &over.ticket, &over.place))));
        if half == Half::Whole {
            lines.extend([String::new(), link.to_owned()]);
        }
        (title, lines.join("\n"))
    })
}

/// The operators' day: the heads of the chains of events, out of a database owner's reach.
pub(crate) fn heads(language: Language, service_name: &str, day: &str, chains: &[String]) -> Text {
    bilingual(language, |w, half| {
        let title = w.with("mail.heads.title", &[("day", &day), ("service", &service_name)]);
        let mut lines = vec![w.t("mail.heads.lead").into_owned()];
        if half == Half::Whole {
            lines.push(String::new());
            lines.extend(chains.iter().map(|chain| format!("  {chain}")));
        }
        (title, lines.join("\n"))
    })
}

/// Both halves, the reader's language first; the subject is in it.
pub(super) fn bilingual(first: Language, half: impl Fn(Words, Half) -> (String, String)) -> Text {
    let second = if first == Language::Zh { Language::En } else { Language::Zh };
    let ((title, own), (_, other)) = (half(Words(first), Half::Whole), half(Words(second), Half::Short));
    Text { title, body: format!("{own}\n\n----------------------------------------\n\n{other}\n") }
}

#[cfg(test)]
mod tests;
